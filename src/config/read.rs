//! Defaults ← file ← environment, read into [`File`]. Unknown keys and wrong types are all found in one go: a value
//! that can't be read is noted, taken out, and the rest is read again.

use std::collections::BTreeMap;

use config::{ConfigError, FileFormat, Source as _, Value, ValueKind};
use serde::Deserialize as _;

use super::file::File;
use super::problem::{Checker, Place};

/// Scalars can be set by `TUNEGATE__SECTION__KEY`.
const PREFIX: &str = "TUNEGATE";
/// Two underscores: Kubernetes sets variables such as `TUNEGATE_PORT` for a service of that name.
const SEPARATOR: &str = "__";
/// Keys whose value may be a secret written there by mistake: it is never repeated.
const SECRET_KEYS: [&str; 6] = ["api_key", "client_secret", "headers", "key", "url", "webhook_secret"];

/// What stands at a wrongly placed secret.
const SECRET_ADVICE: &str = "write { env = \"NAME\" } or { file = \"PATH\" }, never the secret itself";

/// Reads the file's text, if there is one, and the environment over it.
pub(super) fn read(text: Option<&str>, checker: &mut Checker<'_>) -> File {
    let variables = checker.environment.with_prefix(&format!("{PREFIX}{SEPARATOR}"));
    let environment = config::Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .source(Some(variables.into_iter().collect()));
    let merged = config::Config::builder()
        .add_source(config::File::from_str(text.unwrap_or_default(), FileFormat::Toml))
        .add_source(environment)
        .build()
        .and_then(|merged| merged.collect());
    match merged {
        Ok(table) => deserialize(Value::new(None, ValueKind::Table(table)), checker),
        Err(error) => {
            checker.unreadable(Place::root(), first_and_last_line(&error.to_string()));
            File::default()
        }
    }
}

/// A syntax error without the excerpt of the file between its place and its reason: it may hold a secret.
fn first_and_last_line(text: &str) -> String {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    match lines.next_back() {
        Some(last) => format!("{first}: {last}"),
        None => first,
    }
}

/// Reads the text of another file in TOML, such as the prices', into a tree of plain values.
pub(super) fn tree(text: &str) -> Result<serde_json::Value, String> {
    let source = config::File::from_str(text, FileFormat::Toml);
    let table = source.collect().map_err(|error| first_and_last_line(&error.to_string()))?;
    serde_json::Value::deserialize(Value::new(None, ValueKind::Table(table)))
        .map_err(|error| error.to_string())
}

fn deserialize(mut tree: Value, checker: &mut Checker<'_>) -> File {
    loop {
        let mut unknown = BTreeMap::new();
        let mut note_unknown = |path: serde_ignored::Path<'_>| {
            let segments = ignored_segments(&path);
            unknown.insert(place_of(&segments), origin_of(&tree, &segments));
        };
        let mut track = serde_path_to_error::Track::new();
        let reader = serde_path_to_error::Deserializer::new(tree.clone(), &mut track);
        let read = File::deserialize(serde_ignored::Deserializer::new(reader, &mut note_unknown));
        let error = match read {
            Ok(file) => {
                for (place, origin) in unknown {
                    checker.wrong(&place, format!("unknown key{origin}; config/full.toml lists every key"));
                }
                return file;
            }
            Err(error) => error,
        };
        let segments = error_segments(&track.path());
        checker.unreadable(place_of(&segments), reason(&error, &segments));
        if !remove(&mut tree, &segments) {
            return File::default();
        }
    }
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
}

fn place_of(segments: &[Segment]) -> Place {
    segments.iter().fold(Place::root(), |place, segment| match segment {
        Segment::Key(key) => place.key(key),
        Segment::Index(index) => place.index(*index),
    })
}

fn ignored_segments(path: &serde_ignored::Path<'_>) -> Vec<Segment> {
    use serde_ignored::Path;
    let (parent, segment) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Segment::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Segment::Key(key.clone()))),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            (parent, None)
        }
    };
    let mut segments = ignored_segments(parent);
    segments.extend(segment);
    segments
}

fn error_segments(path: &serde_path_to_error::Path) -> Vec<Segment> {
    use serde_path_to_error::Segment as Step;
    path.iter()
        .filter_map(|step| match step {
            Step::Seq { index } => Some(Segment::Index(*index)),
            Step::Map { key } => Some(Segment::Key(key.clone())),
            Step::Enum { .. } | Step::Unknown => None,
        })
        .collect()
}

