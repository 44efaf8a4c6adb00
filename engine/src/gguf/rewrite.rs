//! The same file once more, with other numbers in some of its tensors.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{Gguf, GgufError, TensorPlace, malformed};

/// A tensor that is to be stored otherwise.
pub(crate) struct Changed {
    /// ggml's number of the new type.
    pub(crate) code: u32,
    /// The bytes of all its numbers in that type.
    pub(crate) size: u64,
}

/// A tensor in the new file.
struct Plan<'a> {
    name: &'a str,
    place: &'a TensorPlace,
    code: u32,
    offset: u64,
    size: u64,
    /// Where the old bytes begin, for one that stays as it is.
    copied_from: Option<u64>,
}

impl Gguf {
    /// Writes the file to `out`: metadata and unchanged tensors byte for byte, tensors in their order, the changed ones
    /// by `write`, which is told their name and must write as many bytes as it said.
    ///
    /// # Errors
    /// If a tensor's type is unknown or it reaches beyond the file's end, `write` fails or writes another number of
    /// bytes, or the file cannot be read or `out` not be written.
    pub(crate) fn rewrite<W: Write, E: From<GgufError> + From<io::Error>>(
        &mut self,
        out: &mut W,
        changed: &HashMap<String, Changed>,
        mut write: impl FnMut(&mut Self, &str, &mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let plans = self.plans(changed)?;
        let mut list = Vec::new();
        for plan in &plans {
            plan.describe(&mut list);
        }
        // What is left to do for each, without the borrow of the list of tensors.
        let parts: Vec<(String, u64, Option<u64>)> =
            plans.iter().map(|plan| (plan.name.to_owned(), plan.size, plan.copied_from)).collect();
        self.copy(0, self.metadata_end, out)?;
        out.write_all(&list)?;
        pad(out, self.metadata_end + list.len() as u64, self.alignment)?;
        for (name, size, copied_from) in parts {
            let mut counted = Counted { out, written: 0 };
            match copied_from {
                Some(start) => self.copy(start, size, &mut counted)?,
                None => write(self, &name, &mut counted)?,
            }
            if counted.written != size {
                let why = format!("{} bytes were written for {name} instead of {size}", counted.written);
                return Err(io::Error::other(why).into());
            }
            pad(out, size, self.alignment)?;
        }
        Ok(())
    }

    fn plans(&self, changed: &HashMap<String, Changed>) -> Result<Vec<Plan<'_>>, GgufError> {
        let mut places: Vec<(&String, &TensorPlace)> = self.places.iter().collect();
        places.sort_unstable_by_key(|(_, place)| place.index);
        let (mut plans, mut offset) = (Vec::with_capacity(places.len()), 0u64);
        for (name, place) in places {
            let (start, old_size) = self.extent(name, place)?;
            let (code, size, copied_from) = match changed.get(name) {
                Some(changed) => (changed.code, changed.size, None),
                None => (place.code, old_size, Some(start)),
            };
            plans.push(Plan { name, place, code, offset, size, copied_from });
            let end = offset.checked_add(size).and_then(|end| end.checked_next_multiple_of(self.alignment));
            offset = end.ok_or_else(|| malformed("its tensors are larger than can be"))?;
        }
        Ok(plans)
    }

    /// Copies bytes of the file as they are.
    fn copy(&mut self, start: u64, length: u64, out: &mut impl Write) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(start))?;
        match io::copy(&mut (&mut self.reader).take(length), out)? {
            copied if copied == length => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Plan<'_> {
    /// Appends its entry in the list of tensors.
    fn describe(&self, list: &mut Vec<u8>) {
        list.extend((self.name.len() as u64).to_le_bytes());
        list.extend(self.name.as_bytes());
        list.extend((self.place.dimensions.len() as u32).to_le_bytes());
        list.extend(self.place.dimensions.iter().flat_map(|dimension| dimension.to_le_bytes()));
        list.extend(self.code.to_le_bytes());
        list.extend(self.offset.to_le_bytes());
    }
}

/// Writes zeros up to the next multiple of `alignment`.
fn pad(out: &mut impl Write, length: u64, alignment: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(length.next_multiple_of(alignment) - length), out).map(|_| ())
}

/// Counts what passes.
struct Counted<'a, W> {
    out: &'a mut W,
    written: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
