//! Personal data and secrets in a text: e-mail addresses, telephone numbers, payment cards, keys.
//!
//! Rules that err on the side of finding little: what is found is worth a look, what is not found may still be there.

use std::ops::Range;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// A payment card's number.
    Card,
    /// A key or a token of an API, or a private key.
    Key,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Email, Self::Phone, Self::Card, Self::Key];

    /// Its name in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Email => "personal_email",
            Self::Phone => "personal_phone",
            Self::Card => "personal_card",
            Self::Key => "secret_key",
        }
    }

    /// In words, of many.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Email => "e-mail addresses",
            Self::Phone => "telephone numbers",
            Self::Card => "numbers of payment cards",
            Self::Key => "API keys, tokens or private keys",
        }
    }

    /// How it is found.
    pub const fn method(self) -> &'static str {
        match self {
            Self::Email => "name@domain.tld in any text of a message",
            Self::Phone => {
                "+ and 8 to 15 digits, or 9 to 11 digits in groups that begin with 0 or are grouped 3-3-4, as in 555-010-9999"
            }
            Self::Card => {
                "13 to 19 digits, alone or in groups of at least 4, that pass the Luhn check and begin with 2 to 6"
            }
            Self::Key => {
                "the beginnings that providers give their keys (sk-, AKIA, ghp_, xoxb-, AIza and others) with at least 16 \
                 characters behind them, JSON web tokens, PEM private keys"
            }
        }
    }

    /// What stands in its place in a masked file.
    pub const fn mask(self) -> &'static str {
        match self {
            Self::Email => "[EMAIL]",
            Self::Phone => "[PHONE]",
            Self::Card => "[CARD]",
            Self::Key => "[KEY]",
        }
    }
}

/// A stretch of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Where, bytes.
    pub at: Range<usize>,
}

/// Beginnings of keys, and how many characters of a key follow at least.
const KEYS: [(&str, usize); 16] = [
    ("sk-", 20),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 30),
    ("gho_", 30),
    ("ghs_", 30),
    ("github_pat_", 30),
    ("glpat-", 16),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("AIza", 30),
    ("hf_", 30),
    ("npm_", 30),
    ("pypi-", 30),
];

const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "PRIVATE KEY-----";
/// What stands between the two, such as `RSA `, bytes.
const LONGEST_TITLE: usize = 20;
/// Each part of a web token has so many characters at least.
const FEWEST_OF_PART: usize = 10;

/// All that is found, in order, without overlaps.
pub fn find(text: &str) -> Vec<Found> {
    let bytes = text.as_bytes();
    let mut found: Vec<Found> = Vec::new();
    let mut word = Word::default();
    let mut at = 0;
    while at < bytes.len() {
        let starts_word = at == 0 || !is_word(bytes[at - 1]);
        let hit = match bytes[at] {
            b'@' => email(bytes, at, found.last().map_or(0, |last| last.at.end)),
            b'+' | b'(' | b'0'..=b'9' if starts_word => number(bytes, at),
            b'-' if starts_word => pem(text, at),
            b'A' | b'a' | b'e' | b'g' | b'h' | b'n' | b'p' | b'r' | b's' | b'x' if starts_word => {
                key(bytes, at, &mut word)
            }
            _ => None,
        };
        match hit {
            Some(hit) => {
                at = hit.at.end;
                found.push(hit);
            }
            None => at += 1,
        }
    }
    found
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn run(bytes: &[u8], fits: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| fits(**byte)).count()
}

