//! `if`: conditions on the facts of a request, by a small set of typed matchers.

use std::sync::Arc;

use serde_json::Value;

use super::table::{Table, texts};
use crate::config::problem::{Checker, Place};
use crate::config::values::known;
use crate::domain::endpoint::Endpoint;
use crate::domain::label::{TAG_RULE, alias_is_good, tag_is_good};
use crate::domain::route::{Condition, HeaderIs, TokenRange};

/// What may stand in `if`.
pub(super) const KEYS: [&str; 10] =
    ["team", "key", "tag", "header", "endpoint", "input_tokens", "tools", "images", "json_schema", "stream"];
/// What may stand in `input_tokens`.
pub(super) const TOKEN_KEYS: [&str; 2] = ["at_least", "at_most"];
/// More tokens than any request has.
const MAX_TOKENS: u64 = 1_000_000_000;
/// Headers that hold credentials: no route looks at them, so that no file has to name one.
const SECRET_HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "api-key", "cookie"];

/// Reads a condition; none where it is no table, or says nothing.
pub(super) fn read(place: &Place, value: &Value, checker: &mut Checker<'_>) -> Option<Condition> {
    let table = Table::of(place, value, checker)?;
    table.only(&KEYS, checker);
    if table.members().next().is_none() {
        checker.wrong(place, "a condition names at least one fact; for all other requests write `otherwise`");
        return None;
    }
    Some(Condition {
        teams: names(&table, "team", checker),
        keys: names(&table, "key", checker),
        tags: tags(&table, checker),
        headers: headers(&table, checker),
        endpoints: endpoints(&table, checker),
        input_tokens: input_tokens(&table, checker),
        tools: table.flag("tools", checker),
        images: table.flag("images", checker),
        json_schema: table.flag("json_schema", checker),
        stream: table.flag("stream", checker),
    })
}

fn names(table: &Table<'_>, key: &str, checker: &mut Checker<'_>) -> Vec<Arc<str>> {
    let texts = table.texts(key, checker);
    for (place, _) in texts.iter().filter(|(_, name)| !alias_is_good(name, &format!("{key}_"))) {
        checker.wrong(
            place,
            format!("a {key} is named by its alias: 1 to 64 of A-Z a-z 0-9 . _ -, no id ({key}_…)"),
        );
    }
    texts.into_iter().map(|(_, name)| name.into()).collect()
}

fn tags(table: &Table<'_>, checker: &mut Checker<'_>) -> Vec<Arc<str>> {
    let texts = table.texts("tag", checker);
    for (place, _) in texts.iter().filter(|(_, tag)| !tag_is_good(tag)) {
        checker.wrong(place, TAG_RULE);
    }
    texts.into_iter().map(|(_, tag)| tag.into()).collect()
}

fn headers(table: &Table<'_>, checker: &mut Checker<'_>) -> Vec<HeaderIs> {
    let Some((place, value)) = table.get("header") else { return Vec::new() };
    let Some(named) = Table::of(&place, value, checker) else { return Vec::new() };
    if named.members().next().is_none() {
        checker.wrong(&place, "an empty table matches nothing: leave the key out");
    }
    let mut found: Vec<HeaderIs> = Vec::new();
    for (name, value) in named.members() {
        let place = place.key(name);
        let values = match value {
            Value::Bool(true) => Vec::new(),
            Value::Bool(false) => {
                checker.wrong(&place, "only true stands here, for any value; or a text, or a list of texts");
                continue;
            }
            other => texts(&place, other, checker).into_iter().map(|(_, text)| text.into()).collect(),
        };
        let Some(name) = header_name(&place, name, checker) else { continue };
        if found.iter().any(|header| header.name == name) {
            checker.wrong(&place, "the same header stands here twice: case makes no difference");
        }
        found.push(HeaderIs { name, values });
    }
    found
}

/// The name of a header that a route may look at, in lower case.
pub(super) fn header_name(place: &Place, name: &str, checker: &mut Checker<'_>) -> Option<Arc<str>> {
    let Ok(parsed) = name.parse::<http::HeaderName>() else {
        checker.wrong(place, format!("{name:?} is no name of a header"));
        return None;
    };
    if SECRET_HEADERS.contains(&parsed.as_str()) {
        checker.wrong(place, format!("{} holds a credential: routes do not look at it", parsed.as_str()));
        return None;
    }
    Some(parsed.as_str().into())
}

fn endpoints(table: &Table<'_>, checker: &mut Checker<'_>) -> Vec<Endpoint> {
    let mut found = Vec::new();
    for (place, name) in table.texts("endpoint", checker) {
        match Endpoint::ALL.into_iter().find(|endpoint| endpoint.name() == name) {
            Some(endpoint) => found.push(endpoint),
            None => {
                let all = known(Endpoint::ALL.iter().map(|endpoint| endpoint.name()));
                checker.wrong(&place, format!("{name:?} is no endpoint: {all}"));
            }
        }
    }
    found
}

fn input_tokens(table: &Table<'_>, checker: &mut Checker<'_>) -> Option<TokenRange> {
    let (place, value) = table.get("input_tokens")?;
    let range = Table::of(&place, value, checker)?;
    range.only(&TOKEN_KEYS, checker);
    let [least, most] = TOKEN_KEYS.map(|key| range.count(key, 0..=MAX_TOKENS, checker));
    if TOKEN_KEYS.iter().all(|key| range.get(key).is_none()) {
        checker.wrong(&place, "says nothing: write { at_least = 1000 }, { at_most = 8000 } or both");
    }
    Some(TokenRange { at_least: least.unwrap_or(0), at_most: most })
}
