//! Exactly what the operator writes. Every key is optional here, so that the checks can say all that is missing at
//! once; defaults and rules are applied where each section is checked. `config/full.toml` explains every key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::domain::budget::draft::Draft;
use crate::domain::cache::{Joiners, Scope};
use crate::domain::catalog::{OnClientGone, OnUnsupported};
use crate::domain::prompt::{Mode, Role};
use crate::store::Durability;
use crate::telemetry::log::Format;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct File {
    pub(super) server: Server,
    pub(super) admin: Admin,
    pub(super) state: State,
    pub(super) database: Database,
    pub(super) log: Log,
    pub(super) worker: Worker,
    pub(super) limits: Limits,
    pub(super) teams: BTreeMap<String, Team>,
    pub(super) prices: Prices,
    pub(super) prompts: Prompts,
    pub(super) providers: BTreeMap<String, Provider>,
    pub(super) deployments: BTreeMap<String, Deployment>,
    pub(super) models: BTreeMap<String, Model>,
    pub(super) routing: Routing,
    pub(super) ledger: Ledger,
    pub(super) budgets: BTreeMap<String, Draft>,
    pub(super) alerts: Alerts,
    pub(super) tracing: Tracing,
    pub(super) retirements: Retirements,
    pub(super) metrics: Metrics,
    pub(super) cache: Cache,
    pub(super) tuning: Tuning,
    pub(super) evaluations: Evaluations,
}

/// `[server]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Server {
    pub(super) listen: Option<String>,
    pub(super) threads: Option<usize>,
    pub(super) tls: Option<Tls>,
    pub(super) h2c_listen: Option<String>,
    pub(super) max_body_bytes: Option<usize>,
    pub(super) head_timeout_ms: Option<u64>,
    pub(super) body_read_timeout_ms: Option<u64>,
    pub(super) body_total_timeout_ms: Option<u64>,
    pub(super) keepalive_timeout_ms: Option<u64>,
    pub(super) sse_keepalive_ms: Option<u64>,
    pub(super) drain_timeout_ms: Option<u64>,
}

/// `server.tls`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tls {
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
}

/// `[admin]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Admin {
    pub(super) listen: Option<String>,
    pub(super) key: Option<SecretSource>,
}

/// `[state]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) dir: Option<PathBuf>,
}

/// `[database]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Database {
    pub(super) url: Option<SecretSource>,
    pub(super) connections: Option<u32>,
    pub(super) acquire_timeout_ms: Option<u64>,
    pub(super) statement_timeout_ms: Option<u64>,
    pub(super) durability: Option<Durability>,
}

/// `[log]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Log {
    pub(super) format: Option<Format>,
    pub(super) level: Option<String>,
}

/// `[worker]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Worker {
    pub(super) enabled: Option<bool>,
    pub(super) model_file: Option<PathBuf>,
    pub(super) name: Option<String>,
    pub(super) embedding_model: Option<PathBuf>,
    pub(super) embedding_name: Option<String>,
    pub(super) threads: Option<usize>,
    pub(super) max_batch: Option<usize>,
    pub(super) queue: Option<usize>,
    pub(super) price: Option<serde_json::Value>,
    pub(super) tuning: Option<bool>,
    pub(super) tuning_organization: Option<String>,
    pub(super) tuning_memory_mib: Option<usize>,
    pub(super) tuning_longest_row: Option<usize>,
    pub(super) max_adapters: Option<usize>,
}

/// `[tuning]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tuning {
    pub(super) folder: Option<PathBuf>,
    pub(super) max_file_bytes: Option<u64>,
    pub(super) max_folder_bytes: Option<u64>,
    pub(super) poll_ms: Option<u64>,
    pub(super) poll_max_ms: Option<u64>,
    pub(super) moderate: Option<bool>,
    pub(super) undeploy_idle: Option<bool>,
    pub(super) idle_after_hours: Option<u64>,
    pub(super) canary_percent: Option<u8>,
}

/// `[evaluations]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Evaluations {
    pub(super) at_once: Option<usize>,
}

/// `[prompts]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Prompts {
    pub(super) folder: Option<PathBuf>,
}

/// `[prices]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Prices {
    pub(super) file: Option<PathBuf>,
    pub(super) on_unpriced: Option<OnUnpriced>,
    pub(super) cap_price: Option<String>,
}

/// `on_unpriced`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnUnpriced {
    Deny,
    Cap,
    Allow,
}

