//! What is wrong with a configuration: gathered, so that an operator reads all of it at once.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::environment::Environment;

/// A place in the configuration, written as in the file: `models."openai/*".deployments`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(String);

impl Place {
    /// A place at the top of the file, or an environment variable.
    pub(super) fn top(key: &str) -> Self {
        Self(bare_or_quoted(key))
    }

    /// The place of a key in the table at this place.
    pub(super) fn key(&self, key: &str) -> Self {
        match self.0.as_str() {
            "" => Self::top(key),
            parent => Self(format!("{parent}.{}", bare_or_quoted(key))),
        }
    }

    /// The place of an element in the list at this place.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The whole file.
    pub(super) const fn root() -> Self {
        Self(String::new())
    }

    fn covers(&self, other: &str) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with('.') || rest.starts_with('[');
        self.0.is_empty() || other.strip_prefix(self.0.as_str()).is_some_and(below)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "the file" } else { &self.0 })
    }
}

fn bare_or_quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// One thing that is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where, written as in the file.
    pub place: String,
    /// What is wrong there and what to write instead.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file; none for the built-in defaults.
    pub source: Option<PathBuf>,
    /// At least one, sorted by place.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let things = if count == 1 { "thing is" } else { "things are" };
        match &self.source {
            Some(path) => write!(f, "{count} {things} wrong in {}:", path.display())?,
            None => write!(f, "{count} {things} wrong in the configuration:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// What becomes of the secrets that a configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// They are read, and one that is missing is a problem.
    Read,
    /// Nobody looks for them: where they would be stands that they were not read.
    LeftAlone,
}

/// Gathers problems and notices while the configuration is checked.
pub(super) struct Checker<'e> {
    /// Where secrets and overrides are looked up.
    pub(super) environment: &'e dyn Environment,
    /// What becomes of secrets.
    pub(super) secrets: Secrets,
    problems: BTreeSet<Problem>,
    unreadable: Vec<Place>,
    notices: Vec<String>,
}

impl<'e> Checker<'e> {
    pub(super) fn new(environment: &'e dyn Environment) -> Self {
        Self {
            environment,
            secrets: Secrets::Read,
            problems: BTreeSet::new(),
            unreadable: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// For somebody who sends nothing to anybody.
    pub(super) fn without_secrets(environment: &'e dyn Environment) -> Self {
        Self { secrets: Secrets::LeftAlone, ..Self::new(environment) }
    }

    /// Notes what is wrong, unless the value there could not even be read: one complaint is enough.
    pub(super) fn wrong(&mut self, place: &Place, what: impl fmt::Display) {
        let place = place.to_string();
        if !self.unreadable.iter().any(|broken| broken.covers(&place)) {
            self.problems.insert(Problem { place, what: what.to_string() });
        }
    }

    /// Notes that a value has the wrong type; nothing else is said about it or about what is in it.
    pub(super) fn unreadable(&mut self, place: Place, what: impl fmt::Display) {
        self.wrong(&place, what);
        self.unreadable.push(place);
    }

    /// Something that works, but that an operator should know.
    pub(super) fn notice(&mut self, place: &Place, what: impl fmt::Display) {
        self.notices.push(format!("{place}: {what}"));
    }

    /// Forgets what is wrong elsewhere than at these places and below them.
    pub(super) fn forget_elsewhere(&mut self, places: &[Place]) {
        let is_kept = |place: &Place, problem: &Problem| {
            problem.place == place.to_string() || (*place != Place::root() && place.covers(&problem.place))
        };
        self.problems.retain(|problem| places.iter().any(|place| is_kept(place, problem)));
    }

    /// The notices, if nothing is wrong.
    pub(super) fn finish(self, source: Option<PathBuf>) -> Result<Vec<String>, ConfigError> {
        if self.problems.is_empty() {
            return Ok(self.notices);
        }
        Err(ConfigError { source, problems: self.problems.into_iter().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn places_are_written_as_in_the_file() {
        let models = Place::top("models");
        assert_eq!(
            models.key("openai/*").key("deployments").index(1).to_string(),
            r#"models."openai/*".deployments[1]"#
        );
        assert_eq!(Place::root().key("server").to_string(), "server");
        assert_eq!(Place::root().to_string(), "the file");
    }

    #[test]
    fn what_could_not_be_read_is_complained_about_once() {
        let environment = BTreeMap::new();
        let mut checker = Checker::new(&environment);
        let place = Place::top("providers").key("a");
        checker.unreadable(place.clone(), "not a table");
        checker.wrong(&place.key("kind"), "missing");
        checker.wrong(&Place::top("providers").key("ab").key("kind"), "missing");
        let error = checker.finish(None).expect_err("two problems");
        assert_eq!(
            error.to_string(),
            "2 things are wrong in the configuration:\n  providers.a: not a table\n  providers.ab.kind: missing"
        );
    }
}
