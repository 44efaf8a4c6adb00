//! What a user finds in the repository works: configurations load, files that the documents name exist.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::gateway::TUNEGATE;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Configurations in config/ that a gateway can be started with; price tables are read by other commands.
fn configurations() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("config")).expect("config/");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| path.file_name().is_none_or(|name| name != "prices.toml"))
        .collect();
    found.sort();
    found
}

#[test]
fn every_shipped_configuration_is_accepted() {
    let found = configurations();
    assert!(found.iter().any(|path| path.ends_with("full.toml")), "{found:?}");
    let state = tempfile::tempdir().expect("a temporary folder");
    for path in found {
        // What the file names but cannot bring along is given from outside; the file itself stays as it ships.
        let output = Command::new(TUNEGATE)
            .args(["check-config", "--config"])
            .arg(&path)
            .current_dir(state.path())
            .env("OPENAI_API_KEY", "sk-test")
            .env("AZURE_OPENAI_API_KEY", "test")
            .stdin(Stdio::null())
            .output()
            .expect("the binary under test starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", path.display());
    }
}

/// Words in backquotes or links that look like a path in this repository.
fn paths_named_in(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (i, part) in text.split('`').enumerate() {
        if i % 2 == 1 && !part.contains(['\n', ' ', '<', '*', '$', '{', ':']) {
            found.push(part.to_owned());
        }
    }
    for part in text.split("](").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        if !target.contains("://") && !target.starts_with('#') {
            found.push(target.split('#').next().unwrap_or_default().to_owned());
        }
    }
    found.retain(|path| {
        let first = path.split('/').next().unwrap_or_default();
        let known = [
            "src",
            "config",
            "scripts",
            "tests",
            "bench",
            "dataset",
            "engine",
            "examples",
            "dashboards",
            "deploy",
            "docs",
            ".ci",
        ];
        let document = path.ends_with(".md") && !path.contains('/');
        document || (path.contains('/') && known.contains(&first))
    });
    found
}

#[test]
fn every_file_that_the_documents_name_exists() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let path = root().join(document);
        assert!(path.exists(), "{document} is missing");
        for named in paths_named_in(&read(&path)) {
            assert!(root().join(&named).exists(), "{document} names {named}, which is not there");
        }
    }
}

#[test]
fn every_make_target_that_the_documents_name_exists() {
    let makefile = read(&root().join("Makefile"));
    for document in ["README.md", "CONTRIBUTING.md", "docs/DEPLOY.md"] {
        let text = read(&root().join(document));
        for (at, _) in text.match_indices("`make ") {
            let target: String = text[at + "`make ".len()..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                .collect();
            let known = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
            assert!(known, "{document} names `make {target}`");
        }
    }
}

#[test]
fn nothing_shipped_knows_the_machine_it_was_written_on() {
    let listed = Command::new("git").args(["ls-files"]).current_dir(root()).output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        println!("not a checkout: nothing to look through");
        return;
    };
    // Written in two parts, so that this file does not find itself.
    let betraying = [concat!("/wor", "k/main"), concat!("/wor", "k/wt"), concat!("/wor", "k/target")];
    for name in String::from_utf8_lossy(&listed.stdout).lines() {
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        for word in betraying {
            assert!(!text.contains(word), "{name} contains {word}");
        }
    }
}