/// An address around an `@`, that begins at `from` at the earliest.
fn email(bytes: &[u8], at: usize, from: usize) -> Option<Found> {
    const LONGEST_NAME: usize = 64;
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte);
    let name = bytes[from..at].iter().rev().take(LONGEST_NAME + 1).take_while(|byte| of_name(**byte)).count();
    let start = at - name;
    let name = &bytes[start..at];
    let behind = &bytes[at + 1..];
    let domain = &behind[..run(behind, |byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')];
    // a full stop behind the address ends the sentence
    let domain =
        &domain[..domain.len() - domain.iter().rev().take_while(|byte| b".-".contains(byte)).count()];
    let last = domain.rsplit(|byte| *byte == b'.').next()?;
    let is_domain = domain.contains(&b'.') && last.len() >= 2 && last.iter().all(u8::is_ascii_alphabetic);
    let is_name = name.len() <= LONGEST_NAME && name.first().is_some_and(u8::is_ascii_alphanumeric);
    let empty_label = domain.split(|byte| *byte == b'.').any(<[u8]>::is_empty);
    (is_name && is_domain && !empty_label)
        .then(|| Found { kind: Kind::Email, at: start..at + 1 + domain.len() })
}

/// A card or a telephone number that begins here.
fn number(bytes: &[u8], at: usize) -> Option<Found> {
    let here = &bytes[at..];
    let mut digits = Vec::with_capacity(20);
    // how many digits stand together
    let mut groups = vec![0_usize];
    let mut end = 0;
    let mut brackets = 0;
    let plus = here[0] == b'+';
    for (index, byte) in here.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                digits.push(byte - b'0');
                *groups.last_mut()? += 1;
                end = index + 1;
                if digits.len() > 19 {
                    return None;
                }
            }
            b'+' if index == 0 => {}
            b'(' if brackets == 0 && (index == 0 || here[index - 1] == b' ' || here[index - 1] == b'+') => {
                brackets = 1;
            }
            b')' if brackets == 1 => {
                brackets = 2;
                groups.push(0);
            }
            b' ' | b'-' if index > 0 && (here[index - 1].is_ascii_digit() || here[index - 1] == b')') => {
                if groups.last() != Some(&0) {
                    groups.push(0);
                }
            }
            _ => break,
        }
    }
    groups.retain(|count| *count > 0);
    // part of a word, a decimal number or a version
    if here.get(end).is_some_and(|byte| is_word(*byte))
        || (here.get(end) == Some(&b'.') && here.get(end + 1).is_some_and(u8::is_ascii_digit))
        || (at > 1 && bytes[at - 1] == b'.' && bytes[at - 2].is_ascii_digit())
    {
        return None;
    }
    let kind = if !plus && is_card(&digits, &groups) {
        Kind::Card
    } else if is_phone(plus, brackets > 0, &digits, &groups) {
        Kind::Phone
    } else {
        return None;
    };
    Some(Found { kind, at: at..at + end })
}

