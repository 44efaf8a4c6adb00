//! Conditions on the facts of a request: a small set of typed matchers. All that one names must hold.

use std::sync::Arc;

use crate::domain::endpoint::Endpoint;

/// What a request is, as far as routes look at it.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Where it was sent.
    pub endpoint: Endpoint,
    /// The alias of the key.
    pub key: &'a str,
    /// The alias of the key's team.
    pub team: Option<&'a str>,
    /// The client's own user.
    pub end_user: Option<&'a str>,
    /// The tags it is booked with.
    pub tags: &'a [Arc<str>],
    /// The headers that the route looks at: name in lower case, value.
    pub headers: &'a [(Arc<str>, String)],
    /// Whether it brings tools.
    pub tools: bool,
    /// Whether it brings images.
    pub images: bool,
    /// Whether it wants an answer by a schema.
    pub json_schema: bool,
    /// Whether it wants a stream.
    pub stream: bool,
    /// The tokens of its input; 0 where the plan does not ask.
    pub input_tokens: u64,
}

impl Facts<'_> {
    /// The value of a header that the route looks at.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.as_str())
    }
}

/// Conditions that must hold together; an empty one always does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// One of these teams, by alias.
    pub teams: Vec<Arc<str>>,
    /// One of these keys, by alias.
    pub keys: Vec<Arc<str>>,
    /// One of these tags.
    pub tags: Vec<Arc<str>>,
    /// Each of these headers.
    pub headers: Vec<HeaderIs>,
    /// One of these endpoints.
    pub endpoints: Vec<Endpoint>,
    /// So much input.
    pub input_tokens: Option<TokenRange>,
    /// With tools, or without.
    pub tools: Option<bool>,
    /// With images, or without.
    pub images: Option<bool>,
    /// With a JSON schema for the answer, or without.
    pub json_schema: Option<bool>,
    /// As a stream, or whole.
    pub stream: Option<bool>,
}

/// A header with one of some values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderIs {
    /// Its name, in lower case.
    pub name: Arc<str>,
    /// One of these; with none, any.
    pub values: Vec<Arc<str>>,
}

/// A range of tokens, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRange {
    /// At least so many.
    pub at_least: u64,
    /// At most so many.
    pub at_most: Option<u64>,
}

impl TokenRange {
    const fn holds(self, tokens: u64) -> bool {
        let low_enough = match self.at_most {
            Some(most) => tokens <= most,
            None => true,
        };
        tokens >= self.at_least && low_enough
    }

    fn meets(self, other: Self) -> bool {
        let ends = |range: Self| range.at_most.unwrap_or(u64::MAX);
        self.at_least.max(other.at_least) <= ends(self).min(ends(other))
    }
}