fn reason(error: &ConfigError, segments: &[Segment]) -> String {
    let holds_secret = segments
        .iter()
        .any(|segment| matches!(segment, Segment::Key(key) if SECRET_KEYS.contains(&key.as_str())));
    if holds_secret {
        return SECRET_ADVICE.to_owned();
    }
    match error {
        ConfigError::At { error, .. } => reason(error, segments),
        ConfigError::Type { unexpected, expected, .. } => format!("{unexpected} stands here, not {expected}"),
        other => other.to_string(),
    }
}

/// Says where a key comes from when that is not the file.
fn origin_of(tree: &Value, segments: &[Segment]) -> &'static str {
    match find(tree, segments).and_then(Value::origin) {
        Some("the environment") => " (from a TUNEGATE__ variable in the environment)",
        _ => "",
    }
}

fn find<'a>(tree: &'a Value, segments: &[Segment]) -> Option<&'a Value> {
    segments.iter().try_fold(tree, |value, segment| match (&value.kind, segment) {
        (ValueKind::Table(table), Segment::Key(key)) => table.get(key),
        (ValueKind::Array(items), Segment::Index(index)) => items.get(*index),
        _ => None,
    })
}

fn remove(tree: &mut Value, segments: &[Segment]) -> bool {
    let Some((last, parents)) = segments.split_last() else { return false };
    let mut value = tree;
    for segment in parents {
        let child = match (&mut value.kind, segment) {
            (ValueKind::Table(table), Segment::Key(key)) => table.get_mut(key),
            (ValueKind::Array(items), Segment::Index(index)) => items.get_mut(*index),
            _ => None,
        };
        let Some(child) = child else { return false };
        value = child;
    }
    match (&mut value.kind, last) {
        (ValueKind::Table(table), Segment::Key(key)) => table.remove(key).is_some(),
        // An element stays in its place, so that the others keep their numbers.
        (ValueKind::Array(items), Segment::Index(index)) => match items.get_mut(*index) {
            Some(item) if !matches!(item.kind, ValueKind::String(_)) => {
                item.kind = ValueKind::String(String::new());
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let environment: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut checker = Checker::new(&environment);
        read(Some(text), &mut checker);
        match checker.finish(None) {
            Ok(_) => Vec::new(),
            Err(error) => error.problems.into_iter().map(|problem| problem.to_string()).collect(),
        }
    }

    #[test]
    fn all_unknown_keys_and_wrong_types_at_once() {
        let found = problems(
            r#"
            [server]
            lisen = "x"
            threads = "many"
            [providers.a]
            kind = "opnai"
            entra = { kind = "client_secret", tenant = "t" }
            [models."ft:a:B::c"]
            deployments = ["x", {}]
            weight = 1
            "#,
            &[("TUNEGATE__SERVER__PROT", "1"), ("TUNEGATE_PORT", "tcp://10.0.0.1:1")],
        );
        let starts = [
            r#"models."ft:a:B::c".deployments[1]: map stands here"#,
            r#"models."ft:a:B::c".weight: unknown key;"#,
            "providers.a.entra.tenant: unknown key;",
            "providers.a.kind: ",
            "server.lisen: unknown key;",
            "server.prot: unknown key (from a TUNEGATE__ variable in the environment);",
            r#"server.threads: string "many" stands here, not"#,
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (found, start) in found.iter().zip(starts) {
            assert!(found.starts_with(start), "{found}\nshould start\n{start}");
        }
    }

    #[test]
    fn a_secret_in_the_file_is_refused_and_not_repeated() {
        for text in [
            "[providers.a]\napi_key = \"sk-visible\"",
            "[admin]\nkey = \"sk-visible\"",
            "[providers.a.entra]\nclient_secret = { env = [\"sk-visible\"] }",
            "[providers.a]\napi_key = sk-visible",
        ] {
            let found = problems(text, &[]).join("\n");
            assert!(!found.is_empty() && !found.contains("visible"), "{text}: {found}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let environment =
            BTreeMap::from([("TUNEGATE__SERVER__MAX_BODY_BYTES".to_owned(), "4096".to_owned())]);
        let mut checker = Checker::new(&environment);
        let file = read(Some("[server]\nmax_body_bytes = 1\nthreads = 3"), &mut checker);
        assert_eq!((file.server.max_body_bytes, file.server.threads), (Some(4096), Some(3)));
    }
}
