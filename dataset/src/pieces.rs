//! Text cut into the pieces that OpenAI's encodings look at one by one, by hand instead of by regular expression, and a
//! counter that remembers the pieces it has met.
//!
//! The cuts are those of `cl100k_base` and `o200k_base` in tiktoken (`openai_public.py`, read on 2026-11-22); a property
//! test holds them against the expressions themselves. Most of a tokenizer's time goes into cutting and into looking up the
//! same few thousand words: both are avoided here.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use regex_syntax::hir::{Class, HirKind};

use crate::{Count, hash};

/// Which expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// gpt-3.5 and gpt-4.
    Cl100k,
    /// gpt-4o and everything since.
    O200k,
}

// What a character is, as bits.
const UPPER: u8 = 1;
const LOWER: u8 = 2;
/// A letter without case, or a modifier.
const CASELESS: u8 = 4;
const MARK: u8 = 8;
const NUMBER: u8 = 16;
const SPACE: u8 = 32;
const LETTER: u8 = UPPER | LOWER | CASELESS;
/// What a word may begin with in o200k, and what it may go on with.
const HEAD: u8 = UPPER | CASELESS | MARK;
const TAIL: u8 = LOWER | CASELESS | MARK;

/// What each character is: from the same tables that the regular expressions are made with.
static KINDS: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut kinds = vec![0_u8; 0x11_0000].into_boxed_slice();
    let classes = [
        (r"[\p{Lu}\p{Lt}]", UPPER),
        (r"\p{Ll}", LOWER),
        (r"[\p{Lm}\p{Lo}]", CASELESS),
        (r"\p{M}", MARK),
        (r"\p{N}", NUMBER),
    ];
    for (class, kind) in classes {
        let parsed = regex_syntax::parse(class).expect("a class of the Unicode standard");
        if let HirKind::Class(Class::Unicode(class)) = parsed.kind() {
            for range in class.ranges() {
                for number in u32::from(range.start())..=u32::from(range.end()) {
                    kinds[number as usize] |= kind;
                }
            }
        }
    }
    for number in 0..=0x3000_u32 {
        if char::from_u32(number).is_some_and(char::is_whitespace) {
            kinds[number as usize] |= SPACE;
        }
    }
    kinds
});

/// A text's pieces.
#[derive(Debug, Clone)]
pub struct Pieces<'t> {
    rest: &'t str,
    split: Split,
    kinds: &'static [u8],
}

impl<'t> Pieces<'t> {
    /// Cuts a text.
    pub fn of(text: &'t str, split: Split) -> Self {
        Self { rest: text, split, kinds: &KINDS }
    }

    /// The character at a place of the rest: what it is, and how many bytes it has. Nothing at the end.
    fn at(&self, place: usize) -> Option<(u8, usize)> {
        let first = *self.rest.as_bytes().get(place)?;
        if first < 0x80 {
            return Some((self.kinds[usize::from(first)], 1));
        }
        let c = self.rest[place..].chars().next()?;
        Some((self.kinds[c as usize], c.len_utf8()))
    }

    /// Where a run of characters of some kinds ends.
    fn run(&self, mut place: usize, kinds: u8) -> usize {
        while let Some((kind, length)) = self.at(place) {
            if kind & kinds == 0 {
                break;
            }
            place += length;
        }
        place
    }

    fn is_break(&self, place: usize) -> bool {
        matches!(self.rest.as_bytes().get(place), Some(b'\r' | b'\n'))
    }

    /// The length of the next piece; the rest is not empty.
    fn length(&self) -> usize {
        let word = match self.split {
            Split::Cl100k => self.contraction(0).or_else(|| self.word()),
            Split::O200k => self.cased_word(),
        };
        word.or_else(|| self.digits()).or_else(|| self.signs()).unwrap_or_else(|| self.white_space())
    }

    /// Where `'s`, `'ll` and their like end that begin at a place, in any case.
    fn contraction(&self, place: usize) -> Option<usize> {
        let behind = self.rest.as_bytes().get(place..)?.strip_prefix(b"'")?;
        // the long s is an s in another case
        if behind.starts_with("ſ".as_bytes()) {
            return Some(place + 3);
        }
        match (behind.first()?.to_ascii_lowercase(), behind.get(1).map(u8::to_ascii_lowercase)) {
            (b's' | b'd' | b'm' | b't', _) => Some(place + 2),
            (b'l', Some(b'l')) | (b'v' | b'r', Some(b'e')) => Some(place + 3),
            _ => None,
        }
    }

    /// `[^\r\n\p{L}\p{N}]?+\p{L}++`
    fn word(&self) -> Option<usize> {
        let (kind, length) = self.at(0)?;
        let start = if kind & (LETTER | NUMBER) == 0 && !self.is_break(0) { length } else { 0 };
        let end = self.run(start, LETTER);
        (end > start).then_some(end)
    }