/// Why a condition can never be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Never {
    /// The conditions around it leave nothing.
    #[error("`{0}` contradicts a condition around it: no request meets both")]
    Contradicts(&'static str),
    /// The range is empty.
    #[error("`input_tokens` is an empty range: at_least is above at_most")]
    EmptyRange,
    /// A case before it always wins.
    #[error("a case before it holds for every request that this one holds for")]
    Shadowed,
    /// The endpoint never has it.
    #[error("no endpoint that it names can have `{0}`")]
    NotThere(&'static str),
}

impl Condition {
    /// Whether a request meets it.
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        let named = |names: &[Arc<str>], name: Option<&str>| {
            names.is_empty() || name.is_some_and(|name| names.iter().any(|known| **known == *name))
        };
        let is = |wanted: Option<bool>, fact| wanted.is_none_or(|wanted| wanted == fact);
        named(&self.teams, facts.team)
            && named(&self.keys, Some(facts.key))
            && (self.tags.is_empty() || self.tags.iter().any(|tag| facts.tags.contains(tag)))
            && self.headers.iter().all(|header| header.holds(facts))
            && (self.endpoints.is_empty() || self.endpoints.contains(&facts.endpoint))
            && self.input_tokens.is_none_or(|range| range.holds(facts.input_tokens))
            && is(self.tools, facts.tools)
            && is(self.images, facts.images)
            && is(self.json_schema, facts.json_schema)
            && is(self.stream, facts.stream)
    }

    /// Why no request can meet it, given the conditions around it and the cases before it.
    pub fn never(&self, around: &[&Self], before: &[&Self]) -> Option<Never> {
        if let Some(range) = self.input_tokens
            && range.at_most.is_some_and(|most| range.at_least > most)
        {
            return Some(Never::EmptyRange);
        }
        if !self.endpoints.is_empty() {
            let none = |can: fn(Endpoint) -> bool| !self.endpoints.iter().any(|endpoint| can(*endpoint));
            let talks =
                |endpoint: Endpoint| matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Responses);
            for (wanted, name, can) in [
                (self.stream, "stream", Endpoint::streams as fn(Endpoint) -> bool),
                (self.tools, "tools", talks),
                (self.images, "images", talks),
                (self.json_schema, "json_schema", talks),
            ] {
                if wanted == Some(true) && none(can) {
                    return Some(Never::NotThere(name));
                }
            }
        }
        let contradiction = around.iter().find_map(|other| self.contradicts(other));
        if let Some(what) = contradiction {
            return Some(Never::Contradicts(what));
        }
        before.iter().any(|case| case.covers(self)).then_some(Never::Shadowed)
    }

    /// What of it and another can't both hold.
    fn contradicts(&self, other: &Self) -> Option<&'static str> {
        let apart = |a: &[Arc<str>], b: &[Arc<str>]| {
            !a.is_empty() && !b.is_empty() && !a.iter().any(|name| b.contains(name))
        };
        let differ = |a: Option<bool>, b: Option<bool>| a.zip(b).is_some_and(|(a, b)| a != b);
        let endpoints = !self.endpoints.is_empty()
            && !other.endpoints.is_empty()
            && !self.endpoints.iter().any(|endpoint| other.endpoints.contains(endpoint));
        let headers = self.headers.iter().any(|header| {
            other
                .headers
                .iter()
                .any(|known| known.name == header.name && apart(&known.values, &header.values))
        });
        let tokens = self.input_tokens.zip(other.input_tokens).is_some_and(|(a, b)| !a.meets(b));
        [
            (apart(&self.teams, &other.teams), "team"),
            (apart(&self.keys, &other.keys), "key"),
            (headers, "header"),
            (endpoints, "endpoint"),
            (tokens, "input_tokens"),
            (differ(self.tools, other.tools), "tools"),
            (differ(self.images, other.images), "images"),
            (differ(self.json_schema, other.json_schema), "json_schema"),
            (differ(self.stream, other.stream), "stream"),
        ]
        .into_iter()
        .find_map(|(wrong, what)| wrong.then_some(what))
    }

    /// Whether every request that meets another meets this one too.
    fn covers(&self, other: &Self) -> bool {
        let all = |mine: &[Arc<str>], others: &[Arc<str>]| {
            mine.is_empty() || (!others.is_empty() && others.iter().all(|name| mine.contains(name)))
        };
        let same = |mine: Option<bool>, other: Option<bool>| mine.is_none() || mine == other;
        let endpoints = self.endpoints.is_empty()
            || (!other.endpoints.is_empty() && other.endpoints.iter().all(|e| self.endpoints.contains(e)));
        let headers = self.headers.iter().all(|header| {
            let of_that_name = other.headers.iter().filter(|known| known.name == header.name);
            of_that_name.into_iter().any(|known| all(&header.values, &known.values))
        });
        let tokens = match (self.input_tokens, other.input_tokens) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(its)) => {
                mine.at_least <= its.at_least
                    && mine.at_most.unwrap_or(u64::MAX) >= its.at_most.unwrap_or(u64::MAX)
            }
        };
        all(&self.teams, &other.teams)
            && all(&self.keys, &other.keys)
            && all(&self.tags, &other.tags)
            && headers
            && endpoints
            && tokens
            && same(self.tools, other.tools)
            && same(self.images, other.images)
            && same(self.json_schema, other.json_schema)
            && same(self.stream, other.stream)
    }
}

