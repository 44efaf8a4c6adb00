//! The most a request can cost on one deployment, as a function of its output cap: what is held before it is asked.

use super::catalog::Deployment;
use super::endpoint::Endpoint;
use super::money::{Cost, PerToken, Usd};
use super::request::{InferenceRequest, LEGACY_OUTPUT_TOKENS};
use super::tokens::Counted;
use super::unboundable::Unboundable;
use super::usage::MOST_TOKENS;

/// Output is not clamped below this: an answer cut shorter is of no use.
pub const LEAST_CLAMPED_TOKENS: u64 = 64;

/// An upper bound: everything but the output, and so much for each token of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpperBound {
    /// All input at the dearest price it may meet, surcharges included.
    pub fixed: Cost,
    /// The dearest price a token of output may get.
    pub per_output_token: PerToken,
    /// The cap on the output of each choice, tokens.
    pub output_cap: u64,
    /// How many choices are made.
    pub choices: u64,
    /// Whether a lower cap may be written into the request.
    pub clampable: bool,
}

impl UpperBound {
    /// A sum that depends on nothing: a fine-tuning job's quote.
    pub fn fixed(sum: Usd) -> Self {
        Self {
            fixed: Cost::default().and_usd(sum),
            per_output_token: PerToken::FREE,
            output_cap: 0,
            choices: 0,
            clampable: false,
        }
    }

    /// What it comes to.
    pub fn amount(&self) -> Usd {
        self.at_cap(self.output_cap)
    }

    /// What it would come to with another cap.
    pub fn at_cap(&self, cap: u64) -> Usd {
        self.fixed.and(cap.saturating_mul(self.choices), self.per_output_token).round_up()
    }

    /// The largest cap, not above its own, that stays within an amount; none when even one token does not, or when
    /// a cap can't be written.
    pub fn cap_within(&self, left: Usd) -> Option<u64> {
        if !self.clampable || self.at_cap(1) > left {
            return None;
        }
        let (mut fits, mut too_much) = (1, self.output_cap.saturating_add(1));
        while too_much - fits > 1 {
            let middle = fits + (too_much - fits) / 2;
            match self.at_cap(middle) <= left {
                true => fits = middle,
                false => too_much = middle,
            }
        }
        Some(fits)
    }

    /// The same with a lower cap.
    #[must_use]
    pub const fn clamped(self, output_cap: u64) -> Self {
        Self { output_cap, ..self }
    }
}

/// Who says how long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapSource {
    /// The client, or the model's own cap where that is lower.
    Client,
    /// The deployment's `default_output_tokens`, as the client says nothing: it must be written into the request.
    Default,
    /// OpenAI's own default for completions: 16.
    Legacy16,
    /// Nobody: such a request has no output.
    NoOutput,
}

/// The most tokens a provider can bill for a request on one deployment. Reasoning is under the cap, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBound {
    /// All of the input.
    pub input: u64,
    /// The part of it that may be billed as audio.
    pub audio_input: u64,
    /// The cap on the output of each choice.
    pub output_cap: u64,
    /// How many choices are made.
    pub choices: u64,
    /// Billed as output, whatever the cap: what is rejected of a prediction. All choices together.
    pub extra_output: u64,
    /// Whether a lower cap may be written into the request.
    pub clampable: bool,
    /// Where the cap comes from.
    pub cap_source: CapSource,
}

/// The most tokens a request can be billed for on a deployment. `count` counts its input, with a counter made for a
/// bound (`TokenCounter::bounding`); it is not called where something else already rules a bound out.
pub fn token_bound(
    request: &InferenceRequest,
    deployment: &Deployment,
    count: impl FnOnce() -> Counted,
) -> Result<TokenBound, Unboundable> {
    if let Some(why) = request.unboundable() {
        return Err(why);
    }
    let counted = count();
    if let Some(why) = counted.unboundable {
        return Err(why);
    }
    let (output_cap, cap_source) = output_cap(request, deployment);
    let choices = request.choices().min(MOST_TOKENS);
    Ok(TokenBound {
        input: counted.input,
        audio_input: counted.audio,
        output_cap,
        choices,
        extra_output: counted.predicted.saturating_mul(choices),
        clampable: output_cap > 0,
        cap_source,
    })
}

