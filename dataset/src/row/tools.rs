//! Definitions of tools, and calls of them.

use std::collections::HashSet;

use super::{Oddity, Seen, shown};
use crate::json::Json;

/// Longest name of a function, characters (OpenAI's API).
const MAX_NAME: usize = 64;

/// What a row defines.
#[derive(Debug, Default)]
pub(super) struct Tools<'v> {
    pub(super) definitions: Vec<&'v Json<'v>>,
    names: Vec<&'v str>,
}

/// Reads `tools` and `functions` of an object.
pub(super) fn defined<'v>(value: &'v Json<'v>, prefix: &str, seen: &mut Seen) -> Tools<'v> {
    let mut tools = Tools::default();
    for member in ["tools", "functions"] {
        let Some(list) = value.get(member).filter(|list| !list.is_null()) else { continue };
        let path = format!("{prefix}{member}");
        let Some(elements) = list.list() else {
            seen.fault(path, format!("a list of definitions is needed, not {}", list.kind()));
            continue;
        };
        if member == "functions" {
            seen.odd(Oddity::OldFunctions);
        }
        for (at, element) in elements.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let function = if member == "tools" { tool(element, &path, seen) } else { Some((element, path)) };
            let Some((function, path)) = function else { continue };
            tools.names.extend(definition(function, &path, seen));
            tools.definitions.push(function);
        }
    }
    if let Some(other) = value.get("parallel_tool_calls").filter(|own| !matches!(own, Json::Bool(_))) {
        seen.fault(format!("{prefix}parallel_tool_calls"), format!("true or false, not {}", shown(other)));
    }
    tools
}

fn tool<'v>(element: &'v Json<'v>, path: &str, seen: &mut Seen) -> Option<(&'v Json<'v>, String)> {
    match element.get("type").and_then(Json::text) {
        Some("function") => {}
        _ => {
            seen.fault(format!("{path}.type"), "a tool of a training example has the type \"function\"");
            return None;
        }
    }
    match element.get("function") {
        Some(function) => Some((function, format!("{path}.function"))),
        None => {
            seen.fault(format!("{path}.function"), "missing: what the function is called and takes");
            None
        }
    }
}

/// The name that a definition gives, where it is sound.
fn definition<'v>(function: &'v Json<'v>, path: &str, seen: &mut Seen) -> Option<&'v str> {
    if let Some(description) =
        function.get("description").filter(|own| own.text().is_none() && !own.is_null())
    {
        seen.fault(
            format!("{path}.description"),
            format!("a description is a string, not {}", description.kind()),
        );
    }
    if let Some(parameters) =
        function.get("parameters").filter(|own| own.object().is_none() && !own.is_null())
    {
        seen.fault(
            format!("{path}.parameters"),
            format!("parameters are a JSON schema, an object, not {}", parameters.kind()),
        );
    }
    name(function, path, seen)
}

fn name<'v>(function: &'v Json<'v>, path: &str, seen: &mut Seen) -> Option<&'v str> {
    let path = format!("{path}.name");
    let Some(name) = function.get("name").and_then(Json::text) else {
        seen.fault(path, "missing: a function has a name");
        return None;
    };
    let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_fit) {
        seen.fault(path, format!("a function's name has 1 to {MAX_NAME} of a-z, A-Z, 0-9, _ and -"));
        return None;
    }
    Some(name)
}

/// Reads `tool_calls`; their ids are added to those that may be answered.
pub(super) fn read_calls<'v>(
    calls: &'v Json<'v>,
    path: &str,
    tools: &Tools<'_>,
    ids: &mut HashSet<&'v str>,
    seen: &mut Seen,
) {
    let list = match calls.list() {
        None => return seen.fault(path, format!("a list of calls is needed, not {}", calls.kind())),
        Some([]) => return seen.fault(path, "the list of calls is empty: leave it out"),
        Some(list) => list,
    };
    for (at, call) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        match call.get("id").and_then(Json::text) {
            Some(id) => {
                ids.insert(id);
            }
            None => seen.fault(format!("{path}.id"), "missing: a call has an id, a string"),
        }
        if call.get("type").and_then(Json::text) != Some("function") {
            seen.fault(format!("{path}.type"), "a call of a training example has the type \"function\"");
            continue;
        }
        match call.get("function") {
            Some(function) => read_function_call(function, &format!("{path}.function"), tools, seen),
            None => seen.fault(format!("{path}.function"), "missing: which function is called with what"),
        }
    }
}

/// Reads a function's name and arguments.
pub(super) fn read_function_call(call: &Json<'_>, path: &str, tools: &Tools<'_>, seen: &mut Seen) {
    if call.object().is_none() {
        return seen
            .fault(path, format!("a call is an object with `name` and `arguments`, not {}", call.kind()));
    }
    if let Some(name) = name(call, path, seen)
        && !tools.names.contains(&name)
    {
        let message = match tools.definitions.is_empty() {
            true => format!("{name:?} is called, but the row defines no tools: add `tools`"),
            false => format!("{name:?} is called, but not among the tools that the row defines"),
        };
        seen.fault(format!("{path}.name"), message);
    }
    match call.get("arguments") {
        Some(Json::Text(arguments)) => {
            if serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_err() {
                seen.odd(Oddity::ArgumentsNoJson);
            }
        }
        Some(other) => seen.fault(
            format!("{path}.arguments"),
            format!("arguments are JSON written in a string, not {}", other.kind()),
        ),
        None => seen.fault(format!("{path}.arguments"), "missing: JSON written in a string, such as \"{}\""),
    }
}