impl HeaderIs {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        let Some(value) = facts.header(&self.name) else { return false };
        self.values.is_empty() || self.values.iter().any(|wanted| **wanted == *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            endpoint: Endpoint::ChatCompletions,
            key: "web",
            team: Some("sales"),
            end_user: None,
            tags: &[],
            headers: &[],
            tools: false,
            images: false,
            json_schema: false,
            stream: true,
            input_tokens: 500,
        }
    }

    fn names(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn tokens(at_least: u64, at_most: Option<u64>) -> Option<TokenRange> {
        Some(TokenRange { at_least, at_most })
    }

    fn header(values: &[&str]) -> Vec<HeaderIs> {
        vec![HeaderIs { name: "x-beta".into(), values: names(values) }]
    }

    #[test]
    fn all_that_is_named_must_hold() {
        let any = Condition::default;
        let tags = names(&["batch", "eu"]);
        let headers = [(Arc::from("x-beta"), "on".to_owned())];
        let request = Facts { tags: &tags, headers: &headers, tools: true, ..facts() };
        for (condition, holds) in [
            (any(), true),
            (Condition { teams: names(&["sales", "it"]), ..any() }, true),
            (Condition { teams: names(&["it"]), ..any() }, false),
            (Condition { keys: names(&["web"]), stream: Some(true), ..any() }, true),
            (Condition { keys: names(&["web"]), stream: Some(false), ..any() }, false),
            (Condition { tags: names(&["eu"]), ..any() }, true),
            (Condition { tags: names(&["us"]), ..any() }, false),
            (Condition { headers: header(&[]), ..any() }, true),
            (Condition { headers: header(&["off", "on"]), ..any() }, true),
            (Condition { headers: header(&["off"]), ..any() }, false),
            (Condition { endpoints: vec![Endpoint::Responses], ..any() }, false),
            (Condition { input_tokens: tokens(500, Some(500)), ..any() }, true),
            (Condition { input_tokens: tokens(501, None), ..any() }, false),
            (Condition { input_tokens: tokens(0, Some(499)), ..any() }, false),
            (Condition { tools: Some(true), images: Some(false), ..any() }, true),
            (Condition { json_schema: Some(true), ..any() }, false),
        ] {
            assert_eq!(condition.holds(&request), holds, "{condition:?}");
        }
        let no_team = Facts { team: None, ..facts() };
        assert!(!Condition { teams: names(&["sales"]), ..any() }.holds(&no_team));
    }

    #[test]
    fn what_can_never_be_met_is_found() {
        let any = Condition::default;
        let stream = Condition { stream: Some(true), ..any() };
        let short = Condition { input_tokens: tokens(0, Some(1_000)), ..any() };
        let sales = Condition { teams: names(&["sales", "it"]), ..any() };
        let (empty, off, some) = (
            any(),
            Condition { headers: header(&["off"]), ..any() },
            Condition { headers: header(&[]), ..any() },
        );
        type Case<'a> = (Condition, Vec<&'a Condition>, Vec<&'a Condition>, Option<Never>);
        let table: [Case<'_>; 13] = [
            (any(), vec![&stream, &short], vec![&stream], None),
            (
                Condition { input_tokens: tokens(5, Some(4)), ..any() },
                vec![],
                vec![],
                Some(Never::EmptyRange),
            ),
            (
                Condition { stream: Some(false), ..any() },
                vec![&stream],
                vec![],
                Some(Never::Contradicts("stream")),
            ),
            (
                Condition { input_tokens: tokens(2_000, None), ..any() },
                vec![&short],
                vec![],
                Some(Never::Contradicts("input_tokens")),
            ),
            (
                Condition { teams: names(&["hr"]), ..any() },
                vec![&sales],
                vec![],
                Some(Never::Contradicts("team")),
            ),
            (Condition { teams: names(&["it"]), ..any() }, vec![&sales], vec![], None),
            (Condition { teams: names(&["it"]), ..any() }, vec![], vec![&sales], Some(Never::Shadowed)),
            (Condition { teams: names(&["it", "hr"]), ..any() }, vec![], vec![&sales], None),
            (stream.clone(), vec![], vec![&empty], Some(Never::Shadowed)),
            (
                Condition { input_tokens: tokens(10, Some(20)), ..any() },
                vec![],
                vec![&short],
                Some(Never::Shadowed),
            ),
            (
                Condition { endpoints: vec![Endpoint::Embeddings], stream: Some(true), ..any() },
                vec![],
                vec![],
                Some(Never::NotThere("stream")),
            ),
            (
                Condition { headers: header(&["on"]), ..any() },
                vec![&off],
                vec![],
                Some(Never::Contradicts("header")),
            ),
            (Condition { headers: header(&["on"]), ..any() }, vec![], vec![&some], Some(Never::Shadowed)),
        ];
        for (condition, around, before, never) in table {
            assert_eq!(condition.never(&around, &before), never, "{condition:?}");
        }
    }
}
