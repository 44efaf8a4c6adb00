//! What somebody wrote: a version that is to be there, and where a label is to point. From a body of the admin API or
//! from a file; all that is wrong is said at once.

use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::control::form::{Form, Given, Problem};
use crate::domain::prompt::template::{Template, TemplateError};
use crate::domain::prompt::{
    MAX_TEXT_BYTES, MAX_VARIABLES, NAME_RULE, PromptVersion, Variable, VariableKind, name_is_good,
};

/// Longest name of an author, characters.
const MAX_AUTHOR_CHARS: usize = 100;
/// Longest note, characters.
const MAX_NOTE_CHARS: usize = 1_000;
/// Most prompts in one body.
const MAX_PROMPTS: usize = 1_000;
/// Who wrote what nobody signed.
const ADMIN: &str = "admin";
const NO_ZEROES: &str = "has a zero character, which no database keeps";

/// A version that is to be there, and the label that is to point at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Draft {
    /// The prompt's name.
    pub name: Arc<str>,
    /// The words.
    pub text: Arc<str>,
    /// What stands in them.
    pub variables: Vec<Variable>,
    /// Who wrote it.
    pub author: Arc<str>,
    /// Why.
    pub note: Arc<str>,
    /// Which label is to point at it, if one is.
    pub label: Option<Arc<str>>,
}

impl Draft {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, the template included.
    pub fn read(body: &Value) -> Result<Self, Vec<Problem>> {
        let form = Form::new(body);
        let draft = Self::read_form(&form);
        form.finish(draft)
    }

    /// Reads the body that says what is to be there: `prompts`, each name once.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn read_all(body: &Value) -> Result<Vec<Self>, Vec<Problem>> {
        let form = Form::new(body);
        let drafts = form.objects("prompts", MAX_PROMPTS, Self::read_form);
        let drafts = drafts.unwrap_or_else(|| {
            if body.get("prompts").is_none() {
                form.wrong("prompts", "missing: a list of prompts");
            }
            Vec::new()
        });
        for (index, draft) in drafts.iter().enumerate() {
            let twice = drafts.iter().take(index).any(|before| before.name == draft.name);
            if twice && !draft.name.is_empty() {
                form.wrong(&format!("prompts[{index}].name"), format!("{} is there twice", draft.name));
            }
        }
        form.finish(drafts)
    }

    /// What there is to read; what is wrong is noted in the form, and then this is none.
    fn read_form(form: &Form<'_>) -> Self {
        let name = required(form, "name", form.text("name"));
        if name.is_some_and(|name| !name_is_good(name)) {
            form.wrong("name", format!("a name has {NAME_RULE}"));
        }
        let label = label(form);
        let text = required(form, "text", form.text("text"));
        let variables = form.objects("variables", MAX_VARIABLES, variable).unwrap_or_default();
        let are_read = variables.iter().all(Option::is_some);
        let variables: Vec<Variable> = variables.into_iter().flatten().collect();
        match text {
            Some(text) if text.len() > MAX_TEXT_BYTES => {
                form.wrong("text", format!("longer than {MAX_TEXT_BYTES} bytes"));
            }
            Some(text) if text.contains('\0') => form.wrong("text", NO_ZEROES),
            Some(text) if text.trim().is_empty() => form.wrong("text", "empty"),
            Some(text) if are_read => check(form, text, &variables),
            _ => {}
        }
        let Signed { author, note } = Signed::read(form);
        let (name, text) = (name.unwrap_or_default().into(), text.unwrap_or_default().into());
        Self { name, text, variables, author, note, label }
    }

    /// Whether a version says the same.
    pub fn is(&self, version: &PromptVersion) -> bool {
        self.text == version.text && self.variables == version.variables
    }
}

/// Who did something, and why.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) author: Arc<str>,
    pub(super) note: Arc<str>,
}

impl Signed {
    /// Reads `author` and `note`.
    pub(super) fn read(form: &Form<'_>) -> Self {
        let author = short(form, "author", MAX_AUTHOR_CHARS);
        let note = short(form, "note", MAX_NOTE_CHARS).unwrap_or_default();
        Self { author: author.unwrap_or_else(|| ADMIN.into()), note }
    }

    /// Nobody who signed, and no reason.
    pub(super) fn nobody() -> Self {
        Self { author: ADMIN.into(), note: Arc::default() }
    }
}

