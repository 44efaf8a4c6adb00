//! A JSON schema that answers are held against.

use serde_json::Value;

/// A schema, ready to be asked.
#[derive(Debug, Clone)]
pub struct Schema(jsonschema::Validator);

impl Schema {
    /// Reads a schema, draft 2020-12 unless it names another. Nothing is fetched: all that it refers to stands in it.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(schema: &Value) -> Result<Self, String> {
        jsonschema::validator_for(schema).map(Self).map_err(|why| why.to_string())
    }

    /// Whether a text is JSON, the whole of it, and as the schema wants it.
    pub fn accepts(&self, text: &str) -> bool {
        serde_json::from_str(text).is_ok_and(|value| self.0.is_valid(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_valid_as_a_whole_or_not_at_all() {
        let schema = json!({"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}},
            "additionalProperties": false});
        let schema = Schema::read(&schema).expect("a schema");
        for (text, want) in [
            (r#"{"city": "Zürich"}"#, true),
            (" {\"city\":\"\"}\n", true),
            (r#"{"city": 1}"#, false),
            (r#"{"town": "Zürich"}"#, false),
            (r#"{"city": "Zürich", "x": 1}"#, false),
            ("```json\n{\"city\": \"Zürich\"}\n```", false),
            (r#"{"city": "Zür"#, false),
            ("", false),
        ] {
            assert_eq!(schema.accepts(text), want, "{text}");
        }
        assert!(Schema::read(&json!({"type": "nothing"})).is_err());
        assert!(Schema::read(&json!({"$ref": "https://example.com/a.json"})).is_err(), "nothing is fetched");
    }
}
