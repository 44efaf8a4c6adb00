//! In which language a text is, roughly: by its script, and among languages of Latin script by their small words.

use std::collections::BTreeMap;

/// Only so many characters of a text are looked at.
const MOST_CHARACTERS: usize = 2_000;
/// Fewer letters say nothing.
const FEWEST_LETTERS: usize = 3;
/// A text in Latin script needs so many small words of one language.
const FEWEST_WORDS: usize = 2;

/// Small words that the language's neighbours don't have.
const SMALL_WORDS: [(&str, &[&str]); 7] = [
    (
        "en",
        &["the", "and", "is", "of", "to", "you", "it", "that", "what", "with", "are", "this", "your", "for"],
    ),
    ("de", &["der", "die", "und", "ist", "nicht", "ich", "das", "ein", "sie", "mit", "auf", "wie", "wir"]),
    ("fr", &["le", "les", "des", "est", "et", "je", "vous", "une", "pas", "pour", "dans", "nous", "que"]),
    ("es", &["el", "los", "las", "y", "es", "por", "con", "para", "una", "que", "como", "pero", "muy"]),
    ("it", &["il", "gli", "di", "che", "è", "non", "per", "sono", "della", "con", "una", "ciao", "come"]),
    ("pt", &["o", "os", "não", "e", "é", "para", "com", "uma", "você", "que", "por", "mais", "como"]),
    ("nl", &["het", "een", "en", "van", "niet", "ik", "dat", "je", "zijn", "met", "voor", "wat"]),
];

/// Which script a letter is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Script {
    Latin,
    Kana,
    Han,
    Other(&'static str),
}

fn script(c: char) -> Option<Script> {
    Some(match c {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Script::Latin,
        '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{ff66}'..='\u{ff9d}' => Script::Kana,
        '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' => Script::Han,
        '\u{ac00}'..='\u{d7af}' | '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' => Script::Other("ko"),
        '\u{370}'..='\u{3ff}' => Script::Other("el"),
        '\u{400}'..='\u{52f}' => Script::Other("cyrillic"),
        '\u{590}'..='\u{5ff}' => Script::Other("he"),
        '\u{600}'..='\u{77f}' => Script::Other("arabic"),
        '\u{900}'..='\u{97f}' => Script::Other("devanagari"),
        '\u{e00}'..='\u{e7f}' => Script::Other("th"),
        _ => return None,
    })
}

/// The language's code, the script's name, `latin` where no small words tell, or `und`.
pub(crate) fn of(text: &str) -> &'static str {
    let mut letters: BTreeMap<Script, usize> = BTreeMap::new();
    let end = text.char_indices().nth(MOST_CHARACTERS).map_or(text.len(), |(at, _)| at);
    let text = &text[..end];
    for found in text.chars().filter_map(script) {
        *letters.entry(found).or_default() += 1;
    }
    // Japanese is written in kana and Han together: a tenth of kana is enough
    let of = |script: Script| letters.get(&script).copied().unwrap_or_default();
    let (kana, han) = (of(Script::Kana), of(Script::Han));
    let east = kana + han;
    let Some((most, count)) = letters.iter().max_by_key(|(_, count)| **count) else { return "und" };
    if east.max(*count) < FEWEST_LETTERS {
        return "und";
    }
    // a Han character says as much as some Latin letters
    if east > 0 && east * 2 >= *count {
        return if kana * 10 >= east { "ja" } else { "zh" };
    }
    match most {
        Script::Latin => latin(text),
        Script::Kana => "ja",
        Script::Han => "zh",
        Script::Other(name) => name,
    }
}

fn latin(text: &str) -> &'static str {
    let mut found = [0_usize; SMALL_WORDS.len()];
    for word in text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty() && word.len() <= 8) {
        let word = word.to_lowercase();
        for (at, (_, words)) in SMALL_WORDS.iter().enumerate() {
            found[at] += usize::from(words.contains(&word.as_str()));
        }
    }
    let most = found.iter().copied().max().unwrap_or_default();
    let mut best = SMALL_WORDS.iter().zip(found).filter(|(_, count)| *count == most);
    match (best.next(), best.next()) {
        (Some(((language, _), _)), None) if most >= FEWEST_WORDS => language,
        _ => "latin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_by_script_and_small_words() {
        for (text, language) in [
            ("", "und"),
            ("42 + 1 = 43!", "und"),
            ("ok", "und"),
            ("The cat is on the roof and it is happy.", "en"),
            ("Die Katze ist auf dem Dach und sie ist froh.", "de"),
            ("Le chat est sur le toit et il n'est pas triste.", "fr"),
            ("El gato está en el tejado y es muy feliz.", "es"),
            ("Il gatto è sul tetto e non è triste.", "it"),
            ("O gato não está triste e é muito feliz com você.", "pt"),
            ("De kat is niet op het dak, dat is een hond.", "nl"),
            ("Tunegate Pingora Candle", "latin"),
            ("こんにちは、元気だにゃ！", "ja"),
            ("東京駅", "zh"),
            ("東京駅へ行く", "ja"),
            ("猫在屋顶上，它很高兴。", "zh"),
            ("고양이가 지붕 위에 있어요", "ko"),
            ("Кошка на крыше", "cyrillic"),
            ("القط على السطح", "arabic"),
            ("แมวอยู่บนหลังคา", "th"),
            ("Rust の async は楽しいにゃ", "ja"),
        ] {
            assert_eq!(of(text), language, "{text}");
        }
    }
}