/// The cap on the output of each choice, tokens, and where it comes from.
pub fn output_cap(request: &InferenceRequest, deployment: &Deployment) -> (u64, CapSource) {
    let (cap, source) = match (request.endpoint, request.output_cap()) {
        (Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Score, _) => (0, CapSource::NoOutput),
        (_, Some(cap)) => (cap, CapSource::Client),
        (Endpoint::Completions, None) => (LEGACY_OUTPUT_TOKENS, CapSource::Legacy16),
        (_, None) => (deployment.default_output_tokens, CapSource::Default),
    };
    (cap.min(deployment.max_output_tokens.unwrap_or(MOST_TOKENS)), source)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::catalog::tests::deployment;

    fn bound(input: u64, picos: i64, cap: u64, choices: u64) -> UpperBound {
        let price = PerToken::from_picos(picos).expect("a price");
        UpperBound {
            fixed: Cost::default().and(input, price),
            per_output_token: price,
            output_cap: cap,
            choices,
            clampable: true,
        }
    }

    #[test]
    fn the_cap_within_is_the_largest_that_fits() {
        let one = bound(10, 1_000, 100, 2); // a nano-dollar a token: 10 + 200
        assert_eq!(one.amount(), Usd::from_nanos(210));
        for (left, cap) in
            [(210, Some(100)), (209, Some(99)), (1_000, Some(100)), (12, Some(1)), (11, None), (0, None)]
        {
            assert_eq!(one.cap_within(Usd::from_nanos(left)), cap, "{left}");
        }
        assert_eq!(UpperBound { clampable: false, ..one }.cap_within(Usd::dollars(1)), None);
    }

    fn request(endpoint: Endpoint, members: &str) -> InferenceRequest {
        let body = format!(r#"{{"model":"a","messages":[{{}}],"input":"x"{members}}}"#);
        let body = match endpoint {
            Endpoint::Completions => body.replacen("input", "prompt", 1),
            _ => body,
        };
        InferenceRequest::parse(endpoint, body.into(), None).expect(members)
    }

    #[test]
    fn the_cap_is_the_clients_or_the_deployments() {
        use Endpoint::{ChatCompletions, Completions, Embeddings};
        let plain = (*deployment("d", "m")).clone();
        let small = Deployment { max_output_tokens: Some(100), ..plain.clone() };
        let own = Deployment { default_output_tokens: 50, ..plain.clone() };
        for (deployment, endpoint, members, cap, choices, source) in [
            (&plain, ChatCompletions, "", 4_096, 1, CapSource::Default),
            (&own, ChatCompletions, "", 50, 1, CapSource::Default),
            (&own, ChatCompletions, r#","max_tokens":null"#, 50, 1, CapSource::Default),
            (&small, ChatCompletions, "", 100, 1, CapSource::Default),
            (&plain, ChatCompletions, r#","max_completion_tokens":7,"n":3"#, 7, 3, CapSource::Client),
            (
                &plain,
                ChatCompletions,
                r#","max_completion_tokens":7,"max_tokens":9"#,
                9,
                1,
                CapSource::Client,
            ),
            (&small, ChatCompletions, r#","max_tokens":9000"#, 100, 1, CapSource::Client),
            (&own, Completions, "", 16, 1, CapSource::Legacy16),
            (&plain, Completions, r#","max_tokens":3,"best_of":4"#, 3, 4, CapSource::Client),
            (&plain, Completions, r#","max_tokens":0"#, 0, 1, CapSource::Client),
            (&plain, Embeddings, "", 0, 1, CapSource::NoOutput),
        ] {
            let counted = Counted { input: 30, audio: 20, predicted: 5, unboundable: None };
            let bound = token_bound(&request(endpoint, members), deployment, || counted).expect(members);
            let want = TokenBound {
                input: 30,
                audio_input: 20,
                output_cap: cap,
                choices,
                extra_output: 5 * choices,
                clampable: cap > 0,
                cap_source: source,
            };
            assert_eq!(bound, want, "{members}");
        }
    }

    #[test]
    fn what_can_not_be_bounded_is_not() {
        let deployment = deployment("d", "m");
        let stored = request(Endpoint::Responses, r#","prompt":null,"previous_response_id":"r""#);
        // the count, which may be dear, is not asked for
        let bound = token_bound(&stored, &deployment, || unreachable!("not counted"));
        assert_eq!(bound, Err(Unboundable::StoredConversation));
        let with_file = Counted { unboundable: Some(Unboundable::File), ..Counted::default() };
        let bound = token_bound(&request(Endpoint::ChatCompletions, ""), &deployment, || with_file);
        assert_eq!(bound, Err(Unboundable::File));
    }

    proptest! {
        #[test]
        fn one_token_more_would_not_fit(
            input in 0..1_u64 << 30, picos in 0..1_i64 << 36, cap in 1..1_u64 << 24, choices in 1..9_u64,
            left in 0..1_i64 << 50,
        ) {
            let (bound, left) = (bound(input, picos, cap, choices), Usd::from_nanos(left));
            if let Some(fits) = bound.cap_within(left) {
                prop_assert!(fits >= 1 && fits <= cap && bound.at_cap(fits) <= left);
                prop_assert!(fits == cap || bound.at_cap(fits + 1) > left);
            } else {
                prop_assert!(bound.at_cap(1) > left);
            }
        }
    }
}
