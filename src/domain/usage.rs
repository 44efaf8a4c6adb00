//! What a request used, tokens and our own worker's time, and how we know.

use serde::Serialize;

use crate::domain::provider::ProviderKind;
use crate::domain::service_tier::ServiceTier;

/// Tokens by class, and time. `cached`, `cache_write` and `audio_prompt` are parts of `prompt`, `reasoning` and
/// `audio_completion` parts of `completion`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TokenCounts {
    /// Tokens of the input, cached ones included.
    #[serde(rename = "prompt_tokens")]
    pub prompt: u64,
    /// Input tokens that the provider served from its own prompt cache.
    #[serde(rename = "cached_tokens")]
    pub cached: u64,
    /// Input tokens that the provider wrote into its prompt cache.
    #[serde(rename = "cache_write_tokens")]
    pub cache_write: u64,
    /// Input tokens that are audio.
    #[serde(rename = "audio_prompt_tokens")]
    pub audio_prompt: u64,
    /// Tokens made, reasoning included.
    #[serde(rename = "completion_tokens")]
    pub completion: u64,
    /// Tokens made that the client does not see.
    #[serde(rename = "reasoning_tokens")]
    pub reasoning: u64,
    /// Tokens made that are audio.
    #[serde(rename = "audio_completion_tokens")]
    pub audio_completion: u64,
    /// Microseconds that a worker of ours computed; nothing of anybody else's machine.
    pub compute_us: u64,
}

/// Where the counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider said so.
    Reported,
    /// Counted by us: the input, and the output that was streamed before the end.
    Estimated,
    /// Not known: an upper bound, because tokens may have been made unseen.
    Unconfirmed,
}

impl UsageSource {
    /// The name in labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    /// Reads back what [`UsageSource::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Reported, Self::Estimated, Self::Unconfirmed].into_iter().find(|source| source.name() == name)
    }
}

/// What a request used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many tokens.
    #[serde(flatten)]
    pub tokens: TokenCounts,
    /// How we know.
    pub source: UsageSource,
    /// The tier that the provider says it served in, which is what it bills.
    #[serde(skip)]
    pub served: Option<ServiceTier>,
}

impl Usage {
    /// Usage of which the provider has not said in which tier it served.
    pub const fn new(tokens: TokenCounts, source: UsageSource) -> Self {
        Self { tokens, source, served: None }
    }
}

/// A count beyond this is a mistake or a lie: a few of them would overflow every sum they are added to. In microseconds it
/// is twelve days.
pub const MOST_TOKENS: u64 = 1 << 40;
/// The member of `usage` in which our worker says how long it computed, microseconds.
pub const COMPUTE_MEMBER: &str = "tunegate_compute_us";
/// What a comment in our own worker's streams begins with that says how long was computed so far, microseconds: whoever
/// leaves pays for that. A comment is nothing to a client
/// (<https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>).
pub const COMPUTE_COMMENT: &str = ": tunegate-compute-us ";

impl TokenCounts {
    /// Reads a `usage` object in the shape of chat, completions and embeddings, or in that of responses.
    ///
    /// Source: OpenAI API 2.3.0, `CompletionUsage`, `CreateEmbeddingResponse.usage`, `ResponseUsage`. Detail objects
    /// may be absent or null.
    pub fn from_json(usage: &serde_json::Value) -> Option<Self> {
        let number = |value: &serde_json::Value| value.as_u64().filter(|count| *count <= MOST_TOKENS);
        let count = |name: &str| usage.get(name).and_then(number);
        // absent is none made; there, but no count, is nothing to believe
        let made = |name: &str| match usage.get(name) {
            None | Some(serde_json::Value::Null) => Some(0),
            Some(value) => number(value),
        };
        let names = match count("prompt_tokens") {
            Some(_) => CHAT_NAMES,
            None => RESPONSES_NAMES,
        };
        let detail = |object: &str, name: &str| {
            usage.get(object).and_then(|details| details.get(name)).and_then(number).unwrap_or(0)
        };
        let counts = Self {
            prompt: count(names.prompt)?,
            cached: detail(names.prompt_details, "cached_tokens"),
            cache_write: detail(names.prompt_details, "cache_write_tokens"),
            audio_prompt: detail(names.prompt_details, "audio_tokens"),
            completion: made(names.completion)?,
            reasoning: detail(names.completion_details, "reasoning_tokens"),
            audio_completion: detail(names.completion_details, "audio_tokens"),
            compute_us: 0,
        };
        Some(counts.in_bounds())
    }

