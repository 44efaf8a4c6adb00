//! Answers of the admin API as tables for a person.

use serde_json::Value;

/// A column: its head, and what an object has in it; nothing is shown as `-`.
pub(super) struct Column(pub(super) &'static str, pub(super) fn(&Value) -> String);

/// The objects of a list.
pub(super) fn listing(answer: &Value) -> &[Value] {
    answer["data"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Objects in columns that are as wide as they need be.
pub(super) fn table(columns: &[Column], objects: &[Value]) -> String {
    let head = columns.iter().map(|Column(name, _)| (*name).to_owned()).collect();
    let cell = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let row = |object| columns.iter().map(|Column(_, read)| cell(read(object))).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(objects.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// One object, a line for each member that has something in it.
pub(super) fn one(object: &Value) -> String {
    let mut lines = Vec::new();
    write_members("", object, &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let lines = lines.into_iter().map(|(name, value)| format!("{name:<width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn write_members(path: &str, object: &Value, lines: &mut Vec<(String, String)>) {
    for (name, value) in object.as_object().into_iter().flatten().filter(|(name, _)| *name != "object") {
        let place = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_time = name.ends_with("_at") || name.ends_with("_until");
        match value {
            Value::Object(_) => write_members(&place, value, lines),
            Value::Number(_) if is_time => lines.push((place, date(value))),
            other if text(other).is_empty() => {}
            other => lines.push((place, text(other))),
        }
    }
}

/// A text as it is, a list with blanks between; nothing of what is missing.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// A number, or nothing.
pub(super) fn number(value: &Value) -> String {
    value.as_number().map(ToString::to_string).unwrap_or_default()
}

/// Seconds since 1970 UTC to the minute, such as `2026-11-22 02:35Z`.
pub(super) fn date(seconds: &Value) -> String {
    let moment = seconds.as_i64().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    moment.map(|moment| moment.strftime("%Y-%m-%d %H:%MZ").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_utc() {
        for (seconds, text) in [
            (json!(0), "1970-01-01 00:00Z"),
            (json!(951_827_696), "2000-02-29 12:34Z"),
            (json!(1_795_314_900), "2026-11-22 02:35Z"),
            (json!(-60), "1969-12-31 23:59Z"),
            (json!(i64::MAX), ""),
            (Value::Null, ""),
        ] {
            assert_eq!(date(&seconds), text);
        }
    }

    #[test]
    fn one_object_without_what_is_empty() {
        let object = json!({
            "object": "team", "alias": "ops", "tags": ["a", "b"], "created_at": 60, "archived_at": null,
            "limits": {"concurrent": 2, "tokens_per_minute": null},
        });
        let lines: Vec<String> = one(&object).lines().map(str::to_owned).collect();
        let mut want = [
            "alias              ops",
            "created_at         1970-01-01 00:01Z",
            "limits.concurrent  2",
            "tags               a b",
        ];
        want.sort_unstable();
        let mut found = lines;
        found.sort_unstable();
        assert_eq!(found, want);
    }
}
