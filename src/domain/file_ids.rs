//! File ids in a request or an answer. A file lives in one provider's account: what names it must go there.

use memchr::memmem;

/// More than that are not looked up for one request.
pub const MAX_FILE_IDS: usize = 64;

/// The values of all `"file_id"` members, in order, each once; the first [`MAX_FILE_IDS`].
///
/// Inside a JSON string the quotes would be escaped, so these bytes are always a member's name.
pub fn file_ids(json: &[u8]) -> Vec<String> {
    const NAME: &[u8] = b"\"file_id\"";
    let mut found: Vec<String> = Vec::new();
    for at in memmem::find_iter(json, NAME) {
        let rest = json[at + NAME.len()..].trim_ascii_start();
        let Some(value) = rest.strip_prefix(b":") else { continue };
        let mut reader = serde_json::Deserializer::from_slice(value).into_iter::<&str>();
        if let Some(Ok(id)) = reader.next()
            && !found.iter().any(|known| known == id)
        {
            found.push(id.to_owned());
            if found.len() == MAX_FILE_IDS {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_and_words_are_not() {
        for (json, want) in [
            (
                r#"{"input":[{"type":"input_file","file_id":"file-1"},{"file_id" : "file-2"}]}"#,
                vec!["file-1", "file-2"],
            ),
            (r#"{"file_id":"file-1","x":{"file_id":"file-1"}}"#, vec!["file-1"]),
            (r#"{"text":"\"file_id\":\"file-1\""}"#, vec![]),
            (r#"{"text":"file_id","n":["file_id"]}"#, vec![]),
            (r#"{"file_id":null,"other":{"file_id":7}}"#, vec![]),
            (r#"{"file_id""#, vec![]),
        ] {
            assert_eq!(file_ids(json.as_bytes()), want, "{json}");
        }
    }
}
