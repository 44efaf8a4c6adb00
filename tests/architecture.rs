//! The floors: imports run downwards only, and the pure rooms touch nothing outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Each room with its floor, read from the map in `src/lib.rs`: `//! 5. [`http`] the doors ·`. A room may use itself
/// and those on lower floors. `main` and `lib` stand above all.
fn floors() -> BTreeMap<String, u8> {
    let map = std::fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let mut floors = BTreeMap::from([("main".to_owned(), 10), ("lib".to_owned(), 10)]);
    for line in map.lines() {
        let Some((number, rooms)) = line.strip_prefix("//! ").and_then(|text| text.split_once(". ")) else {
            continue;
        };
        let Ok(floor) = number.trim().parse::<u8>() else { continue };
        for room in rooms.split('`').skip(1).step_by(2) {
            let known = floors.insert(room.to_owned(), floor);
            assert!(known.is_none(), "`{room}` stands on two floors");
        }
    }
    assert!(floors.len() > 8, "the map in src/lib.rs is not understood: {floors:?}");
    floors
}

/// Rooms without I/O, and what none of them may name.
const PURE: [&str; 3] = ["domain", "provider", "sse"];
const OUTSIDE: [&str; 11] = [
    "tokio",
    "pingora",
    "axum",
    "sqlx",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "rand",
];

fn sources() -> Vec<PathBuf> {
    fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                gather(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    gather(&root().join("src"), &mut found);
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The room a file belongs to: its folder under `src/`, or its own name there.
fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).expect("a file in src/");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The text without comments and without its `#[cfg(test)]` module at the end.
fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("readable source");
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The rooms that are named behind `crate::`, also in groups: `use crate::{domain::key, sse}`.
fn rooms_named_in(code: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            None => rooms.push(name(rest)),
            Some(group) => {
                let mut depth = 0_usize;
                let mut part = String::new();
                for c in group.chars() {
                    match c {
                        '}' if depth == 0 => break,
                        ',' if depth == 0 => rooms.push(name(std::mem::take(&mut part).trim())),
                        _ => {
                            depth = match c {
                                '{' => depth + 1,
                                '}' => depth - 1,
                                _ => depth,
                            };
                            part.push(c);
                        }
                    }
                }
                rooms.push(name(part.trim()));
            }
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

#[test]
fn imports_run_downwards_only() {
    let floors = floors();
    let mut wrong = Vec::new();
    for path in sources() {
        let room = room_of(&path);
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let Some(floor) = floors.get(room.as_str()) else {
            wrong.push(format!("{shown}: `{room}` is not on the map in src/lib.rs"));
            continue;
        };
        for used in rooms_named_in(&code_of(&path)) {
            match floors.get(used.as_str()) {
                _ if used == room => {}
                Some(below) if below < floor => {}
                Some(_) => wrong.push(format!("{shown}: `{room}` may not use `{used}`")),
                None => wrong.push(format!("{shown}: `{used}` is no room")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_planes_never_import_the_worker() {
    for path in sources() {
        if matches!(room_of(&path).as_str(), "gateway" | "control" | "http" | "upstream") {
            let used = rooms_named_in(&code_of(&path));
            assert!(!used.contains(&"worker".to_owned()), "{}", path.display());
        }
    }
}

#[test]
fn pure_rooms_touch_nothing_outside() {
    let mut wrong = Vec::new();
    for path in sources() {
        if !PURE.contains(&room_of(&path).as_str()) {
            continue;
        }
        let code = code_of(&path);
        for outside in OUTSIDE {
            let named = code.match_indices(outside).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                let after = code[at + outside.len()..].chars().next();
                let whole = outside.ends_with("Tcp") || outside.ends_with("Udp") || after == Some(':');
                whole && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            });
            if named {
                wrong.push(format!("{} names {outside}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_opens_with_its_reason() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("readable source");
        let is_tests = path.ends_with("tests.rs");
        assert!(is_tests || text.starts_with("//!"), "{} does not say why it exists", path.display());
    }
}

#[test]
fn groups_and_paths_are_both_seen() {
    let code =
        "use crate::{domain::{key, usage}, sse};\nlet x = crate::http::serve();\nuse other_crate::not;";
    assert_eq!(rooms_named_in(code), ["domain", "sse", "http"]);
}
