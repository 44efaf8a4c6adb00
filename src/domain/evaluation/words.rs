//! Texts as measures compare them.

use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// A text in one of all its ways to be written: NFKC (full-width letters and digits become usual ones), lower case, without
/// punctuation (Unicode's category P) but for what makes a number (a point, comma or colon between digits, a minus before
/// one), runs of white space as one blank, none at the ends.
pub fn normalised(text: &str) -> String {
    let folded: Vec<char> = text.nfkc().flat_map(char::to_lowercase).nfkc().collect();
    let is_digit = |at: Option<usize>| at.and_then(|at| folded.get(at)).is_some_and(char::is_ascii_digit);
    let mut kept = String::with_capacity(text.len());
    for (at, letter) in folded.iter().enumerate() {
        let (before, after) = (is_digit(at.checked_sub(1)), is_digit(Some(at + 1)));
        match letter {
            '.' | ',' | ':' if before && after => kept.push(*letter),
            '-' | '\u{2212}' | '\u{2010}' if after && begins_a_word(&folded, at) => kept.push('-'),
            // what stands between two words parts them
            '-' | '/' | '_' => kept.push(' '),
            letter if is_punctuation(*letter) => {}
            letter => kept.push(*letter),
        }
    }
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn begins_a_word(letters: &[char], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| letters.get(before)).is_none_or(|before| !before.is_alphanumeric())
}

fn is_punctuation(letter: char) -> bool {
    letter.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// The words of a normalised text; of scripts that are written without blanks, the characters.
pub fn tokens(normalised: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for word in normalised.split_whitespace() {
        let mut begin = 0;
        for (at, letter) in word.char_indices().filter(|(_, letter)| is_written_without_blanks(*letter)) {
            if begin < at {
                found.push(&word[begin..at]);
            }
            begin = at + letter.len_utf8();
            found.push(&word[at..begin]);
        }
        if begin < word.len() {
            found.push(&word[begin..]);
        }
    }
    found
}

/// The tokens of SQuAD's rule (its evaluate-v1.1.py): lower case, without punctuation and the articles a, an, the; split at
/// blanks, and at each character of scripts without them. Full-width forms are made usual ones before.
pub fn squad_tokens(text: &str) -> Vec<String> {
    let letters = text.nfkc().flat_map(char::to_lowercase);
    // Python's string.punctuation has symbols, too
    let kept: String =
        letters.filter(|letter| !letter.is_ascii_punctuation() && !is_punctuation(*letter)).collect();
    let is_article = |word: &&str| matches!(*word, "a" | "an" | "the");
    tokens(&kept).into_iter().filter(|word| !is_article(word)).map(ToOwned::to_owned).collect()
}

/// Whether a text has another one in it, both normalised, from word to word: `14` has no `4` in it.
pub fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (normalised(text), normalised(part));
    let (text, part) = (tokens(&text), tokens(&part));
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// Han, kana, Thai, Lao, Burmese and Khmer; Hangul has blanks.
const fn is_written_without_blanks(letter: char) -> bool {
    matches!(letter,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3005}'..='\u{3007}'
        | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_all_ways_to_write_it() {
        for (text, want) in [
            ("  Hello,\n World! ", "hello world"),
            ("Ｈｅｌｌｏ　１２３", "hello 123"),
            ("「東京」です。", "東京です"),
            ("ﾈｺ", "ネコ"),
            ("ÉCOLE", "école"),
            ("It's 3.14, or 1,000.", "its 3.14 or 1,000"),
            ("at 10:30.", "at 10:30"),
            ("-5 degrees", "-5 degrees"),
            ("\u{2212}5", "-5"),
            ("well-known", "well known"),
            ("2024-05", "2024 05"),
            ("£5 + 50%", "£5 + 50"),
            ("…", ""),
            ("", ""),
        ] {
            assert_eq!(normalised(text), want, "{text:?}");
        }
    }

    #[test]
    fn tokens_are_words_or_characters() {
        for (text, want) in [
            ("a bc", vec!["a", "bc"]),
            ("東京", vec!["東", "京"]),
            ("iphoneを2台", vec!["iphone", "を", "2", "台"]),
            ("한국 말", vec!["한국", "말"]),
            ("ラーメン", vec!["ラ", "ー", "メ", "ン"]),
        ] {
            assert_eq!(tokens(text), want, "{text}");
        }
    }

    #[test]
    fn squad_s_words() {
        for (text, want) in [
            ("The cat, a dog!", vec!["cat", "dog"]),
            ("An 'A-team'", vec!["ateam"]),
            ("$3.50", vec!["350"]),
            ("猫だにゃ。", vec!["猫", "だ", "に", "ゃ"]),
        ] {
            assert_eq!(squad_tokens(text), want, "{text}");
        }
    }

    #[test]
    fn a_part_stands_from_word_to_word() {
        for (text, part, want) in [
            ("The answer is 4.", "4", true),
            ("The answer is 14.", "4", false),
            ("Paris is the capital", "paris", true),
            ("Parisian", "paris", false),
            ("首都は東京です。", "東京", true),
            ("New  York City", "new york", true),
            ("York New", "new york", false),
            ("anything", "", false),
            ("anything", "!", false),
        ] {
            assert_eq!(contains(text, part), want, "{text} / {part}");
        }
    }
}
