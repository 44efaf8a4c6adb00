//! Functions the model may call: flat in Responses, nested in chat.
//!
//! Chat has no equal of tools that a provider runs, nor of custom tools' items in an answer.

use serde::Serialize;
use serde_json::value::RawValue;

use super::object::{Object, Path, as_array};
use super::{Untranslatable, Why};

/// A tool of a chat.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "function")]
pub(super) struct Tool<'a> {
    function: Function<'a>,
}

#[derive(Debug, Serialize)]
struct Function<'a> {
    name: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<&'a RawValue>,
}

/// Which tools the model may or must call.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Choice<'a> {
    /// `none`, `auto` or `required`.
    Word(&'a RawValue),
    /// This function.
    Function(Named<'a>),
    /// Some of them.
    Allowed(AllowedTools<'a>),
}

/// A function by its name.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "function")]
pub(super) struct Named<'a> {
    function: NameOnly<'a>,
}

#[derive(Debug, Serialize)]
struct NameOnly<'a> {
    name: &'a RawValue,
}

/// Some of the functions.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "allowed_tools")]
pub(super) struct AllowedTools<'a> {
    allowed_tools: Allowed<'a>,
}

#[derive(Debug, Serialize)]
struct Allowed<'a> {
    mode: &'a RawValue,
    tools: Vec<Named<'a>>,
}

/// The tools of the chat; none where the request has none.
pub(super) fn tools<'a>(body: &mut Object<'a>) -> Result<Vec<Tool<'a>>, Untranslatable> {
    let Some(tools) = body.take("tools") else { return Ok(Vec::new()) };
    let path = Path::Body.member("tools");
    let tools = as_array(tools, &path)?.into_iter().enumerate();
    tools.map(|(at, value)| tool(value, &path.item(at))).collect()
}

fn tool<'a>(value: &'a RawValue, path: &Path<'_>) -> Result<Tool<'a>, Untranslatable> {
    let mut tool = Object::read(value, path)?;
    is_function(&mut tool, path)?;
    tool.only("defer_loading", &["false"], Why::NoEqual, path)?;
    tool.only("allowed_callers", &["[\"direct\"]"], Why::NoEqual, path)?;
    let function = Function {
        name: tool.need_text("name", path)?,
        description: tool.text("description", path)?,
        parameters: tool.take("parameters"),
        strict: tool.take("strict"),
    };
    tool.ends(path)?;
    Ok(Tool { function })
}

fn is_function(tool: &mut Object<'_>, path: &Path<'_>) -> Result<(), Untranslatable> {
    match tool.word("type", path)?.as_deref() {
        Some("function") => Ok(()),
        Some(_) => Err(path.member("type").refused(Why::NoEqual)),
        None => Err(path.member("type").refused(Why::Missing)),
    }
}

/// The choice among the tools. Without any tool, `none` and `auto` choose nothing, and chat refuses to hear them.
pub(super) fn choice<'a>(
    body: &mut Object<'a>,
    has_tools: bool,
) -> Result<Option<Choice<'a>>, Untranslatable> {
    let Some(value) = body.take("tool_choice") else { return Ok(None) };
    let path = Path::Body.member("tool_choice");
    if value.get().starts_with('"') {
        let idle = !has_tools && matches!(value.get(), "\"none\"" | "\"auto\"");
        return Ok((!idle).then_some(Choice::Word(value)));
    }
    let mut choice =
        Object::read(value, &path).map_err(|_| path.refused(Why::Expected("a string or an object")))?;
    let kind = choice.word("type", &path)?;
    let made = match kind.as_deref() {
        Some("function") => Choice::Function(named(&mut choice, &path)?),
        Some("allowed_tools") => {
            let mode = choice.need_text("mode", &path)?;
            let tools = choice.need("tools", &path)?;
            let path = path.member("tools");
            let tools = as_array(tools, &path)?.into_iter().enumerate();
            let tools = tools.map(|(at, value)| allowed(value, &path.item(at)));
            let tools = tools.collect::<Result<_, _>>()?;
            Choice::Allowed(AllowedTools { allowed_tools: Allowed { mode, tools } })
        }
        Some(_) => return Err(path.member("type").refused(Why::NoEqual)),
        None => return Err(path.member("type").refused(Why::Missing)),
    };
    choice.ends(&path)?;
    Ok(Some(made))
}

fn allowed<'a>(value: &'a RawValue, path: &Path<'_>) -> Result<Named<'a>, Untranslatable> {
    let mut tool = Object::read(value, path)?;
    is_function(&mut tool, path)?;
    let name = named(&mut tool, path)?;
    tool.ends(path)?;
    Ok(name)
}

fn named<'a>(of: &mut Object<'a>, path: &Path<'_>) -> Result<Named<'a>, Untranslatable> {
    Ok(Named { function: NameOnly { name: of.need_text("name", path)? } })
}
