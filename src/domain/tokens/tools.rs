//! What the description of tools costs, in tokens of input.
//!
//! Source: OpenAI's cookbook "How to count tokens", read on 2026-11-21. Its rule knows flat parameters with a type, a
//! description and an enum; a tool with anything else is counted as its JSON, which is longer than what the model is
//! shown.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Encoding, Scale, Tally};
use crate::domain::unboundable::Unboundable;

/// At the end of all tools, once.
const END: u64 = 12;
const PROPERTIES: u64 = 3;
const PROPERTY: u64 = 3;
const ENUM_ITEM: u64 = 3;
/// Taken off for each enum.
const ENUM: u64 = 3;
/// What a template of an unknown model may say around its tools: Llama 3.1 and Qwen 2.5 say about 150 tokens.
const UNKNOWN_PREAMBLE: u64 = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Function<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    description: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    parameters: Option<Parameters<'a>>,
    #[serde(default, rename = "strict")]
    _strict: IgnoredAny,
    /// Of a tool of the responses endpoint, where all stands side by side.
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters<'a> {
    #[serde(rename = "type", default)]
    _type: IgnoredAny,
    #[serde(borrow, default)]
    properties: BTreeMap<Cow<'a, str>, Property<'a>>,
    #[serde(rename = "required", default)]
    _required: IgnoredAny,
    #[serde(rename = "additionalProperties", default)]
    _additional: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Property<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    description: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "enum")]
    choices: Vec<Cow<'a, str>>,
}

/// A tool, as far as its kind.
#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<&'a RawValue>,
}

/// Adds the tools of a request.
pub(super) fn add_tools(tally: &mut Tally, tools: &RawValue) {
    each(tally, tools, |tally, text| match serde_json::from_str::<Tool<'_>>(text) {
        Ok(Tool { kind: Some(kind), function }) if kind == "function" => {
            add_function(tally, function.map_or(text, RawValue::get));
        }
        Ok(Tool { kind: Some(kind), .. }) if kind == "custom" => add_as_json(tally, text),
        _ => {
            tally.cannot(Unboundable::HostedTool);
            add_as_json(tally, text);
        }
    });
}

/// Adds the `functions` of a request, tools of an older kind.
pub(super) fn add_functions(tally: &mut Tally, functions: &RawValue) {
    each(tally, functions, add_function);
}

fn each(tally: &mut Tally, list: &RawValue, mut add: impl FnMut(&mut Tally, &str)) {
    if list.get() == "null" {
        return;
    }
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else {
        tally.cannot(Unboundable::UnknownPart);
        return tally.add_text(list.get());
    };
    for item in &items {
        add(tally, item.get());
    }
    if !items.is_empty() {
        tally.add(END);
        if tally.scale() == Scale::Bytes {
            tally.add(UNKNOWN_PREAMBLE);
        }
    }
}

/// 7 tokens a tool for o200k's models, 10 for the others.
const fn opening(scale: Scale) -> u64 {
    match scale {
        Scale::Table(Encoding::O200k | Encoding::O200kHarmony) => 7,
        Scale::Table(_) | Scale::Bytes => 10,
    }
}

fn add_as_json(tally: &mut Tally, text: &str) {
    tally.add(opening(tally.scale()));
    tally.add_text(text);
}

fn add_function(tally: &mut Tally, text: &str) {
    if tally.scale() == Scale::Bytes {
        return add_as_json(tally, text);
    }
    let Ok(function) = serde_json::from_str::<Function<'_>>(text) else { return add_as_json(tally, text) };
    tally.add(opening(tally.scale()));
    tally.add_text(&line([&function.name, sentence(function.description.as_ref())]));
    let properties = function.parameters.map(|parameters| parameters.properties).unwrap_or_default();
    if !properties.is_empty() {
        tally.add(PROPERTIES);
    }
    for (name, property) in &properties {
        tally.add(PROPERTY);
        if !property.choices.is_empty() {
            // the three that an enum saves are made up for by its first item
            tally.add(ENUM_ITEM * property.choices.len() as u64 - ENUM);
            property.choices.iter().for_each(|choice| tally.add_text(choice));
        }
        let description = sentence(property.description.as_ref());
        tally.add_text(&line([name, &property.kind, description]));
    }
}

fn line<const N: usize>(parts: [&str; N]) -> String {
    parts.join(":")
}

/// A description without the full stop at its end, as the model is shown it.
fn sentence<'a>(description: Option<&'a Cow<'_, str>>) -> &'a str {
    let text = description.map_or("", |text| text.as_ref());
    text.strip_suffix('.').unwrap_or(text)
}
