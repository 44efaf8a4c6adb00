//! The filters and tests of prompts: few, and each pays for the bytes that it makes and reads, as fuel counts steps only.
//! None makes more than words may be before it has paid.

use std::io::Write as _;

use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::{Bounded, MAX_WORDS_BYTES};

/// All filters.
pub(super) const FILTERS: &[&str] =
    &["upper", "lower", "trim", "default", "length", "join", "first", "last", "replace", "tojson"];
/// All tests.
pub(super) const TESTS: &[&str] = &["odd", "even", "startingwith", "endingwith"];

/// What all filters of one rendering may read and make, bytes.
const WORK_BYTES: usize = 4 << 20;

/// What is left of it.
struct Left(usize);

/// Puts them into an environment that has none.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("upper", |state: &mut State<'_, '_>, text: String| {
        pay(state, text.len()).map(|()| text.to_uppercase())
    });
    environment.add_filter("lower", |state: &mut State<'_, '_>, text: String| {
        pay(state, text.len()).map(|()| text.to_lowercase())
    });
    environment.add_filter("trim", |state: &mut State<'_, '_>, text: String| {
        pay(state, text.len()).map(|()| text.trim().to_owned())
    });
    // no variable is undefined: what is empty counts as not given
    environment
        .add_filter("default", |value: Value, other: Value| if value.is_true() { value } else { other });
    environment.add_filter("length", |state: &mut State<'_, '_>, value: Value| {
        pay(state, value.as_str().map_or(0, str::len))?;
        value.len().ok_or_else(|| wrong("only texts and lists have a length"))
    });
    environment.add_filter("first", |list: Value| one(&list, 0));
    environment.add_filter("last", |list: Value| one(&list, list.len().unwrap_or(0).saturating_sub(1)));
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_filter("tojson", |state: &mut State<'_, '_>, value: Value| {
        let mut json = Bounded::default();
        let written = serde_json::to_writer(&mut json, &value).map_err(|error| wrong(error.to_string()));
        finish(state, json, written)
    });
    environment.add_test("odd", minijinja::tests::is_odd);
    environment.add_test("even", minijinja::tests::is_even);
    environment.add_test("startingwith", minijinja::tests::is_startingwith);
    environment.add_test("endingwith", minijinja::tests::is_endingwith);
}

fn pay(state: &mut State<'_, '_>, bytes: usize) -> Result<(), Error> {
    let left = state.get_or_insert_extension_with(|| Left(WORK_BYTES));
    left.0 = left.0.checked_sub(bytes).ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
    Ok(())
}

fn wrong(words: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, words.into())
}

/// An element of a list; an empty text where it is empty.
fn one(list: &Value, at: usize) -> Result<Value, Error> {
    if list.as_str().is_some() || list.len().is_none() {
        return Err(wrong("first and last are for lists"));
    }
    Ok(list
        .get_item_by_index(at)
        .ok()
        .filter(|value| !value.is_undefined())
        .unwrap_or_else(|| Value::from("")))
}

fn join(state: &mut State<'_, '_>, list: &Value, between: Option<&str>) -> Result<String, Error> {
    if list.as_str().is_some() {
        return Err(wrong("join is for lists"));
    }
    // also for what is empty: a list may be long
    pay(state, list.len().unwrap_or(0))?;
    let between = between.unwrap_or_default();
    let mut joined = Bounded::default();
    for (at, text) in list.try_iter()?.enumerate() {
        let before = if at > 0 { between } else { "" };
        if write!(joined, "{before}{text}").is_err() {
            break;
        }
    }
    finish(state, joined, Ok(()))
}

/// What was written, once it is paid for.
fn finish(state: &mut State<'_, '_>, made: Bounded, written: Result<(), Error>) -> Result<String, Error> {
    if made.full {
        return Err(too_long());
    }
    written?;
    pay(state, made.bytes.len())?;
    String::from_utf8(made.bytes).map_err(|error| wrong(error.to_string()))
}

fn replace(state: &mut State<'_, '_>, text: &str, from: &str, to: &str) -> Result<String, Error> {
    if from.is_empty() {
        return Err(wrong("replace needs what is to be replaced"));
    }
    pay(state, text.len())?;
    let places = text.matches(from).count();
    let grown = to.len().saturating_sub(from.len()).saturating_mul(places).saturating_add(text.len());
    within_bounds(grown)?;
    pay(state, grown)?;
    Ok(text.replace(from, to))
}

fn within_bounds(bytes: usize) -> Result<(), Error> {
    if bytes > MAX_WORDS_BYTES { Err(too_long()) } else { Ok(()) }
}

fn too_long() -> Error {
    wrong(format!("a text would be longer than {MAX_WORDS_BYTES} bytes"))
}