/// `[limits]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    pub(super) max_in_flight: Option<u64>,
    pub(super) max_body_bytes_in_flight: Option<u64>,
}

/// `limits` of a team or a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct RateLimits {
    pub(super) requests_per_minute: Option<u64>,
    pub(super) tokens_per_minute: Option<u64>,
    pub(super) concurrent: Option<u64>,
}

/// `[teams.NAME]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Team {
    pub(super) limits: RateLimits,
    pub(super) tags: Vec<String>,
}

/// Where a secret is: never in the file itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct SecretSource {
    pub(super) env: Option<String>,
    pub(super) file: Option<PathBuf>,
}

/// `kind` of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProviderKind {
    Openai,
    Azure,
    Candle,
}

/// `api` of an Azure provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AzureApi {
    V1,
    Classic,
}

/// `[providers.NAME]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Provider {
    pub(super) kind: Option<ProviderKind>,
    pub(super) base_url: Option<String>,
    pub(super) api: Option<AzureApi>,
    pub(super) api_version: Option<String>,
    pub(super) api_key: Option<SecretSource>,
    pub(super) entra: Option<Entra>,
    pub(super) organization: Option<String>,
    pub(super) project: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) http2: Option<bool>,
    pub(super) on_client_gone: Option<OnClientGone>,
    pub(super) drain_ms: Option<u64>,
    pub(super) timeouts: Timeouts,
    pub(super) training: Training,
}

/// `training` of a provider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Training {
    pub(super) models: Option<Vec<String>>,
    pub(super) resource: Option<String>,
    pub(super) training_type: Option<String>,
    pub(super) tokens_per_second: Option<u64>,
    pub(super) arm: Option<Arm>,
}

/// `arm` of a provider's training.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Arm {
    pub(super) subscription_id: Option<String>,
    pub(super) resource_group: Option<String>,
    pub(super) account: Option<String>,
    pub(super) api_version: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) entra: Option<Entra>,
    pub(super) poll_ms: Option<u64>,
}

/// `kind` of `entra`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EntraKind {
    ClientSecret,
    FederatedTokenFile,
    ManagedIdentity,
    TokenFile,
}

/// `entra`: one flat table for all kinds, so that a key that does not fit the kind can be named.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Entra {
    pub(super) kind: Option<EntraKind>,
    pub(super) tenant_id: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<SecretSource>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) path: Option<PathBuf>,
    pub(super) scope: Option<String>,
    pub(super) authority: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// `timeouts` of a provider or a deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Timeouts {
    pub(super) connect_ms: Option<u64>,
    pub(super) first_byte_ms: Option<u64>,
    pub(super) between_chunks_ms: Option<u64>,
    pub(super) total_ms: Option<u64>,
}

/// `[deployments.NAME]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Deployment {
    pub(super) provider: Option<String>,
    pub(super) model: Option<String>,
    pub(super) base_model: Option<String>,
    pub(super) reasoning: Option<bool>,
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) default_output_tokens: Option<u64>,
    pub(super) on_client_gone: Option<OnClientGone>,
    pub(super) drain_ms: Option<u64>,
    pub(super) timeouts: Timeouts,
    /// Read by `domain::price::read`, which says all that is wrong in it.
    pub(super) price: Option<serde_json::Value>,
    /// Nobody wrote that price: a row of the price book goes before it.
    #[serde(skip)]
    pub(super) is_presumed: bool,
    pub(super) price_model: Option<String>,
    pub(super) on_unpriced: Option<OnUnpriced>,
    pub(super) cap_price: Option<String>,
    pub(super) direct: Option<bool>,
    pub(super) context_window: Option<u64>,
    pub(super) capabilities: Option<Vec<String>>,
    pub(super) quality: Option<f64>,
    pub(super) retires: Option<String>,
    pub(super) limits: RateLimits,
    pub(super) queue: Queue,
    pub(super) unsupported: Vec<String>,
    pub(super) on_unsupported: Option<OnUnsupported>,
    pub(super) breaker: Breaker,
    pub(super) health_check_ms: Option<u64>,
    pub(super) prompt: Option<Injection>,
    pub(super) trained_with: Option<TrainedWith>,
    pub(super) model_version: Option<String>,
    pub(super) sku: Option<String>,
    pub(super) hosted_from: Option<String>,
    pub(super) hosted_until: Option<String>,
}

