//! From bytes, as tokens bring them, to characters.

/// Holds back the bytes of a character until it is whole, so that what it gives is always UTF-8.
///
/// What can never become a character is replaced by U+FFFD, as `String::from_utf8_lossy` does it for the whole.
#[derive(Debug, Default)]
pub(super) struct Detokenizer {
    /// At most three bytes: the beginning of a character.
    held: Vec<u8>,
}

impl Detokenizer {
    /// Takes more bytes and returns the characters that are whole now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut out = String::new();
        let mut rest = 0;
        for chunk in self.held.utf8_chunks() {
            out.push_str(chunk.valid());
            rest += chunk.valid().len();
            let last = rest + chunk.invalid().len() == self.held.len();
            if last && may_become_whole(chunk.invalid()) {
                break;
            }
            if !chunk.invalid().is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            rest += chunk.invalid().len();
        }
        self.held.drain(..rest);
        out
    }

    /// Returns what stands for bytes that never became a character.
    pub(super) fn finish(&mut self) -> String {
        let out = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        out
    }
}

/// Whether the bytes are the beginning of a character, rather than wrong.
fn may_become_whole(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => false,
        Err(error) => error.valid_up_to() == 0 && error.error_len().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&[u8]; 8] = [
        "plain".as_bytes(),
        "naïve café Ångström".as_bytes(),
        "今日はいい天気ですね。".as_bytes(),
        "😀👍🏽 👨‍👩‍👧‍👦 🇯🇵".as_bytes(),
        b"broken \xFF\xFE middle",
        b"cut \xE4\xBB",
        b"\xF0\x9F\x98x\xC3",
        b"\x80\xED\xA0\x80\xC0\xAF",
    ];

    #[test]
    fn split_at_every_byte_gives_the_whole() {
        for text in TEXTS {
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let mut detokenizer = Detokenizer::default();
                    let mut out = String::new();
                    for part in [&text[..first], &text[first..second], &text[second..]] {
                        out += &detokenizer.push(part);
                        assert!(detokenizer.held.len() < 4);
                    }
                    out += &detokenizer.finish();
                    assert_eq!(out, String::from_utf8_lossy(text), "at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn whole_characters_are_never_held_back() {
        let text = "a今😀é";
        let mut detokenizer = Detokenizer::default();
        let (mut given, mut taken) = (0, 0);
        for (byte, end) in text.bytes().zip(1..) {
            given += detokenizer.push(&[byte]).len();
            if text.is_char_boundary(end) {
                taken = end;
            }
            assert_eq!(given, taken);
        }
    }
}