    /// The two alternatives of o200k that begin with `[^\r\n\p{L}\p{N}]?`, tried with what may stand before the word and
    /// without.
    fn cased_word(&self) -> Option<usize> {
        let (kind, length) = self.at(0)?;
        let before = (kind & (LETTER | NUMBER) == 0 && !self.is_break(0)).then_some(length);
        let starts = || before.into_iter().chain([0]);
        let end = starts()
            .find_map(|start| self.ending_low(start))
            .or_else(|| starts().find_map(|start| self.beginning_high(start)))?;
        Some(self.contraction(end).unwrap_or(end))
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
    fn ending_low(&self, start: usize) -> Option<usize> {
        let (mut place, mut last_both) = (start, None);
        while let Some((kind, length)) = self.at(place).filter(|(kind, _)| kind & HEAD != 0) {
            if kind & TAIL != 0 {
                last_both = Some(place + length);
            }
            place += length;
        }
        let end = self.run(place, TAIL);
        // without a small letter behind it, the head gives back what may stand in the tail as well
        if end > place { Some(end) } else { last_both }
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
    fn beginning_high(&self, start: usize) -> Option<usize> {
        let head = self.run(start, HEAD);
        (head > start).then(|| self.run(head, TAIL))
    }

    /// `\p{N}{1,3}`
    fn digits(&self) -> Option<usize> {
        let mut place = 0;
        for _ in 0..3 {
            match self.at(place) {
                Some((kind, length)) if kind & NUMBER != 0 => place += length,
                _ => break,
            }
        }
        (place > 0).then_some(place)
    }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`, in o200k with slashes among the line breaks.
    fn signs(&self) -> Option<usize> {
        let start = usize::from(self.rest.starts_with(' '));
        let mut place = start;
        while let Some((_, length)) = self.at(place).filter(|(kind, _)| kind & (SPACE | LETTER | NUMBER) == 0)
        {
            place += length;
        }
        if place == start {
            return None;
        }
        let behind =
            |byte: &u8| matches!(byte, b'\r' | b'\n') || (self.split == Split::O200k && *byte == b'/');
        Some(place + self.rest.as_bytes()[place..].iter().take_while(|byte| behind(byte)).count())
    }

    /// White space: up to its last line break; else all at the end of the text; else all but the last, which goes with
    /// what follows.
    fn white_space(&self) -> usize {
        let end = self.run(0, SPACE);
        let at_end = end == self.rest.len();
        let run = &self.rest[..end];
        match run.rfind(['\r', '\n']) {
            Some(_) if at_end && self.split == Split::Cl100k => end,
            Some(last) => last + 1,
            None if at_end => end,
            None => match run.char_indices().next_back() {
                Some((last, _)) if last > 0 => last,
                _ => end,
            },
        }
    }
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        let (piece, rest) = self.rest.split_at(self.length());
        self.rest = rest;
        Some(piece)
    }
}

/// Longest piece that is remembered, bytes.
const REMEMBERED_BYTES: usize = 30;
/// Pieces that are remembered: 2 MiB.
const SLOTS: usize = 1 << 16;

/// A piece with its tokens; of length 0, nothing.
#[derive(Clone, Copy)]
struct Slot {
    length: u8,
    tokens: u8,
    bytes: [u8; REMEMBERED_BYTES],
}

/// Counts tokens piece by piece.
pub struct PieceCounter<F> {
    split: Split,
    of_piece: F,
    known: Mutex<Vec<Slot>>,
}

impl<F: Fn(&str) -> usize + Sync> PieceCounter<F> {
    /// `of_piece` says how many tokens a piece has.
    pub fn new(split: Split, of_piece: F) -> Self {
        let nothing = Slot { length: 0, tokens: 0, bytes: [0; REMEMBERED_BYTES] };
        Self { split, of_piece, known: Mutex::new(vec![nothing; SLOTS]) }
    }

    fn known(&self) -> MutexGuard<'_, Vec<Slot>> {
        // a slot is written whole, so what another thread left behind is sound
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, piece: &str, known: &mut [Slot]) -> usize {
        if piece.len() > REMEMBERED_BYTES {
            return (self.of_piece)(piece);
        }
        let mut bytes = [0; REMEMBERED_BYTES];
        bytes[..piece.len()].copy_from_slice(piece.as_bytes());
        let slot = &mut known[hash::of(0, piece.as_bytes()) as usize % SLOTS];
        if usize::from(slot.length) == piece.len() && slot.bytes == bytes {
            return usize::from(slot.tokens);
        }
        let tokens = (self.of_piece)(piece);
        // a piece never has more tokens than bytes
        if let (Ok(length), Ok(tokens)) = (u8::try_from(piece.len()), u8::try_from(tokens)) {
            *slot = Slot { length, tokens, bytes };
        }
        tokens
    }
}

impl<F: Fn(&str) -> usize + Sync> Count for PieceCounter<F> {
    fn tokens(&self, text: &str) -> usize {
        let mut known = self.known();
        Pieces::of(text, self.split).map(|piece| self.count(piece, &mut known)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton};

    fn table(split: Split) -> &'static CoreBPE {
        match split {
            Split::Cl100k => cl100k_base_singleton(),
            Split::O200k => o200k_base_singleton(),
        }
    }

    /// The tokens of a text, and those of its pieces one behind the other.
    fn both(text: &str, split: Split) -> (Vec<u32>, Vec<u32>) {
        let table = table(split);
        let pieces = Pieces::of(text, split).flat_map(|piece| table.encode_ordinary(piece)).collect();
        (table.encode_ordinary(text), pieces)
    }

    fn pieces(text: &str, split: Split) -> Vec<&str> {
        Pieces::of(text, split).collect()
    }

    #[test]
    fn cuts_by_hand() {
        let (old, new) = (Split::Cl100k, Split::O200k);
        assert_eq!(
            pieces("Hello world, I'LL go!\n\n  2023", old),
            ["Hello", " world", ",", " I", "'LL", " go", "!\n\n", " ", " ", "202", "3"]
        );
        assert_eq!(
            pieces("Hello world, I'LL go!\n\n  2023", new),
            ["Hello", " world", ",", " I'LL", " go", "!\n\n", " ", " ", "202", "3"]
        );
        assert_eq!(pieces("camelCaseHTML a//\n/b", new), ["camel", "Case", "HTML", " a", "//\n/", "b"]);
        assert_eq!(pieces("x \n \n ", old), ["x", " \n \n "]);
        assert_eq!(pieces("x \n \n ", new), ["x", " \n \n", " "]);
        assert_eq!(pieces("it'ſ", old), ["it", "'ſ"]);
        assert_eq!(pieces("", new), Vec::<&str>::new());
    }

    const TEXTS: [&str; 12] = [
        "The quick brown fox's 12345 jumps — over 'the' lazy dogs, THEY'RE gone.\n\n\tNext:   line  ",
        "猫が好きです。ニャー！Café naïve Ωmega ǅungla ʰi \u{301}A\u{301}b \u{301}AB",
        "{\"a\": [1, 2.50, \"x\\ny\"], \"url\": \"https://example.com/a/b?c=d\"}",
        "    indented\n      code();\r\n\r\n\r\n // comment ///\n/ \u{a0}\u{3000}\u{85}x",
        "¼½ Ⅳ ① ٣٤٥٦ 一二三四 ๑๒๓๔๕",
        "\u{fffd}\u{200d}👩‍👩‍👧‍👦🇨🇭 \u{feff}a",
        "'s 'S 'll 'LL 'lL 've 'm't'x ''' 'ſ x'ſ X'S",
        "<|endoftext|> <|im_start|>user",
        "IDs: gpt-4.1-mini, HTTPServer2Go, iPhone, McDonald, ÅÄÖåäö, ЁЖик, ΑΒγδ",
        " \n",
        "\n ",
        "   ",
    ];

    #[test]
    fn texts_are_cut_as_the_expressions_cut_them() {
        for split in [Split::Cl100k, Split::O200k] {
            for text in TEXTS {
                let (want, found) = both(text, split);
                assert_eq!(found, want, "{split:?} {text:?}");
            }
        }
    }

    #[test]
    fn counts_are_the_same_when_pieces_come_again() {
        for split in [Split::Cl100k, Split::O200k] {
            let counter = PieceCounter::new(split, |piece: &str| table(split).count_ordinary(piece));
            for text in TEXTS.into_iter().chain(TEXTS) {
                assert_eq!(counter.tokens(text), table(split).count_ordinary(text), "{text:?}");
            }
        }
    }

    /// Characters where the expressions differ, and any others.
    fn any_text() -> impl Strategy<Value = String> {
        let character = prop_oneof![
            4 => prop::sample::select("aAzZsStTlLvVeErRmMdDſK019 \t\r\n\n  '''/!-._\u{a0}\u{3000}".chars().collect::<Vec<_>>()),
            2 => prop::sample::select("éÉß漢字かナǅʰ\u{301}\u{93f}كΣς١Ⅳ½\u{85}\u{2028}\u{200d}😺".chars().collect::<Vec<_>>()),
            1 => any::<char>(),
        ];
        prop::collection::vec(character, 0..40).prop_map(|all| all.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn any_text_is_cut_as_the_expressions_cut_it(text in any_text()) {
            for split in [Split::Cl100k, Split::O200k] {
                let (want, found) = both(&text, split);
                prop_assert_eq!(found, want, "{:?} {:?}", split, Pieces::of(&text, split).collect::<Vec<_>>());
            }
        }
    }
}