    /// The same as a provider of a kind tells it: only a worker of ours is believed how long it computed. What any other
    /// server says of that is not its to say.
    pub fn told_by(kind: ProviderKind, usage: &serde_json::Value) -> Option<Self> {
        let counts = Self::from_json(usage)?;
        let told = usage.get(COMPUTE_MEMBER).and_then(serde_json::Value::as_u64);
        let computed = told.filter(|us| kind == ProviderKind::Candle && *us <= MOST_TOKENS);
        Some(Self { compute_us: computed.unwrap_or(0), ..counts })
    }

    /// The same where nothing was computed for it, as of an answer that we had kept.
    #[must_use]
    pub const fn uncomputed(self) -> Self {
        Self { compute_us: 0, ..self }
    }

    /// The same with each part within its whole: a part beyond it is a mistake, and the whole is what is billed. Where
    /// parts contradict each other, the dearer one stands.
    #[must_use]
    pub fn in_bounds(self) -> Self {
        let cache_write = self.cache_write.min(self.prompt);
        Self {
            cache_write,
            cached: self.cached.min(self.prompt - cache_write),
            audio_prompt: self.audio_prompt.min(self.prompt),
            reasoning: self.reasoning.min(self.completion),
            audio_completion: self.audio_completion.min(self.completion),
            ..self
        }
    }
}

/// Under which names an API says its counts.
struct Names {
    prompt: &'static str,
    prompt_details: &'static str,
    completion: &'static str,
    completion_details: &'static str,
}

const CHAT_NAMES: Names = Names {
    prompt: "prompt_tokens",
    prompt_details: "prompt_tokens_details",
    completion: "completion_tokens",
    completion_details: "completion_tokens_details",
};

const RESPONSES_NAMES: Names = Names {
    prompt: "input_tokens",
    prompt_details: "input_tokens_details",
    completion: "output_tokens",
    completion_details: "output_tokens_details",
};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_each_shape() {
        let chat = json!({"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 5}});
        let responses = json!({"input_tokens": 12, "output_tokens": 7,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 1},
            "output_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 5}});
        let want = TokenCounts {
            prompt: 12,
            cached: 4,
            cache_write: 2,
            audio_prompt: 1,
            completion: 7,
            reasoning: 3,
            audio_completion: 5,
            compute_us: 0,
        };
        assert_eq!(TokenCounts::from_json(&chat), Some(want));
        assert_eq!(TokenCounts::from_json(&responses), Some(want));
        let embedding = json!({"prompt_tokens": 4, "total_tokens": 4, "prompt_tokens_details": null});
        assert_eq!(TokenCounts::from_json(&embedding), Some(TokenCounts { prompt: 4, ..Default::default() }));
        assert_eq!(TokenCounts::from_json(&json!({})), None);
        assert_eq!(TokenCounts::from_json(&json!(null)), None);
        for nonsense in [json!(u64::MAX), json!(-2), json!(2.5), json!("2")] {
            for name in ["prompt_tokens", "completion_tokens"] {
                let mut usage = json!({"prompt_tokens": 1, "completion_tokens": 1});
                usage[name] = nonsense.clone();
                assert_eq!(TokenCounts::from_json(&usage), None, "{usage}");
            }
        }
    }
    #[test]
    fn a_part_beyond_its_whole_is_cut() {
        let usage = json!({"prompt_tokens": 10, "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4, "audio_tokens": 99},
            "completion_tokens_details": {"reasoning_tokens": 6, "audio_tokens": 7}});
        let want = TokenCounts {
            prompt: 10,
            cached: 6,
            cache_write: 4,
            audio_prompt: 10,
            completion: 5,
            reasoning: 5,
            audio_completion: 5,
            compute_us: 0,
        };
        assert_eq!(TokenCounts::from_json(&usage), Some(want));
    }

    #[test]
    fn only_our_worker_says_how_long_it_computed() {
        for (kind, told, want) in [
            (ProviderKind::Candle, json!(1_500), 1_500),
            (ProviderKind::OpenAi, json!(1_500), 0),
            (ProviderKind::Azure, json!(1_500), 0),
            (ProviderKind::Candle, json!(null), 0),
            (ProviderKind::Candle, json!(-1), 0),
            (ProviderKind::Candle, json!("1500"), 0),
            (ProviderKind::Candle, json!(u64::MAX), 0),
        ] {
            let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, COMPUTE_MEMBER: told});
            let counts = TokenCounts::told_by(kind, &usage).expect("a usage");
            assert_eq!((counts.prompt, counts.compute_us), (3, want), "{kind:?} {usage}");
            assert_eq!(counts.uncomputed().compute_us, 0);
        }
    }
}