fn is_card(digits: &[u8], groups: &[usize]) -> bool {
    (13..=19).contains(&digits.len())
        && (2..=6).contains(&digits[0])
        && groups.iter().rev().skip(1).all(|count| *count >= 4)
        && luhn(digits)
        && digits.iter().any(|digit| *digit != digits[0])
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match (index % 2, u32::from(*digit) * 2) {
            (0, _) => u32::from(*digit),
            (_, twice) if twice > 9 => twice - 9,
            (_, twice) => twice,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn is_phone(plus: bool, brackets: bool, digits: &[u8], groups: &[usize]) -> bool {
    if plus {
        return (8..=15).contains(&digits.len()) && digits[0] != 0;
    }
    let in_groups = groups.len() >= 3 || (brackets && groups.len() >= 2);
    // 10 000 000 000 is an amount
    let amount = groups.iter().all(|count| *count == 3);
    let domestic = !amount && digits.first() == Some(&0) && groups.iter().skip(1).all(|count| *count >= 2);
    (9..=11).contains(&digits.len()) && in_groups && (domestic || groups == [3, 3, 4])
}

/// A stretch of what keys consist of. It is walked through once, however many beginnings of keys are in it: a line of
/// nothing else would take its length squared.
#[derive(Default)]
struct Word {
    end: usize,
    /// Behind its last digit; 0 where it has none.
    digits_end: usize,
    /// Where the two other parts of a web token end, which stand behind it.
    token_end: Option<usize>,
}

impl Word {
    /// The one that goes on at `at`.
    fn from(bytes: &[u8], at: usize) -> Self {
        let end = at + run(&bytes[at..], of_key);
        let last_digit = bytes[at..end].iter().rposition(u8::is_ascii_digit);
        Self {
            end,
            digits_end: last_digit.map_or(0, |digit| at + digit + 1),
            token_end: parts_behind(bytes, end),
        }
    }
}

const fn of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// A key that begins here. `word` is the last one that was walked through.
fn key(bytes: &[u8], at: usize, word: &mut Word) -> Option<Found> {
    let rest = &bytes[at..];
    let is_token = rest.starts_with(b"eyJ");
    let begin = KEYS.iter().find(|(begin, _)| rest.starts_with(begin.as_bytes()));
    if !is_token && begin.is_none() {
        return None;
    }
    if at >= word.end {
        *word = Word::from(bytes, at);
    }
    if is_token {
        let end = word.token_end.filter(|_| word.end - at >= FEWEST_OF_PART)?;
        return Some(Found { kind: Kind::Key, at: at..end });
    }
    let (begin, fewest) = begin?;
    let behind = at + begin.len();
    // a key has digits; a long word with hyphens has none
    let is_random = word.digits_end > behind;
    let long = word.end - behind >= *fewest;
    (long && is_random).then_some(Found { kind: Kind::Key, at: at..word.end })
}

/// Where the second and the third part of base64 end, behind a first one; the first of the three is JSON.
fn parts_behind(bytes: &[u8], first_end: usize) -> Option<usize> {
    let mut end = first_end;
    for _ in 0..2 {
        if bytes.get(end) != Some(&b'.') {
            return None;
        }
        let own = run(&bytes[end + 1..], of_key);
        if own < FEWEST_OF_PART {
            return None;
        }
        end += 1 + own;
    }
    Some(end)
}

fn pem(text: &str, at: usize) -> Option<Found> {
    let rest = &text[at..];
    let head = rest.strip_prefix(PEM_BEGIN)?;
    // no farther: a line of nothing but beginnings would take its length squared
    let near = &head.as_bytes()[..head.len().min(LONGEST_TITLE + PEM_END.len())];
    let title = near.windows(PEM_END.len()).position(|here| here == PEM_END.as_bytes())?;
    let body = PEM_BEGIN.len() + title + PEM_END.len();
    let end = rest[body..].find(PEM_END).map_or(rest.len(), |found| body + found + PEM_END.len());
    Some(Found { kind: Kind::Key, at: at..at + end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(Kind, &str)> {
        find(text).into_iter().map(|found| (found.kind, &text[found.at])).collect()
    }

    #[test]
    fn what_is_found() {
        use Kind::{Card, Email, Key, Phone};
        let secret = "AbCdEfGhIj0123456789KlMnOpQrStUv";
        for (text, want) in [
            ("write to neko@example.co.jp.", vec![(Email, "neko@example.co.jp")]),
            ("a.b+c@x-y.org,d@e.io", vec![(Email, "a.b+c@x-y.org"), (Email, "d@e.io")]),
            ("ねこneko@example.comへ", vec![(Email, "neko@example.com")]),
            ("call +81 90-1234-5678 now", vec![(Phone, "+81 90-1234-5678")]),
            ("+41443640000", vec![(Phone, "+41443640000")]),
            ("090-1234-5678", vec![(Phone, "090-1234-5678")]),
            ("(555) 010-9999", vec![(Phone, "(555) 010-9999")]),
            ("555-010-9999", vec![(Phone, "555-010-9999")]),
            ("4111 1111 1111 1111!", vec![(Card, "4111 1111 1111 1111")]),
            ("5500005555555559", vec![(Card, "5500005555555559")]),
            ("key sk-AbCdEfGhIj0123456789Kl.", vec![(Key, "sk-AbCdEfGhIj0123456789Kl")]),
            ("AKIAIOSFODNN7EXAMPLE", vec![(Key, "AKIAIOSFODNN7EXAMPLE")]),
            (
                "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLWhlcmU",
                vec![(Key, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLWhlcmU")],
            ),
            (
                "x -----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- y",
                vec![(Key, "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----")],
            ),
        ] {
            assert_eq!(found(text), want, "{text}");
        }
        let token = format!("ghp_{secret}");
        assert_eq!(found(&token), [(Kind::Key, &*token)]);
    }

    #[test]
    fn what_is_not() {
        for text in [
            "",
            "@",
            "a@b",
            "user@localhost",
            "@everyone",
            "a@b..com",
            "2023-09-01",
            "2023-09-01 10:50",
            "192.168.100.200",
            "3.14159265358979",
            "1,000,000",
            "4111 1111 1111 1112",
            "4111111111111111111111111",
            "1234567890123",
            "0000000000000000",
            "1234567890",
            "0123456789",
            "10 000 000 000",
            "sk-a-word-with-many-hyphens-and-more",
            "task-0123456789012345678901234",
            "sk-short1",
            "+1",
            "+",
            "(",
            "((((",
            "-----BEGIN CERTIFICATE-----",
            "ft:gpt-4o-mini-2024-07-18:acme::0a1b2c3d",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    /// Each of them took the square of its length once: hours, for such a line.
    #[test]
    fn a_long_line_of_beginnings_is_walked_through_once() {
        const LINE_BYTES: usize = 4 << 20;
        for begin in [
            PEM_BEGIN,
            "-----BEGIN é",
            "sk-",
            "glpat-",
            "xoxb-",
            "pypi-",
            "eyJ-",
            "eyJ.",
            "+1 ",
            "(1",
            "a@",
            "1-",
            "@a.",
        ] {
            assert_eq!(found(&begin.repeat(LINE_BYTES / begin.len())), [], "{begin}");
        }
        let behind = format!("{}.{}", "eyJ-".repeat(LINE_BYTES / 8), "a".repeat(LINE_BYTES / 2));
        assert_eq!(found(&behind), []);
        // what a long word hides is found
        assert_eq!(found("pypi-a-sk-AbCdEfGhIj0123456789Kl"), [(Kind::Key, "sk-AbCdEfGhIj0123456789Kl")]);
        assert_eq!(found("hf_a-sk-AbCdEfGhIj0123456789"), [(Kind::Key, "sk-AbCdEfGhIj0123456789")]);
        assert_eq!(found("sk-555-010-9999"), [(Kind::Phone, "555-010-9999")]);
    }
}
