//! What changed from one version to another, as a unified diff.

use std::time::Duration;

use similar::TextDiff;

use crate::domain::prompt::PromptVersion;

/// Texts that differ everywhere are compared roughly after this time.
const PATIENCE: Duration = Duration::from_millis(200);

/// The words' differences, then those of the variables; nothing where both say the same.
pub(super) fn unified(from: &PromptVersion, to: &PromptVersion) -> String {
    let name = |version: &PromptVersion, part: &str| format!("{}@{}{part}", version.prompt, version.number);
    let words = lines(&from.text, &to.text, [&name(from, ""), &name(to, "")]);
    let declared = [from, to].map(|version| {
        let lines = version.variables.iter().map(|one| format!("{}\n", serde_json::json!(one)));
        lines.collect::<String>()
    });
    let heads = [&*name(from, " variables"), &name(to, " variables")];
    words + &lines(&declared[0], &declared[1], heads)
}

fn lines(from: &str, to: &str, [from_name, to_name]: [&str; 2]) -> String {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(from, to);
    diff.unified_diff().header(from_name, to_name).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(number: u32, text: &str, variables: serde_json::Value) -> PromptVersion {
        PromptVersion {
            prompt: "support".into(),
            number,
            text: text.into(),
            variables: serde_json::from_value(variables).expect("variables"),
            sha256: "".into(),
            author: "".into(),
            note: "".into(),
            created_at_ms: 0,
        }
    }

    #[test]
    fn words_and_variables_are_compared() {
        let first = version(1, "Be kind.\nBe brief.", json!([]));
        let second = version(2, "Be kind.\nBe {{ how }}.", json!([{"name": "how"}]));
        assert_eq!(unified(&first, &first), "");
        assert_eq!(
            unified(&first, &second),
            "--- support@1\n+++ support@2\n@@ -1,2 +1,2 @@\n Be kind.\n-Be brief.\n\\ No newline at end of file\n\
             +Be {{ how }}.\n\\ No newline at end of file\n\
             --- support@1 variables\n+++ support@2 variables\n@@ -0,0 +1 @@\n+{\"name\":\"how\",\"type\":\"text\"}\n"
        );
    }

    #[test]
    fn texts_that_differ_everywhere_take_no_minutes() {
        let text = |word: &str| (0..40_000).map(|line| format!("{word}{line}\n")).collect::<String>();
        let diff = unified(&version(1, &text("a"), json!([])), &version(2, &text("b"), json!([])));
        assert!(diff.lines().count() >= 80_000);
    }
}
