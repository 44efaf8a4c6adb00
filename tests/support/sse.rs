//! Reads server-sent events the way a strict client does, from the specification and not from our own parser.

use serde_json::Value;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The `event:` line; empty without one.
    pub(crate) name: String,
    /// The `data:` lines, joined.
    pub(crate) data: String,
}

impl Event {
    /// The data as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_str(&self.data) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): {}", self.data),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.data == "[DONE]"
    }
}

/// The complete events in a body; an unfinished one at its end does not count.
pub(crate) fn events(body: &[u8]) -> Vec<Event> {
    let text = String::from_utf8_lossy(body).replace("\r\n", "\n").replace('\r', "\n");
    let Some((complete, _)) = text.rsplit_once("\n\n") else { return Vec::new() };
    let mut events = Vec::new();
    for block in complete.split("\n\n") {
        let mut event = Event { name: String::new(), data: String::new() };
        let mut lines = Vec::new();
        for line in block.split('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "data" => lines.push(value),
                _ => {}
            }
        }
        if !lines.is_empty() {
            event.data = lines.join("\n");
            events.push(event);
        }
    }
    events
}

/// What a chat stream says, its choices' contents joined.
pub(crate) fn spoken(events: &[Event]) -> String {
    events
        .iter()
        .filter(|event| !event.is_done())
        .flat_map(|event| event.json()["choices"].as_array().cloned().unwrap_or_default())
        .filter_map(|choice| choice["delta"]["content"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn events_with_any_line_ends_comments_and_several_data_lines() {
    let body =
        b": hello\r\nevent: a\r\ndata: one\r\ndata: two\r\n\r\ndata:three\n\n: silence\n\ndata: unfinished\n";
    let found = events(body);
    let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.to_owned() };
    assert_eq!(found, [event("a", "one\ntwo"), event("", "three")]);
}
