//! `[prompts]`: a folder of files, each of them a stored prompt. `NAME.md` has the words, below an optional head of TOML
//! between two lines of `+++`. Files are read here and carried out by the control plane.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::control::form;
use crate::control::prompts::{Draft, FileDraft};
use crate::domain::prompt::PRODUCTION;

use super::file;
use super::problem::{Checker, Place};
use super::read;

/// What the files of prompts end with.
const EXTENSION: &str = "md";
/// What the head stands between.
const FENCE: &str = "+++";
/// Who wrote what stands in a file and is not signed.
const AUTHOR: &str = "file";
/// The members of a head; the rest of a body says the file itself.
const HEAD: [&str; 4] = ["label", "note", "author", "variables"];

/// Checks `[prompts]` and reads the folder that it names.
pub(super) fn check(written: &file::Prompts, checker: &mut Checker<'_>) -> Vec<FileDraft> {
    let Some(folder) = &written.folder else { return Vec::new() };
    let place = Place::top("prompts").key("folder");
    folder_of(folder).unwrap_or_else(|problems| {
        for problem in problems {
            checker.wrong(&place, problem);
        }
        Vec::new()
    })
}

/// Reads a folder of prompts: all of its files, by name.
///
/// # Errors
///
/// A line for each thing that is wrong in any of them.
pub fn folder_of(folder: &Path) -> Result<Vec<FileDraft>, Vec<String>> {
    let unreadable = |error| vec![format!("{} can't be read: {error}", folder.display())];
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        .map_err(unreadable)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
    paths.sort();
    let (mut drafts, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(&path).map_err(|error| vec![format!("can't be read: {error}")]);
        match text.and_then(|text| draft(&name, &text)) {
            Ok(draft) => drafts.push(FileDraft { file, draft }),
            Err(wrong) => problems.extend(wrong.into_iter().map(|wrong| format!("{file}: {wrong}"))),
        }
    }
    if problems.is_empty() { Ok(drafts) } else { Err(problems) }
}

/// A file's text as a draft.
fn draft(name: &str, text: &str) -> Result<Draft, Vec<String>> {
    let mut body = body_of(name, text)?;
    for (key, value) in [("label", PRODUCTION), ("author", AUTHOR)] {
        if body.get(key).is_none() {
            body[key] = value.into();
        }
    }
    let line = |problem: form::Problem| format!("{}: {}", problem.path, problem.message);
    Draft::read(&body).map_err(|problems| problems.into_iter().map(line).collect())
}

/// A file's text as a body for the admin API. Line breaks around the words are the file's, not the prompt's.
///
/// # Errors
///
/// What is wrong with its head.
pub fn body_of(name: &str, text: &str) -> Result<Value, Vec<String>> {
    let (head, words) = parts(text)?;
    let mut body = match head {
        Some(head) => read::tree(head).map_err(|error| vec![format!("its head is no TOML: {error}")])?,
        None => json!({}),
    };
    let unknown = body.as_object().into_iter().flat_map(|head| head.keys());
    let unknown = unknown.filter(|key| !HEAD.contains(&key.as_str()));
    let unknown: Vec<String> =
        unknown.map(|key| format!("{key}: no such key; there are {}", HEAD.join(", "))).collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    body["name"] = name.into();
    body["text"] = Value::from(words.trim_matches(['\r', '\n']));
    Ok(body)
}

/// The head, if there is one, and the words.
fn parts(text: &str) -> Result<(Option<&str>, &str), Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_fence = |line: &str| line.trim_end() == FENCE;
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| is_fence(line)) else { return Ok((None, text)) };
    let begin = first.len();
    let mut end = begin;
    for line in lines {
        if is_fence(line) {
            return Ok((Some(&text[begin..end]), &text[end + line.len()..]));
        }
        end += line.len();
    }
    Err(vec![format!("its head has no end: a second line of {FENCE}")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::prompt::VariableKind;

    #[test]
    fn a_file_is_words_below_a_head() {
        let whole = "+++\nlabel = \"candidate\"\nnote = \"shorter\"\n[[variables]]\nname = \"tone\"\ntype = \"list\"\n\
                     default = [\"kind\"]\n+++\n\nBe {{ tone | join(' ') }}.\n\nAlways.\n\n";
        let found = draft("support", whole).expect("sound");
        assert_eq!(&*found.text, "Be {{ tone | join(' ') }}.\n\nAlways.");
        assert_eq!(
            (found.label.as_deref(), &*found.note, &*found.author),
            (Some("candidate"), "shorter", "file")
        );
        assert_eq!(found.variables[0].kind, VariableKind::List);
        let plain = draft("support", "\u{feff}Be kind.\r\n").expect("sound");
        assert_eq!(
            (&*plain.text, plain.label.as_deref(), &*plain.name),
            ("Be kind.", Some("production"), "support")
        );
        assert_eq!(&*draft("a", "+++\n+++\nx +++ y").expect("sound").text, "x +++ y");
    }

    #[test]
    fn everything_that_is_wrong_in_a_folder_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("a b.md", "words"),
            ("empty.md", "+++\n+++\n"),
            ("endless.md", "+++\nlabel = \"a\"\n"),
            ("fine.md", "words"),
            ("head.md", "+++\nlabel = 3\nnote = \"x\"\n[[variables]]\nkind = \"text\"\n+++\nwords"),
            ("notes.txt", "+++"),
            ("toml.md", "+++\nlabel\n+++\nwords"),
            ("unknown.md", "+++\nname = \"x\"\n+++\nwords"),
        ] {
            fs::write(folder.path().join(name), text).expect("written");
        }
        let problems = folder_of(folder.path()).expect_err("wrong");
        let starts: Vec<&str> =
            problems.iter().map(|problem| problem.split(": ").next().unwrap_or_default()).collect();
        assert_eq!(
            starts,
            ["a b.md", "empty.md", "endless.md", "head.md", "head.md", "head.md", "toml.md", "unknown.md"],
            "{problems:#?}"
        );
        let none = folder_of(&folder.path().join("none")).expect_err("there is no such folder");
        assert!(none[0].contains("can't be read"), "{none:?}");
    }
}
