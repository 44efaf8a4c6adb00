//! Labels that operators give: aliases of keys and teams, and tags. They stand in metrics, logs, reports and paths.

use std::sync::Arc;

/// Longest label, bytes.
const MAX_BYTES: usize = 64;
/// Most tags on one key or team.
pub const MAX_TAGS: usize = 16;
/// The rule of tags, in words.
pub const TAG_RULE: &str = "a tag has 1 to 64 of A-Z a-z 0-9 . _ - : / =";

/// In metrics, the label of what has none of its own.
pub const OTHER: &str = "other";
/// In metrics, the label of what is not there: a key without a team, a request without a model.
pub const NONE: &str = "none";
/// Why no team and no budget can have one of these names, in words.
pub const TAKEN_RULE: &str = "\"other\" and \"none\" are labels of metrics: choose another name";

/// Whether metrics say something else by a name. What has such a name already keeps it.
pub fn is_taken_by_metrics(name: &str) -> bool {
    [OTHER, NONE].contains(&name)
}

/// Whether a text can be an alias. What an id starts with, no alias may: both name the same thing.
pub fn alias_is_good(alias: &str, id_prefix: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_BYTES).contains(&alias.len()) && alias.bytes().all(fits) && !alias.starts_with(id_prefix)
}

/// Whether a text can be a tag.
pub fn tag_is_good(tag: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/' | b'=');
    (1..=MAX_BYTES).contains(&tag.len()) && tag.bytes().all(fits)
}

/// Tags as they are kept: sorted, each once.
pub fn in_order(tags: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<Arc<str>> {
    let mut tags: Vec<Arc<str>> = tags.into_iter().map(|tag| tag.as_ref().into()).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_and_tags() {
        let long = "x".repeat(65);
        for (text, alias, tag) in [
            ("a", true, true),
            ("team.app_1-x", true, true),
            (&long[1..], true, true),
            (&long, false, false),
            ("", false, false),
            ("a b", false, false),
            ("é", false, false),
            ("key_1", false, true),
            ("env:prod", false, true),
            ("cost/centre=7", false, true),
            ("a,b", false, false),
        ] {
            assert_eq!((alias_is_good(text, "key_"), tag_is_good(text)), (alias, tag), "{text}");
        }
        for (name, taken) in [("other", true), ("none", true), ("others", false), ("None", false)] {
            assert_eq!(is_taken_by_metrics(name), taken, "{name}");
        }
        assert_eq!(in_order(["b", "a", "b"]), ["a".into(), "b".into()] as [Arc<str>; 2]);
    }
}
