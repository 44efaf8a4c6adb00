//! The grammar of fine-tuned models' names: the only place that takes such a name apart.
//!
//! OpenAI: `ft:BASE:ORGANIZATION:SUFFIX:ID`, where the suffix may be empty and a checkpoint adds `:ckpt-step-N`; before
//! August 2023 `BASE:ft-ORGANIZATION-…`. Azure: `BASE.ft-HEX`, with `-SUFFIX` behind it where one was asked for.

/// Which grammar a name follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `ft:BASE:…`
    OpenAi,
    /// `BASE:ft-…`, of OpenAI's first fine-tuning API.
    Legacy,
    /// `BASE.ft-…`
    Azure,
}

/// A fine-tuned model's name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FineTunedName<'a> {
    /// Which grammar.
    pub form: Form,
    /// The model it was trained from.
    pub base: &'a str,
    /// The organization; none in Azure's form, nor where the name is only `ft:BASE`.
    pub organization: Option<&'a str>,
    /// What the trainer called it; none where nothing stands there.
    pub suffix: Option<&'a str>,
    /// The provider's own id; none where the name ends before it.
    pub id: Option<&'a str>,
    /// The training step of a checkpoint.
    pub checkpoint_step: Option<u64>,
}

impl<'a> FineTunedName<'a> {
    /// Takes a name apart; none when it is no fine-tuned model's. A provider in front, as in `openai/ft:…`, is skipped.
    pub fn parse(name: &'a str) -> Option<Self> {
        let name = match name.split_once("/ft:") {
            Some((provider, _)) if !provider.contains(':') => &name[provider.len() + 1..],
            _ => name,
        };
        if let Some(tuned) = name.strip_prefix("ft:") {
            return Some(openai(tuned));
        }
        // in the two other forms no slash is part of the name
        let name = name.rsplit_once('/').map_or(name, |(_, own)| own);
        if let Some((base, id)) = name.split_once(".ft-") {
            return (!base.is_empty()).then(|| azure(base, id));
        }
        let (base, rest) = name.split_once(":ft-")?;
        let organization = rest.split_once(':').map_or(rest, |(organization, _)| organization);
        let named = Self { organization: some(organization), ..plain(Form::Legacy, base) };
        (!base.is_empty() && !base.contains(':')).then_some(named)
    }
}

/// The parts behind `ft:`. An organization or a suffix holds no colon, so they are counted from the left.
fn openai(tuned: &str) -> FineTunedName<'_> {
    let mut parts = tuned.split(':');
    let base = parts.next().unwrap_or_default();
    let (organization, suffix, id) = (parts.next(), parts.next(), parts.next());
    let step = parts.next().and_then(|part| part.strip_prefix("ckpt-step-"));
    FineTunedName {
        organization: organization.and_then(some),
        suffix: suffix.and_then(some),
        id: id.and_then(some),
        checkpoint_step: step.and_then(|step| step.parse().ok()),
        ..plain(Form::OpenAi, base)
    }
}

/// `HEX` or `HEX-SUFFIX`, behind `BASE.ft-`.
fn azure<'a>(base: &'a str, rest: &'a str) -> FineTunedName<'a> {
    let (id, suffix) = rest.split_once('-').unwrap_or((rest, ""));
    FineTunedName { id: some(id), suffix: some(suffix), ..plain(Form::Azure, base) }
}

const fn plain(form: Form, base: &str) -> FineTunedName<'_> {
    FineTunedName { form, base, organization: None, suffix: None, id: None, checkpoint_step: None }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_taken_apart() {
        let openai = |base, organization, suffix, id, checkpoint_step| FineTunedName {
            form: Form::OpenAi,
            base,
            organization,
            suffix,
            id,
            checkpoint_step,
        };
        let azure = |base, id, suffix| FineTunedName { id: Some(id), suffix, ..plain(Form::Azure, base) };
        for (name, want) in [
            (
                "ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY",
                openai("gpt-4.1-mini-2025-04-14", Some("acme"), Some("support"), Some("B2xY"), None),
            ),
            (
                "ft:gpt-3.5-turbo-0613:acme::x",
                openai("gpt-3.5-turbo-0613", Some("acme"), None, Some("x"), None),
            ),
            (
                "ft:gpt-4o-2024-08-06:acme:bot:B2:ckpt-step-200",
                openai("gpt-4o-2024-08-06", Some("acme"), Some("bot"), Some("B2"), Some(200)),
            ),
            (
                "ft:gpt-4o-2024-08-06:acme::B2:ckpt-step-7",
                openai("gpt-4o-2024-08-06", Some("acme"), None, Some("B2"), Some(7)),
            ),
            ("openai/ft:gpt-4o:acme:a/b:x", openai("gpt-4o", Some("acme"), Some("a/b"), Some("x"), None)),
            ("ft:gpt-4o:acme:a/ft:x", openai("gpt-4o", Some("acme"), Some("a/ft"), Some("x"), None)),
            ("ft:o4-mini-2025-04-16", openai("o4-mini-2025-04-16", None, None, None, None)),
            ("gpt-35-turbo-0613.ft-0a1b2c", azure("gpt-35-turbo-0613", "0a1b2c", None)),
            (
                "gpt-4.1-2025-04-14.ft-0a1b-support-v2",
                azure("gpt-4.1-2025-04-14", "0a1b", Some("support-v2")),
            ),
            ("azure/gpt-4.1.ft-0a1b", azure("gpt-4.1", "0a1b", None)),
            (
                "curie:ft-acme-2022-01-02-03-04-05",
                FineTunedName {
                    organization: Some("acme-2022-01-02-03-04-05"),
                    ..plain(Form::Legacy, "curie")
                },
            ),
            (
                "davinci:ft-acme:bot-2022-01-02",
                FineTunedName { organization: Some("acme"), ..plain(Form::Legacy, "davinci") },
            ),
        ] {
            assert_eq!(FineTunedName::parse(name), Some(want), "{name}");
        }
    }

    #[test]
    fn other_names_are_none() {
        for name in
            ["", "gpt-4o", "gpt-4.1-2025-04-14", "ft", "soft:x", ".ft-x", ":ft-x", "a:b:ft-x", "shift-ft"]
        {
            assert_eq!(FineTunedName::parse(name), None, "{name}");
        }
    }
}
