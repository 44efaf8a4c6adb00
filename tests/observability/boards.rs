//! The shipped dashboards as a test asks them: their panels' queries, variables and annotations, and what Grafana puts in
//! the place of a variable before it asks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::prometheus::{Prometheus, Span};

/// What stands for "All".
const ALL: &str = ".+";

/// One dashboard.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) title: String,
    pub(super) variables: Vec<Variable>,
    pub(super) panels: Vec<Panel>,
    /// Titles and expressions.
    pub(super) annotations: Vec<(String, String)>,
}

/// One panel with at least one query.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) queries: Vec<Query>,
    /// As its JSON names it: `currencyUSD`, `s`, …
    pub(super) unit: String,
}

/// One query of a panel.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) expression: String,
    pub(super) legend: String,
    /// Asked for one moment, not for a span.
    pub(super) is_instant: bool,
}

/// A variable that is replaced in queries.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    /// `query`, `custom`, …
    kind: String,
    text: String,
}

/// Words in the place of variables.
pub(super) type Words = BTreeMap<String, String>;

/// Every dashboard that is shipped.
#[track_caller]
pub(super) fn shipped() -> Vec<Board> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards"));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).expect("a dashboard");
        Board::read(
            &serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        )
    };
    files.iter().map(read).collect()
}

/// A member that is text.
fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Board {
    fn read(board: &Value) -> Self {
        let variable = |variable: &Value| Variable {
            name: text(variable, "name"),
            kind: text(variable, "type"),
            text: match &variable["query"] {
                Value::String(query) => query.clone(),
                query => text(query, "query"),
            },
        };
        let rows =
            list(&board["panels"]).flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"])));
        let panels = rows.map(|panel| Panel {
            title: text(panel, "title"),
            queries: list(&panel["targets"]).map(query).collect(),
            unit: text(&panel["fieldConfig"]["defaults"], "unit"),
        });
        let annotations =
            list(&board["annotations"]["list"]).filter(|annotation| annotation["expr"].is_string());
        Self {
            title: text(board, "title"),
            variables: list(&board["templating"]["list"]).map(variable).collect(),
            panels: panels.filter(|panel| !panel.queries.is_empty()).collect(),
            annotations: annotations.map(|one| (text(one, "name"), text(one, "expr"))).collect(),
        }
    }
}

fn query(target: &Value) -> Query {
    Query {
        expression: text(target, "expr"),
        legend: text(target, "legendFormat"),
        is_instant: target["instant"] == true,
    }
}

impl Variable {
    /// What it can be; nothing where it is no list of values, as the data source.
    pub(super) fn values(&self, prometheus: &Prometheus, words: &Words, span: Span) -> Option<Vec<String>> {
        match self.kind.as_str() {
            "query" => Some(self.asked(prometheus, words, span)),
            // `a, b` and `shown : value`
            "custom" | "interval" => {
                let value = |item: &str| item.rsplit(" : ").next().unwrap_or_default().trim().to_owned();
                Some(self.text.split(',').map(value).collect())
            }
            "constant" | "textbox" => Some(vec![self.text.clone()]),
            _ => None,
        }
    }

    #[track_caller]
    fn asked(&self, prometheus: &Prometheus, words: &Words, span: Span) -> Vec<String> {
        let query = replaced(&self.text, words);
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let inside =
            inside.unwrap_or_else(|| panic!("${}: neither a list nor label_values: {query}", self.name));
        let (selector, label) =
            inside.rsplit_once(',').unwrap_or_else(|| panic!("${}: no selector: {query}", self.name));
        let found = prometheus.label_values(label.trim(), selector.trim(), span);
        found.unwrap_or_else(|error| panic!("${}: {query}: {error}", self.name))
    }
}

/// The words for one span: what Grafana sets itself, and all of every variable.
pub(super) fn words_of(board: &Board, prometheus: &Prometheus, span: Span, range: &str, rate: &str) -> Words {
    let mut words = Words::new();
    let seconds = (span.until - span.from).round();
    for (name, word) in [("__range", range), ("__rate_interval", rate), ("__interval", rate)] {
        words.insert(name.to_owned(), word.to_owned());
    }
    words.insert("__range_s".to_owned(), format!("{seconds}"));
    words.insert("__range_ms".to_owned(), format!("{seconds}000"));
    for variable in &board.variables {
        let Some(values) = variable.values(prometheus, &words, span) else { continue };
        assert!(!values.is_empty(), "{}: ${} can be nothing", board.title, variable.name);
        // one value of a list that is written out is taken as it stands
        let word = if variable.kind == "query" { ALL } else { values.first().map_or("", String::as_str) };
        words.insert(variable.name.clone(), word.to_owned());
    }
    words
}

