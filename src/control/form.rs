//! What operators send, read member by member: every problem is gathered with its path, so that they are told all at
//! once, and a member that nobody asked for is one of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::domain::money::Usd;

/// One thing that is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where: `limits.tokens_per_minute`, `models[1]`; empty for the whole.
    pub path: String,
    /// What is wrong and what to write.
    pub message: String,
}

/// An object being read.
pub struct Form<'a> {
    /// Nothing when the body is no object.
    members: Option<&'a Map<String, Value>>,
    path: String,
    asked: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<Problem>>,
}

/// A member that may be left out, or be `null` to take back what was set.
pub type Given<T> = Option<Option<T>>;

impl<'a> Form<'a> {
    /// Reads a body; anything but an object is a problem.
    pub fn new(body: &'a Value) -> Self {
        Self::at(String::new(), body)
    }

    fn at(path: String, body: &'a Value) -> Self {
        let form =
            Self { members: body.as_object(), path, asked: RefCell::default(), problems: RefCell::default() };
        if form.members.is_none() {
            let problem = Problem { path: form.path.clone(), message: "not a JSON object".to_owned() };
            form.problems.borrow_mut().push(problem);
        }
        form
    }

    fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Notes what is wrong with a member.
    pub fn wrong(&self, name: &str, what: impl Display) {
        let problem = Problem { path: self.path(name), message: what.to_string() };
        self.problems.borrow_mut().push(problem);
    }

    fn member(&self, name: &str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.members?.get(name)
    }

    /// Whether a member is there at all, sound or not.
    pub fn has(&self, name: &str) -> bool {
        self.members.is_some_and(|members| members.contains_key(name))
    }

    /// Reads a member by a rule; what the rule says against it becomes a problem.
    pub fn read<T, E: Display>(&self, name: &str, rule: impl FnOnce(&'a Value) -> Result<T, E>) -> Given<T> {
        match self.member(name)? {
            Value::Null => Some(None),
            value => match rule(value) {
                Ok(read) => Some(Some(read)),
                Err(what) => {
                    self.wrong(name, what);
                    None
                }
            },
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> Given<&'a str> {
        self.read(name, |value| value.as_str().ok_or("not a text"))
    }

    /// A whole number within bounds.
    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Given<u64> {
        self.read(name, |value| match value.as_u64() {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("not a whole number of {} to {}", range.start(), range.end())),
        })
    }

    /// An amount in USD: a number, or a text such as `"12.50"`.
    pub fn usd(&self, name: &str) -> Given<Usd> {
        self.read(name, |value| {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Usd::parse(&text).map_err(|error| error.to_string())
        })
    }

    /// A list, each of whose elements keeps a rule; `null` is an empty one.
    pub fn list<T, E: Display>(
        &self,
        name: &str,
        most: usize,
        rule: impl Fn(&'a str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let values = self.read(name, |value| value.as_array().ok_or("not a list of texts"))?;
        let values = values.map(Vec::as_slice).unwrap_or_default();
        if values.len() > most {
            self.wrong(name, format!("more than {most}"));
        }
        let whole = Cell::new(true);
        let complain = |index: usize, what: &dyn Display| {
            self.wrong(&format!("{name}[{index}]"), what);
            whole.set(false);
        };
        let mut read = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match value.as_str().map(&rule) {
                Some(Ok(element)) => read.push(element),
                Some(Err(what)) => complain(index, &what),
                None => complain(index, &"not a text"),
            }
        }
        whole.get().then_some(read)
    }

    /// An object within; `null` is one in which everything is `null`, and is told apart from one left out.
    pub fn object<T>(&self, name: &str, read: impl FnOnce(&Form<'a>) -> T) -> Given<T> {
        match self.member(name)? {
            Value::Null => Some(None),
            value => {
                let form = Form::at(self.path(name), value);
                let found = read(&form);
                self.problems.borrow_mut().extend(form.into_problems());
                Some(Some(found))
            }
        }
    }

    /// A list of objects, each read by itself; `null` is an empty one.
    pub fn objects<T>(&self, name: &str, most: usize, read: impl Fn(&Form<'a>) -> T) -> Option<Vec<T>> {
        let values = self.read(name, |value| value.as_array().ok_or("not a list of objects"))?;
        let values = values.map(Vec::as_slice).unwrap_or_default();
        if values.len() > most {
            self.wrong(name, format!("more than {most}"));
        }
        let read = values.iter().take(most).enumerate().map(|(index, value)| {
            let form = Form::at(self.path(&format!("{name}[{index}]")), value);
            let found = read(&form);
            self.problems.borrow_mut().extend(form.into_problems());
            found
        });
        Some(read.collect())
    }

    fn into_problems(self) -> Vec<Problem> {
        let asked = self.asked.borrow();
        for name in self.members.into_iter().flat_map(Map::keys).filter(|name| !asked.contains(*name)) {
            self.wrong(name, "no such member");
        }
        drop(asked);
        self.problems.into_inner()
    }

    /// What was read, if nothing is wrong; else every problem, sorted by path.
    pub fn finish<T>(self, read: T) -> Result<T, Vec<Problem>> {
        let mut problems = self.into_problems();
        if problems.is_empty() {
            return Ok(read);
        }
        problems.sort();
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(body: &Value) -> Vec<String> {
        let form = Form::new(body);
        form.text("alias");
        form.number("n", 1..=5);
        form.usd("cost");
        form.list("tags", 2, |text| if text.is_empty() { Err("empty") } else { Ok(text) });
        form.object("limits", |limits| limits.number("rpm", 1..=9));
        form.objects("parts", 2, |part| part.text("name"));
        let found = form.finish(()).err().unwrap_or_default();
        found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn every_problem_is_told_with_its_path() {
        for (body, want) in [
            (json!({}), &[][..]),
            (json!({"alias": null, "n": null, "cost": null, "tags": null, "limits": null}), &[]),
            (json!({"alias": "a", "n": 5, "cost": 0.5, "tags": ["a"], "limits": {"rpm": 1}}), &[]),
            (json!([]), &[": not a JSON object"]),
            (
                json!({"alias": 1, "n": 0, "cost": -1, "tags": ["", "a", 3], "limits": {"rpm": 1.5, "x": 1}, "y": 0}),
                &[
                    "alias: not a text",
                    "cost: an amount is written as digits with at most one point, such as \"12.50\"",
                    "limits.rpm: not a whole number of 1 to 9",
                    "limits.x: no such member",
                    "n: not a whole number of 1 to 5",
                    "tags: more than 2",
                    "tags[0]: empty",
                    "tags[2]: not a text",
                    "y: no such member",
                ],
            ),
            (json!({"limits": 1}), &["limits: not a JSON object"]),
            (json!({"parts": [{"name": "a"}, {}]}), &[]),
            (json!({"parts": {}}), &["parts: not a list of objects"]),
            (
                json!({"parts": [{"name": 1, "x": 1}, 2, {}]}),
                &[
                    "parts: more than 2",
                    "parts[0].name: not a text",
                    "parts[0].x: no such member",
                    "parts[1]: not a JSON object",
                ],
            ),
        ] {
            assert_eq!(problems(&body), want, "{body}");
        }
    }

    #[test]
    fn left_out_is_not_null() {
        let body = json!({"a": null, "b": "x", "cost": "0.25"});
        let form = Form::new(&body);
        assert_eq!((form.text("a"), form.text("b"), form.text("c")), (Some(None), Some(Some("x")), None));
        assert_eq!(form.usd("cost"), Some(Some(Usd::from_nanos(250_000_000))));
    }
}
