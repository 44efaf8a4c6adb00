//! What is taken for granted where nobody says otherwise.

use serde::Serialize;
/// Examples that are put in front of a request where there is no fine-tuned model, unless somebody says otherwise.
pub const FEW_SHOT: u64 = 5;
/// Tokens of passages that retrieval puts into a request, unless somebody says otherwise.
pub const RETRIEVED: u64 = 1_500;
/// Months that training is spread over, unless somebody says otherwise.
pub const MONTHS: u64 = 12;
/// The kind of deployment that serves at Azure, unless somebody says otherwise.
pub const SKU: &str = "Standard";
/// Whose prompts the traffic's requests have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompts {
    /// Those of a fine-tuned model: without examples.
    #[default]
    Short,
    /// Those of the base model, examples included: a fine-tuned one's would be shorter.
    Long,
}

/// What is taken for granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// Months that training is spread over.
    pub months: u64,
    /// Examples in the prompt of a base model.
    pub few_shot: u64,
    /// How many tokens longer that makes it; none: as many as so many rows have.
    pub prompt_tokens: Option<u64>,
    /// Tokens of passages that retrieval puts into a request.
    pub retrieval_tokens: u64,
    /// Whose prompts the traffic has.
    pub traffic_prompts: Prompts,
    /// How long training takes where it is billed by the hour, seconds.
    pub training_seconds: Option<u64>,
    /// The kind of deployment that serves at Azure.
    pub sku: String,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            months: MONTHS,
            few_shot: FEW_SHOT,
            prompt_tokens: None,
            retrieval_tokens: RETRIEVED,
            traffic_prompts: Prompts::Short,
            training_seconds: None,
            sku: SKU.to_owned(),
        }
    }
}
