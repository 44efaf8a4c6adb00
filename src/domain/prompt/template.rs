//! Prompts' words as templates: `{{ variable }}`, conditions and loops over lists, rendered by minijinja.
//!
//! Values are data: they are put in and never read as a template. What a text may hold is decided token by token before
//! it is compiled (`check`), as the language itself can't be bounded from outside: `a ~ a`, `range` and macros make
//! huge values at a step of fuel each. What is left can only loop over lists that were given.

mod check;
mod filters;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

pub use values::{InvalidValues, MAX_LIST, MAX_VALUE_BYTES, MAX_VALUES_BYTES, Values};

use super::{MAX_TEXT_BYTES, Variable};

/// Longest rendered words, bytes.
pub const MAX_WORDS_BYTES: usize = MAX_TEXT_BYTES;
/// Steps that one rendering may take: 64 variables take some 200, a loop over the longest list some 2,000. A step is short
/// but where it compares or searches long texts: all of them with texts of 64 KiB take some milliseconds in a release
/// build.
const FUEL: u64 = 20_000;
/// The name of the only template in its environment.
const NAME: &str = "prompt";

/// What is wrong with a text and its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line of the text, from 1; none where it is about a variable's declaration.
    pub line: Option<u32>,
    /// What, and how to mend it.
    pub words: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.words),
            None => f.write_str(&self.words),
        }
    }
}

/// Why a text is no template: all problems at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct TemplateError(pub Vec<Problem>);

/// Why words could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// Nobody said what a variable without a default holds.
    #[error("the prompt's variable '{0}' has no value")]
    Missing(Arc<str>),
    /// A value that its variable can't hold.
    #[error("the value of the prompt's variable '{name}' must be {expected}")]
    Invalid {
        /// The variable.
        name: Arc<str>,
        /// What it should be.
        expected: &'static str,
    },
    /// All values together are longer than [`MAX_VALUES_BYTES`].
    #[error("the values of the prompt's variables are longer than {MAX_VALUES_BYTES} bytes in all")]
    TooMuch,
    /// The words are longer than [`MAX_WORDS_BYTES`].
    #[error("the prompt would be longer than {MAX_WORDS_BYTES} bytes with these values")]
    TooLong,
    /// They took too many steps.
    #[error("the prompt takes too long to render with these values")]
    TooSlow,
    /// Anything else that the text does with the values it got.
    #[error("the prompt can't be rendered with these values: {0}")]
    Broken(String),
}

impl RenderError {
    /// The variable to blame, where it is one.
    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Missing(name) | Self::Invalid { name, .. } => Some(name),
            Self::TooMuch | Self::TooLong | Self::TooSlow | Self::Broken(_) => None,
        }
    }
}

/// A checked text, ready to be rendered. Share it behind an `Arc`.
#[derive(Debug)]
pub struct Template {
    variables: Box<[Variable]>,
    words: Words,
}

/// What becomes of the text.
#[derive(Debug)]
enum Words {
    /// It is the same for all.
    Fixed(Arc<str>),
    /// It depends on values.
    Rendered(Box<Environment<'static>>),
}

impl Template {
    /// Checks and compiles a text. Each name in it must be declared, and each declared one be in it.
    ///
    /// # Errors
    ///
    /// With all problems at once.
    pub fn compile(text: &str, variables: &[Variable]) -> Result<Self, TemplateError> {
        let mut problems = values::problems_of(variables);
        if text.len() > MAX_TEXT_BYTES {
            let words = format!("the text is longer than {MAX_TEXT_BYTES} bytes");
            return Err(TemplateError(vec![Problem { line: None, words }]));
        }
        let checked = check::check(text, variables);
        problems.extend(checked.problems);
        if !problems.is_empty() {
            return Err(TemplateError(problems));
        }
        let variables = variables.into();
        if checked.plain {
            return Ok(Self { variables, words: Words::Fixed(text.into()) });
        }
        let mut environment = environment();
        environment.add_template_owned(NAME, text.to_owned()).map_err(|error| {
            let line = error.line().and_then(|line| u32::try_from(line).ok());
            TemplateError(vec![Problem { line, words: told(&error) }])
        })?;
        let template = Self { variables, words: Words::Rendered(Box::new(environment)) };
        Ok(template)
    }

    /// The words with these values in them. Without variables they are the same each time and cost nothing.
    ///
    /// # Errors
    ///
    /// When a value is missing or can't be held, or what comes out has no bounds.
    pub fn render(&self, values: &Values) -> Result<Arc<str>, RenderError> {
        match &self.words {
            Words::Fixed(words) => Ok(Arc::clone(words)),
            Words::Rendered(environment) => rendered(environment, values.held_by(&self.variables)?),
        }
    }

    /// What it has variables for.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.variables.iter().map(|variable| &variable.name)
    }

    /// Whether its words depend on values.
    pub const fn has_variables(&self) -> bool {
        !self.variables.is_empty()
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    // words are what was written, to the last line break
    environment.set_syntax(syntax());
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    filters::add(&mut environment);
    environment
}

fn syntax() -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    builder.keep_trailing_newline(true);
    builder.build().unwrap_or_default()
}

fn rendered(
    environment: &Environment<'static>,
    values: BTreeMap<&str, minijinja::Value>,
) -> Result<Arc<str>, RenderError> {
    let mut words = Bounded::default();
    let rendered = environment
        .get_template(NAME)
        .and_then(|template| template.render_captured_to(minijinja::Value::from(values), &mut words));
    match rendered {
        _ if words.full => Err(RenderError::TooLong),
        Ok(_) => match String::from_utf8(words.bytes) {
            Ok(words) => Ok(words.into()),
            Err(error) => Err(RenderError::Broken(error.to_string())),
        },
        Err(error) if error.kind() == ErrorKind::OutOfFuel => Err(RenderError::TooSlow),
        Err(error) => Err(RenderError::Broken(told(&error))),
    }
}

/// What went wrong, without the values that were at hand.
fn told(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned)
}

/// Takes words until they are too long.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_WORDS_BYTES {
            self.full = true;
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