/// The expression with the words in their places: `$name`, `${name}`, `${name:regex}` and `[[name]]`.
pub(super) fn replaced(expression: &str, words: &Words) -> String {
    let mut text = String::new();
    let mut rest = expression;
    while let Some(at) = rest.find(['$', '[']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let (name, length) = name_at(rest);
        match words.get(name) {
            Some(word) => {
                text.push_str(word);
                rest = &rest[length..];
            }
            None => {
                text.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    text + rest
}

/// The variable that a text begins with, and how long it is there; an empty name where there is none.
fn name_at(text: &str) -> (&str, usize) {
    for (open, close) in [("${", "}"), ("[[", "]]")] {
        if let Some((inside, _)) = text.strip_prefix(open).and_then(|rest| rest.split_once(close)) {
            let name = inside.split(':').next().unwrap_or_default();
            return (name, open.len() + inside.len() + close.len());
        }
    }
    let Some(rest) = text.strip_prefix('$') else { return ("", 0) };
    let end =
        rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
    (&rest[..end], 1 + end)
}

/// A value as it stands in a regular expression in a PromQL string.
pub(super) fn escaped(value: &str) -> String {
    value.chars().fold(String::new(), |mut text, letter| {
        if r"\^$*+?.()|[]{}".contains(letter) {
            text.push_str(r"\\");
        }
        text.push(letter);
        text
    })
}

/// The expression with each `increase(X[W])` written as `(X - X offset W)`: what it is where no counter was reset, from
/// the samples alone. Nothing where there is none.
pub(super) fn without_increase(expression: &str) -> Option<String> {
    const CALL: &str = "increase(";
    let mut text = String::new();
    let mut rest = expression;
    while let Some(at) = rest.find(CALL) {
        text.push_str(&rest[..at]);
        let inside = &rest[at + CALL.len()..];
        let end = closing(inside)?;
        let (selector, window) = inside[..end].rsplit_once('[')?;
        let window = window.trim().strip_suffix(']')?;
        text.push_str(&format!("({selector} - {selector} offset {window})"));
        rest = &inside[end + 1..];
    }
    (!text.is_empty() || rest.len() != expression.len()).then(|| text + rest)
}

/// Where the parenthesis that stands open at the beginning is closed; text in quotes aside.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut is_quoted, mut is_escaped) = (1, false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_replaced_in_every_way_they_are_written() {
        let words = Words::from(
            [("job", ".+"), ("model", "a\\\\.b"), ("__rate_interval", "5m")]
                .map(|(name, word)| (name.to_owned(), word.to_owned())),
        );
        for (text, want) in [
            ("rate(a{job=~\"$job\"}[$__rate_interval])", "rate(a{job=~\".+\"}[5m])"),
            ("a{m=~\"${model:regex}\", j=\"[[job]]\"}", "a{m=~\"a\\\\.b\", j=\".+\"}"),
            ("a{x=\"$jobs\"}[$other]", "a{x=\"$jobs\"}[$other]"),
        ] {
            assert_eq!(replaced(text, &words), want, "{text}");
        }
    }

    #[test]
    fn an_increase_is_a_difference() {
        let cases = [
            ("sum(increase(a{b=\"(\"}[1h]))", Some("sum((a{b=\"(\"} - a{b=\"(\"} offset 1h))")),
            ("increase(a[5m]) / increase(b[5m])", Some("(a - a offset 5m) / (b - b offset 5m)")),
            ("rate(a[5m])", None),
        ];
        for (text, want) in cases {
            assert_eq!(without_increase(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn rows_are_looked_into() {
        let panel = json!({"title": "a", "targets": [{"expr": "up", "legendFormat": "x", "instant": true}]});
        let board = json!({"title": "t", "panels": [{"type": "row", "title": "r", "panels": [panel]}, {"type": "text"}],
            "templating": {"list": [{"name": "job", "type": "query", "query": {"query": "label_values(up, job)"}}]}});
        let board = Board::read(&board);
        assert_eq!((board.panels.len(), board.variables.len()), (1, 1));
        assert!(board.panels[0].queries[0].is_instant);
    }
}
