//! Tables as CSV (RFC 4180), for spreadsheets.

use axum::response::{IntoResponse, Response};
use http::header;

/// A line of a table being written.
#[derive(Default)]
pub(super) struct Line(String);

impl Line {
    /// A text that somebody else may have chosen. One that a spreadsheet would take for a formula is shown as text.
    #[must_use]
    pub(super) fn text(self, text: &str) -> Self {
        match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            true => self.cell(&format!("'{text}")),
            false => self.cell(text),
        }
    }

    /// A number, or what else is ours.
    #[must_use]
    pub(super) fn value(self, value: &dyn ToString) -> Self {
        self.cell(&value.to_string())
    }

    fn cell(mut self, text: &str) -> Self {
        if text.contains(['"', ',', '\n', '\r']) {
            self.0.push_str(&format!("\"{}\",", text.replace('"', "\"\"")));
        } else {
            self.0.push_str(text);
            self.0.push(',');
        }
        self
    }
}

/// The answer: a head and its lines.
pub(super) fn answer(head: &[&str], lines: impl Iterator<Item = Line>) -> Response {
    let mut text = head.join(",");
    text.push_str("\r\n");
    for Line(line) in lines {
        text.push_str(line.strip_suffix(',').unwrap_or(&line));
        text.push_str("\r\n");
    }
    ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let line =
            Line::default().text("a,b").text("say \"x\"").text("=1+1").value(&-2).text("").text("two\nlines");
        assert_eq!(line.0, "\"a,b\",\"say \"\"x\"\"\",'=1+1,-2,,\"two\nlines\",");
    }
}
