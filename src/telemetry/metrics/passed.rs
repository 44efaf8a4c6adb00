//! Another process's metrics inside our own text. Nothing that it says may break what we say: only families of a fixed
//! list pass, none of which is ours, and none passes where one line is malformed.

use std::collections::HashSet;

use super::worker::FAMILIES;

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Malformed {
    /// The line, from 1.
    line: usize,
    /// What is wrong with it.
    what: &'static str,
}

/// Returns those lines of a worker's text that pass: help, type and samples of the families that a worker has. A
/// family that is not listed, or is of another kind, is left out.
///
/// # Errors
///
/// When a line is not of the format (0.0.4, without times), a family or a series is there twice, or a sample stands
/// outside of its family.
pub fn passed(text: &str) -> Result<String, Malformed> {
    let mut passing = Passing { out: String::with_capacity(text.len()), ..Passing::default() };
    for (at, line) in text.lines().enumerate() {
        passing.line(line).map_err(|what| Malformed { line: at + 1, what })?;
    }
    Ok(passing.out)
}

#[derive(Default)]
struct Passing<'t> {
    out: String,
    /// The family that is being read, and the kind, where its type was said.
    family: &'t str,
    kind: Option<&'t str>,
    /// Its help, until its type was said.
    help: Option<&'t str>,
    passes: bool,
    families: HashSet<&'t str>,
    series: HashSet<&'t str>,
}

impl<'t> Passing<'t> {
    fn line(&mut self, line: &'t str) -> Result<(), &'static str> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap_or_default();
            self.begin(name)?;
            self.help = Some(line);
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("a type without its kind")?;
            return self.typed(line, name, kind);
        }
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        self.sample(line)
    }

    fn begin(&mut self, name: &'t str) -> Result<(), &'static str> {
        if !is_name(name) {
            return Err("not a name");
        }
        if !self.families.insert(name) {
            return Err("a family for the second time");
        }
        (self.family, self.kind, self.help, self.passes) = (name, None, None, false);
        Ok(())
    }

    fn typed(&mut self, line: &str, name: &'t str, kind: &'t str) -> Result<(), &'static str> {
        if name != self.family {
            self.begin(name)?;
        }
        if self.kind.replace(kind).is_some() {
            return Err("a type for the second time");
        }
        if !["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind) {
            return Err("not a kind");
        }
        self.passes = FAMILIES.contains(&(name, kind));
        if self.passes {
            let help = self.help.take();
            help.into_iter().chain([line]).for_each(|line| self.push(line));
        }
        Ok(())
    }

    fn sample(&mut self, line: &'t str) -> Result<(), &'static str> {
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        if !is_number(value) {
            return Err("not a number");
        }
        let name_ends = series.find('{').unwrap_or(series.len());
        let (name, labels) = series.split_at(name_ends);
        if !labels.is_empty() && !are_labels(labels) {
            return Err("not labels");
        }
        let part = name.strip_prefix(self.family).ok_or("a sample outside of its family")?;
        let belongs = match self.kind {
            None => return Err("a sample before its type"),
            Some("histogram") => ["_bucket", "_sum", "_count"].contains(&part),
            Some("summary") => ["", "_sum", "_count"].contains(&part),
            Some(_) => part.is_empty(),
        };
        if !belongs {
            return Err("a sample outside of its family");
        }
        if !self.series.insert(series) {
            return Err("a series for the second time");
        }
        if self.passes {
            self.push(line);
        }
        Ok(())
    }

    fn push(&mut self, line: &str) {
        self.out += line;
        self.out.push('\n');
    }
}

fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(letter) && text.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// Whether all readers take a text for a number: they differ about `inf`, and about what is too large for 64 bits.
fn is_number(text: &str) -> bool {
    ["NaN", "+Inf", "-Inf"].contains(&text) || text.parse().is_ok_and(f64::is_finite)
}

/// Whether a text is `{name="value",…}`, each name once, and nothing behind it.
fn are_labels(text: &str) -> bool {
    let mut names = HashSet::new();
    let Some(mut rest) = text.strip_prefix('{') else { return false };
    loop {
        let Some((name, after)) = rest.split_once("=\"") else { return false };
        if !is_name(name) || name.contains(':') || !names.insert(name) {
            return false;
        }
        let Some(behind) = behind_value(after) else { return false };
        match behind.strip_prefix(',') {
            Some(more) => rest = more,
            None => return behind == "}",
        }
    }
}

