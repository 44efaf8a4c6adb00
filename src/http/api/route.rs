//! Paths of the data address. The same endpoints stand under `/v1`, without it (some clients drop it), and in both of
//! Azure's shapes, so that an AzureOpenAI client can be pointed here as it is.

use std::borrow::Cow;

use crate::domain::endpoint::Endpoint;
use crate::http::tuning::{TuningNoun, TuningPath};

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) enum Route<'a> {
    /// An inference endpoint, and the model an Azure-shaped path names.
    Inference(Endpoint, Option<Cow<'a, str>>),
    /// A stored response: its id, and the path behind the base URL.
    Stored {
        /// The response's id.
        id: &'a str,
        /// From `responses/` on.
        tail: &'a str,
    },
    /// What became of a request, by its id.
    Request(&'a str),
    /// How the models that a key may use stand.
    Health,
    /// The list of models.
    Models,
    /// One model.
    Model(Cow<'a, str>),
    /// A path of the training plane.
    Tuning(TuningPath<'a>),
    /// Something else.
    Other,
}

impl Route<'_> {
    /// The path as spans name it: our own form of it, with names for what differs between requests; empty for one that we
    /// don't know.
    pub(in crate::http) const fn template(&self) -> &'static str {
        match self {
            Self::Inference(endpoint, _) => match endpoint {
                Endpoint::ChatCompletions => "/v1/chat/completions",
                Endpoint::Completions => "/v1/completions",
                Endpoint::Embeddings => "/v1/embeddings",
                Endpoint::Responses => "/v1/responses",
                Endpoint::Moderations => "/v1/moderations",
                // of our own requests, which have no path
                Endpoint::Score => "",
            },
            Self::Stored { .. } => "/v1/responses/{id}",
            Self::Request(_) => "/v1/tunegate/requests/{id}",
            Self::Health => "/health",
            Self::Models => "/v1/models",
            Self::Model(_) => "/v1/models/{model}",
            Self::Tuning(path) => path.template(),
            Self::Other => "",
        }
    }
}

/// Reads a path without its query.
pub(in crate::http) fn route(path: &str) -> Route<'_> {
    let Some(path) = path.strip_prefix('/') else { return Route::Other };
    if path == "health" {
        return Route::Health;
    }
    if let Some(azure) = path.strip_prefix("openai/") {
        if let Some(rest) = azure.strip_prefix("deployments/") {
            return match rest.split_once('/') {
                Some((model, operation)) => match (Endpoint::from_path(operation), decode(model)) {
                    (Some(endpoint), Some(model)) if endpoint.azure_deployment_bound() => {
                        Route::Inference(endpoint, Some(model))
                    }
                    _ => Route::Other,
                },
                None => Route::Other,
            };
        }
        return plain(azure.strip_prefix("v1/").unwrap_or(azure));
    }
    plain(path.strip_prefix("v1/").unwrap_or(path))
}

fn plain(path: &str) -> Route<'_> {
    if let Some(endpoint) = Endpoint::from_path(path) {
        return Route::Inference(endpoint, None);
    }
    if let Some(path) = TuningPath::read(path) {
        return Route::Tuning(path);
    }
    if path == "tunegate/feedback" {
        return Route::Tuning(TuningPath { noun: TuningNoun::Feedback, rest: "" });
    }
    if path == "models" {
        return Route::Models;
    }
    if let Some(model) = path.strip_prefix("models/").filter(|model| !model.is_empty()) {
        return decode(model).map_or(Route::Other, Route::Model);
    }
    if let Some(id) = path.strip_prefix("tunegate/requests/").filter(|id| is_id(id)) {
        return Route::Request(id);
    }
    if let Some(rest) = path.strip_prefix("responses/") {
        let (id, below) = rest.split_once('/').unwrap_or((rest, ""));
        // `responses/input_tokens` and `responses/compact` are operations, not ids, and not metered
        if is_id(id)
            && matches!(below, "" | "cancel" | "input_items")
            && !matches!(id, "input_tokens" | "compact")
        {
            return Route::Stored { id, tail: path };
        }
    }
    Route::Other
}

/// An id that may stand in an upstream's path.
fn is_id(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Undoes percent-encoding; nothing when it is broken or not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_has_many_paths() {
        use Endpoint::{ChatCompletions, Completions, Embeddings, Moderations, Responses};
        let model = |name: &'static str| Some(Cow::Borrowed(name));
        for (path, want) in [
            ("/v1/chat/completions", Route::Inference(ChatCompletions, None)),
            ("/chat/completions", Route::Inference(ChatCompletions, None)),
            ("/openai/v1/chat/completions", Route::Inference(ChatCompletions, None)),
            ("/openai/responses", Route::Inference(Responses, None)),
            ("/v1/completions", Route::Inference(Completions, None)),
            ("/v1/moderations", Route::Inference(Moderations, None)),
            ("/openai/deployments/bot/chat/completions", Route::Inference(ChatCompletions, model("bot"))),
            ("/openai/deployments/a%3Ab/embeddings", Route::Inference(Embeddings, model("a:b"))),
            ("/openai/deployments/bot/responses", Route::Other),
            ("/openai/deployments/bot/audio/speech", Route::Other),
            ("/openai/deployments/%zz/embeddings", Route::Other),
            ("/health", Route::Health),
            ("/v1/health", Route::Other),
            ("/v1/models", Route::Models),
            ("/v1/models/ft:gpt-4.1:acme::id", Route::Model("ft:gpt-4.1:acme::id".into())),
            ("/v1/models/ft%3Agpt", Route::Model("ft:gpt".into())),
            ("/v1/models/openai/gpt-4o", Route::Model("openai/gpt-4o".into())),
            ("/v1/models/", Route::Other),
            ("/v1/responses/resp_1", Route::Stored { id: "resp_1", tail: "responses/resp_1" }),
            ("/v1/responses/resp_1/cancel", Route::Stored { id: "resp_1", tail: "responses/resp_1/cancel" }),
            ("/v1/responses/input_tokens", Route::Other),
            ("/v1/responses/a..b", Route::Other),
            ("/v1/responses/resp_1/x", Route::Other),
            ("/v1/tunegate/requests/req_1", Route::Request("req_1")),
            ("/v1/tunegate/requests/a/b", Route::Other),
            ("/v1/tunegate/feedback", Route::Tuning(TuningPath { noun: TuningNoun::Feedback, rest: "" })),
            ("/v1/tunegate/feedback/x", Route::Other),
            ("/v1/batches", Route::Other),
            ("/openai/files", Route::Tuning(TuningPath { noun: TuningNoun::Files, rest: "" })),
            (
                "/openai/v1/fine_tuning/jobs/j",
                Route::Tuning(TuningPath { noun: TuningNoun::Jobs, rest: "jobs/j" }),
            ),
            ("/v1/chat/completions/", Route::Other),
            ("*", Route::Other),
        ] {
            assert_eq!(route(path), want, "{path}");
        }
    }
}