/// `prompt` of a model or a deployment.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Injection {
    pub(super) name: Option<String>,
    pub(super) mode: Option<Mode>,
    pub(super) role: Option<Role>,
}

/// `trained_with` of a deployment.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct TrainedWith {
    pub(super) sha256: Option<String>,
    pub(super) file: Option<PathBuf>,
    pub(super) prompt: Option<String>,
}

/// `queue` of a deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Queue {
    pub(super) places: Option<u32>,
    pub(super) wait_ms: Option<u64>,
}

/// `[routing]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Routing {
    pub(super) retry: Retry,
    pub(super) breaker: Breaker,
}

/// `breaker` of a deployment, or for all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Breaker {
    pub(super) consecutive_failures: Option<u32>,
    pub(super) failure_percent: Option<u8>,
    pub(super) least_requests: Option<u32>,
    pub(super) window_ms: Option<u64>,
    pub(super) cooldown_ms: Option<u64>,
    pub(super) longest_cooldown_ms: Option<u64>,
    pub(super) probes: Option<u32>,
    pub(super) quota_cooldown_ms: Option<u64>,
}

/// `[models.NAME]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Model {
    /// Short for a plan that is a list of deployments.
    pub(super) deployments: Option<Vec<String>>,
    /// Plans are read by `config::plans`, which says all that is wrong in them.
    pub(super) plan: Option<serde_json::Value>,
    pub(super) aliases: Vec<String>,
    pub(super) labels: BTreeMap<String, serde_json::Value>,
    pub(super) requires: Vec<String>,
    pub(super) longer_context: Option<serde_json::Value>,
    pub(super) content_filtered: Option<serde_json::Value>,
    pub(super) retry: Retry,
    pub(super) limits: RateLimits,
    pub(super) cache: Option<ModelCache>,
    pub(super) capture: Option<ModelCapture>,
    pub(super) prompt: Option<Injection>,
    pub(super) label_prompts: BTreeMap<String, Injection>,
    pub(super) gate: Option<ModelGate>,
}

/// `gate` of a model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelGate {
    pub(super) rules: Vec<String>,
    pub(super) rows: Option<u64>,
    pub(super) max_age_days: Option<u64>,
}

/// `cache` of a model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelCache {
    pub(super) ttl_s: Option<u64>,
    pub(super) scope: Option<Scope>,
    pub(super) any_temperature: Option<bool>,
    pub(super) tool_calls: Option<bool>,
    pub(super) joiners: Option<Joiners>,
    pub(super) semantic: Option<ModelSemantic>,
}

/// `capture` of a model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelCapture {
    pub(super) sample: Option<f64>,
    pub(super) retention_days: Option<u64>,
    pub(super) mask: Option<bool>,
    pub(super) max_rows: Option<u64>,
    pub(super) max_row_bytes: Option<u64>,
    pub(super) deployments: Option<Vec<String>>,
}

/// `semantic` of a model's cache.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ModelSemantic {
    pub(super) threshold: Option<f64>,
    pub(super) shadow: Option<bool>,
}

/// `retry` of a model, or for all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Retry {
    pub(super) attempts: Option<u32>,
    pub(super) same: Option<u32>,
    pub(super) first_wait_ms: Option<u64>,
    pub(super) longest_wait_ms: Option<u64>,
}

/// `[ledger]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ledger {
    pub(super) lease_ms: Option<u64>,
    pub(super) hold_wait_ms: Option<u64>,
    pub(super) budget_exceeded_status: Option<u16>,
    pub(super) keep_days: Option<u64>,
}

/// `[alerts]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Alerts {
    pub(super) webhook_url: Option<String>,
    pub(super) webhook_secret: Option<SecretSource>,
}

/// `[metrics]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metrics {
    pub(super) max_label_values: Option<u64>,
}

/// `[cache]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cache {
    pub(super) max_bytes: Option<u64>,
    pub(super) max_answer_bytes: Option<u64>,
    pub(super) embed_timeout_ms: Option<u64>,
}

/// `[retirements]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Retirements {
    pub(super) poll_ms: Option<u64>,
    pub(super) lead_ms: Option<u64>,
    pub(super) warn_days: Option<u64>,
}

/// `[tracing]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tracing {
    pub(super) endpoint: Option<String>,
    pub(super) headers: BTreeMap<String, SecretSource>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) sample_ratio: Option<f64>,
    pub(super) service_name: Option<String>,
    pub(super) resource: BTreeMap<String, String>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) queue: Option<usize>,
}
