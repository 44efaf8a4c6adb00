//! Stop sequences, found across the borders of tokens.

/// Passes text on until a stop sequence has come, and holds back what may be the beginning of one.
#[derive(Debug, Default)]
pub(super) struct Stops {
    sequences: Vec<String>,
    held: String,
}

/// What became of some text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// May be sent.
    pub(super) text: String,
    /// A stop sequence came; it and what followed are gone.
    pub(super) stopped: bool,
}

impl Stops {
    /// Watches for these; empty ones never occur.
    pub(super) fn new(sequences: Vec<String>) -> Self {
        let sequences = sequences.into_iter().filter(|sequence| !sequence.is_empty()).collect();
        Self { sequences, held: String::new() }
    }

    /// Takes more text.
    pub(super) fn push(&mut self, text: &str) -> Passed {
        if self.sequences.is_empty() {
            return Passed { text: text.to_owned(), stopped: false };
        }
        self.held.push_str(text);
        let found = self.sequences.iter().filter_map(|sequence| self.held.find(sequence.as_str())).min();
        if let Some(at) = found {
            let text = self.held[..at].to_owned();
            self.held.clear();
            return Passed { text, stopped: true };
        }
        let kept = self.sequences.iter().map(|sequence| overlap(&self.held, sequence)).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - kept);
        Passed { text: std::mem::replace(&mut self.held, held), stopped: false }
    }

    /// Returns what was held back in vain.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Returns the bytes at the end of `text` with which `sequence` begins; never the whole sequence.
fn overlap(text: &str, sequence: &str) -> usize {
    let (text, sequence) = (text.as_bytes(), sequence.as_bytes());
    let longest = text.len().min(sequence.len() - 1);
    (1..=longest).rev().find(|size| text.ends_with(&sequence[..*size])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in two cuts and returns what was passed and whether it stopped.
    fn feed(stops: &[&str], text: &str, cuts: [usize; 2]) -> (String, bool) {
        let mut watch = Stops::new(stops.iter().map(ToString::to_string).collect());
        let mut out = String::new();
        for part in [&text[..cuts[0]], &text[cuts[0]..cuts[1]], &text[cuts[1]..]] {
            let passed = watch.push(part);
            out += &passed.text;
            if passed.stopped {
                return (out, true);
            }
        }
        (out + &watch.finish(), false)
    }

    #[test]
    fn found_however_it_is_cut() {
        let cases: [(&[&str], &str, &str, bool); 8] = [
            (&["END"], "one END two", "one ", true),
            (&["END"], "one EN", "one EN", false),
            (&["aab"], "aaaab", "aa", true),
            (&["b", "ab"], "xxab", "xx", true),
            (&["。次"], "今日。明日。次は", "今日。明日", true),
            (&["\n\n"], "a\nb\n\nc", "a\nb", true),
            (&[""], "abc", "abc", false),
            (&[], "abc", "abc", false),
        ];
        for (stops, text, passed, stopped) in cases {
            let borders: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            for first in &borders {
                for second in borders.iter().filter(|second| *second >= first) {
                    let found = feed(stops, text, [*first, *second]);
                    assert_eq!(found, (passed.to_owned(), stopped), "{stops:?} {text} {first} {second}");
                }
            }
        }
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut watch = Stops::new(vec!["STOP".into()]);
        assert_eq!(watch.push("a ST"), Passed { text: "a ".into(), stopped: false });
        assert_eq!(watch.push("ART"), Passed { text: "START".into(), stopped: false });
    }
}