fn short(form: &Form<'_>, name: &str, most: usize) -> Option<Arc<str>> {
    let text = form.read(name, |value| match value.as_str() {
        None => Err("not a text".to_owned()),
        Some(text) if text.chars().count() > most => Err(format!("longer than {most} characters")),
        Some(text) if text.contains('\0') => Err(NO_ZEROES.to_owned()),
        Some(text) => Ok(text),
    });
    text.flatten().filter(|text| !text.is_empty()).map(Into::into)
}

/// Notes that a member is missing where it is.
fn required<T>(form: &Form<'_>, name: &str, given: Given<T>) -> Option<T> {
    let missing = given.is_none() && !form.has(name);
    if missing || matches!(given, Some(None)) {
        form.wrong(name, "missing");
    }
    given.flatten()
}

fn label(form: &Form<'_>) -> Option<Arc<str>> {
    let label = form.read("label", |value| match value.as_str() {
        Some(label) if name_is_good(label) => Ok(Arc::from(label)),
        _ => Err(format!("a label has {NAME_RULE}")),
    });
    label.flatten()
}

/// A variable's declaration; its rules are the template's.
fn variable(form: &Form<'_>) -> Option<Variable> {
    let name = required(form, "name", form.text("name"));
    let kind = form.read("type", |value| {
        let kind = value.as_str().and_then(VariableKind::from_name);
        kind.ok_or("not one of \"text\", \"number\", \"boolean\", \"list\"")
    });
    let default = form.read("default", |value| Ok::<_, &str>(value.clone())).flatten();
    let kind = match kind {
        None if form.has("type") => return None,
        kind => kind.flatten().unwrap_or_default(),
    };
    Some(Variable { name: name?.into(), kind, default })
}

/// Says what the template's rules have against a text.
fn check(form: &Form<'_>, text: &str, variables: &[Variable]) {
    if let Err(TemplateError(problems)) = Template::compile(text, variables) {
        for problem in problems {
            let member = if problem.line.is_some() { "text" } else { "variables" };
            form.wrong(member, &problem as &dyn Display);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn a_body_becomes_a_draft() {
        let body = json!({"name": "support", "text": "Be {{ tone }}.", "label": "candidate", "note": "shorter",
            "variables": [{"name": "tone", "default": "kind"}]});
        let draft = Draft::read(&body).expect("sound");
        let tone = Variable { name: "tone".into(), kind: VariableKind::Text, default: Some("kind".into()) };
        assert_eq!(draft.variables, [tone]);
        let found = [&*draft.name, &*draft.text, &*draft.author, &*draft.note];
        assert_eq!(found, ["support", "Be {{ tone }}.", "admin", "shorter"]);
        assert_eq!(draft.label.as_deref(), Some("candidate"));
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let name_rule = format!("name: a name has {NAME_RULE}");
        for (body, want) in [
            (json!({}), vec!["name: missing", "text: missing"]),
            (json!({"name": null, "text": 1}), vec!["name: missing", "text: not a text"]),
            (json!({"name": "a@b", "text": " \n"}), vec![&*name_rule, "text: empty"]),
            (
                json!({"name": "a", "text": "\u{0}", "author": 1, "x": 1, "variables": [{"type": "int"}, 3]}),
                vec![
                    "author: not a text",
                    "text: has a zero character, which no database keeps",
                    "variables[0].name: missing",
                    "variables[0].type: not one of \"text\", \"number\", \"boolean\", \"list\"",
                    "variables[1]: not a JSON object",
                    "variables[1].name: missing",
                    "x: no such member",
                ],
            ),
            (json!({"name": "a", "text": "b", "label": "3"}), vec!["label"]),
            (json!({"name": "a", "text": "x\n{{ b }}"}), vec!["text: line 2: "]),
            (
                json!({"name": "a", "text": "{{ b }}", "variables": [{"name": "b", "default": 1}]}),
                vec!["variables: "],
            ),
        ] {
            let found = told(Draft::read(&body).expect_err("wrong"));
            assert_eq!(found.len(), want.len(), "{body}: {found:?}");
            for (found, want) in found.iter().zip(want) {
                assert!(found.starts_with(want), "{body}: {found} for {want}");
            }
        }
    }

    #[test]
    fn a_list_has_each_name_once() {
        let list =
            json!({"prompts": [{"name": "a", "text": "x"}, {"name": "b"}, {"name": "a", "text": "y"}]});
        let found = told(Draft::read_all(&list).expect_err("wrong"));
        assert_eq!(found, ["prompts[1].text: missing", "prompts[2].name: a is there twice"]);
        assert_eq!(
            told(Draft::read_all(&json!({})).expect_err("wrong")),
            ["prompts: missing: a list of prompts"]
        );
    }
}
