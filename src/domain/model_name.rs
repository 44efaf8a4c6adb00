//! What a model's name says about it: the base it was trained from, and whether it thinks unseen.

use super::fine_tuned_name::FineTunedName;

/// Families of models that make tokens which the client does not see (OpenAI's models page, November 2026).
const REASONING_FAMILIES: [&str; 5] = ["o1", "o3", "o4", "gpt-5", "gpt-6"];

/// Returns the base model in the name of a fine-tuned one; any other name without the provider in front of it, as in
/// `openai/NAME`.
pub fn base_of(name: &str) -> &str {
    match FineTunedName::parse(name) {
        Some(tuned) => tuned.base,
        None => name.rsplit_once('/').map_or(name, |(_, own)| own),
    }
}

/// A base model's name without the date of its version: `gpt-4.1-mini` of `gpt-4.1-mini-2025-04-14`.
pub fn undated(base: &str) -> &str {
    let Some((rest, date)) = base.len().checked_sub(11).and_then(|at| base.split_at_checked(at)) else {
        return base;
    };
    let is_date = date.bytes().enumerate().all(|(at, byte)| match at {
        0 | 5 | 8 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    if is_date && !rest.is_empty() { rest } else { base }
}

/// Whether a model makes tokens that the client does not see but pays for, as far as its name tells.
pub fn makes_unseen_tokens(name: &str) -> bool {
    let base = base_of(name);
    REASONING_FAMILIES.into_iter().any(|family| is_of_family(base, family))
}

/// Whether a base model's name begins with a family's, as whole words: `gpt-5.1` is of `gpt-5`, `adapter` not of `ada`.
pub fn is_of_family(base: &str, family: &str) -> bool {
    const ENDS: [char; 4] = ['-', '.', ':', '@'];
    let rest = base.strip_prefix(family);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(ENDS) || family.ends_with(ENDS))
}

/// Whether a model always searches the web, for a price a search and with tokens of what it found (OpenAI's models page,
/// November 2026).
pub fn always_searches(name: &str) -> bool {
    ["-search-preview", "-search-api", "-deep-research"].iter().any(|mark| base_of(name).contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_in_the_name() {
        for (name, base) in [
            ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini-2025-04-14"),
            ("ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY", "gpt-4.1-mini-2025-04-14"),
            ("ft:o4-mini-2025-04-16", "o4-mini-2025-04-16"),
            ("gpt-4.1-mini-2025-04-14.ft-0a1b-support", "gpt-4.1-mini-2025-04-14"),
            ("openai/ft:gpt-4o:acme::x", "gpt-4o"),
            ("ft:gpt-4o:acme:a/b:x", "gpt-4o"),
            ("curie:ft-acme-2022-01-02", "curie"),
            ("", ""),
        ] {
            assert_eq!(base_of(name), base, "{name}");
        }
    }

    #[test]
    fn a_version_is_not_part_of_the_name() {
        for (base, want) in [
            ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"),
            ("gpt-4.1-mini", "gpt-4.1-mini"),
            ("gpt-4-0613", "gpt-4-0613"),
            ("-2025-04-14", "-2025-04-14"),
            ("é-2025-04-14", "é"),
            ("ééééééé", "ééééééé"),
            ("", ""),
        ] {
            assert_eq!(undated(base), want, "{base}");
        }
    }

    #[test]
    fn models_that_search_by_themselves() {
        for (name, searches) in [
            ("gpt-4o-search-preview-2025-03-11", true),
            ("gpt-5-search-api", true),
            ("openai/o4-mini-deep-research", true),
            ("gpt-4o", false),
            ("ft:gpt-4o:acme:web-search-api:x", false),
        ] {
            assert_eq!(always_searches(name), searches, "{name}");
        }
    }

    #[test]
    fn families_that_think_unseen() {
        for (name, unseen) in [
            ("o1", true),
            ("o3-mini", true),
            ("ft:o4-mini-2025-04-16:acme:rft:id", true),
            ("o4-mini-2025-04-16.ft-0a1b", true),
            ("gpt-5", true),
            ("gpt-5.1-codex", true),
            ("gpt-6-nano", true),
            ("openai/gpt-5-mini", true),
            ("gpt-50", false),
            ("gpt-4.1", false),
            ("gpt-4o-mini", false),
            ("ft:gpt-4o-mini:o1:o3:o4", false),
            ("omni-moderation-latest", false),
            ("o1x", false),
            ("smollm2-135m", false),
            ("*", false),
        ] {
            assert_eq!(makes_unseen_tokens(name), unseen, "{name}");
        }
    }
}