/// What follows a label's value and its closing quotation mark; nothing where it has none, or an unknown escape.
fn behind_value(text: &str) -> Option<&str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return text.get(at + 1..),
            '\\' => drop(chars.next().filter(|(_, escaped)| ['\\', '"', 'n'].contains(escaped))?),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: &str = "# HELP tunegate_worker_queue Waiting.\n# TYPE tunegate_worker_queue gauge\ntunegate_worker_queue 3\n";

    #[test]
    fn listed_families_pass_and_no_others() {
        let step = "# TYPE tunegate_worker_step_duration_seconds histogram\n\
                    tunegate_worker_step_duration_seconds_bucket{le=\"+Inf\"} 2\n\
                    tunegate_worker_step_duration_seconds_sum 0.5\n\
                    tunegate_worker_step_duration_seconds_count 2\n";
        let labels = "# TYPE tunegate_worker_tokens_total counter\n\
                      tunegate_worker_tokens_total{class=\"a \\\"b\\\" } \\\\ \\n, c=\",of=\"\"} 1e3\n";
        let ours = "# HELP tunegate_requests_total Of ours.\n# TYPE tunegate_requests_total counter\n\
                    tunegate_requests_total{model=\"x\"} 7\n";
        let up = "# TYPE tunegate_worker_up gauge\ntunegate_worker_up 1\n";
        let process = "# TYPE process_threads gauge\nprocess_threads 1\n";
        let other_kind = "# HELP tunegate_worker_queue Waiting.\n# TYPE tunegate_worker_queue counter\n\
                          tunegate_worker_queue 3\n";
        let summary = "# TYPE else summary\nelse{quantile=\"0.5\"} NaN\nelse_sum 1\nelse_count 1\n";
        for (text, want) in [
            (QUEUE.to_owned(), QUEUE.to_owned()),
            (format!("{QUEUE}{step}{labels}"), format!("{QUEUE}{step}{labels}")),
            (format!("{ours}{QUEUE}{up}{process}"), QUEUE.to_owned()),
            (format!("# a word\n\n{QUEUE}"), QUEUE.to_owned()),
            (format!("{other_kind}{step}{summary}"), step.to_owned()),
            (String::new(), String::new()),
        ] {
            assert_eq!(passed(&text), Ok(want), "{text}");
        }
    }

    #[test]
    fn one_malformed_line_and_nothing_passes() {
        for (line, what) in [
            ("tunegate_worker_queue 3", "a series for the second time"),
            ("tunegate_worker_queue{} 3", "not labels"),
            ("tunegate_worker_queue{a=\"b\"} 3 1700000000000", "not labels"),
            ("tunegate_worker_queue", "no value"),
            ("tunegate_worker_queue three", "not a number"),
            ("tunegate_worker_queue 1e400", "not a number"),
            ("tunegate_worker_queue{a=b} 3", "not labels"),
            ("tunegate_worker_queue{a=\"b} 3", "not labels"),
            ("tunegate_worker_queue{a=\"\\x\"} 3", "not labels"),
            ("tunegate_worker_queue{a=\"b\",a=\"c\"} 3", "not labels"),
            ("tunegate_worker_queue{a=\"b\"}c 3", "not labels"),
            ("tunegate_worker_queue{1a=\"b\"} 3", "not labels"),
            ("tunegate_worker_queue_sum 3", "a sample outside of its family"),
            ("tunegate_requests_total 3", "a sample outside of its family"),
            ("# TYPE tunegate_worker_queue gauge", "a type for the second time"),
            ("# HELP tunegate_worker_queue Waiting.", "a family for the second time"),
            ("# HELP 3", "not a name"),
            ("# TYPE tunegate_worker_active", "a type without its kind"),
            ("# TYPE tunegate_worker_active thing", "not a kind"),
            ("# HELP tunegate_worker_active Active.\ntunegate_worker_active 3", "a sample before its type"),
            ("<html>", "no value"),
        ] {
            let told = passed(&format!("{QUEUE}{line}\n")).map_err(|malformed| malformed.what);
            assert_eq!(told, Err(what), "{line}");
        }
        assert_eq!(
            passed(&format!("{QUEUE}?\n")).map_err(|why| why.to_string()),
            Err("line 4: no value".into())
        );
    }
}
