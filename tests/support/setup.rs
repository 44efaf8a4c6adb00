//! The configuration of a gateway under test, as an operator would write it.

use super::provider::{SimulatedProvider, UPSTREAM_KEY};

/// The fine-tuned model behind `support-bot`.
pub(crate) const FINE_TUNED: &str = "ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY";

/// A configuration file, in parts.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    server: String,
    sections: String,
    worker: Option<String>,
    retirements: Option<String>,
    /// More lines of `[log]`.
    log: String,
    /// The level of the log; `debug` unless a test says otherwise.
    level: Option<String>,
    /// Retries and breakers as they are shipped.
    patient: bool,
    /// The date that it begins with, in place of the machine's.
    as_of: Option<String>,
    /// PostgreSQL instead of the file in the state folder.
    pub(super) database: Option<String>,
    pub(super) files: Vec<(String, String)>,
    pub(super) providers: Vec<SimulatedProvider>,
}

impl Setup {
    /// No provider, no model and no worker.
    pub(crate) fn bare() -> Self {
        Self::default()
    }

    /// The usual catalog, all of it in front of one provider:
    ///
    /// `support-bot` (OpenAI), `azure-bot` (Azure v1), `classic-bot` (Azure's deployment paths), `thinker` (a
    /// reasoning model), `drainer` (reads a stream on when its client leaves), `embedder`, the fine-tuned model under
    /// its own name, and `openai/*`.
    pub(crate) fn in_front_of(provider: &SimulatedProvider) -> Self {
        let url = provider.url();
        let sections = format!(
            r#"
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
api_key = {{ file = "upstream.key" }}

[providers.azure]
kind = "azure"
base_url = "{url}"
api = "v1"
api_key = {{ file = "upstream.key" }}

[providers.azure-classic]
kind = "azure"
base_url = "{url}"
api = "classic"
api_version = "2024-10-21"
api_key = {{ file = "upstream.key" }}

[deployments.support-v3]
provider = "openai"
model = "{FINE_TUNED}"

[deployments.support-azure]
provider = "azure"
model = "support-eu"
base_model = "gpt-4.1-mini-2025-04-14"

[deployments.support-classic]
provider = "azure-classic"
model = "support-eu"
base_model = "gpt-4.1-mini-2025-04-14"

[deployments.thinker]
provider = "openai"
model = "o4-mini-2025-04-16"

[deployments.drainer]
provider = "openai"
model = "gpt-4.1-mini-2025-04-14"
on_client_gone = "drain"

[deployments.embedder]
provider = "openai"
model = "acme-embeddings"
price = {{ input_per_1m_usd = "0.02", output_per_1m_usd = "0" }}

[deployments.anything]
provider = "openai"
model = "*"
on_unpriced = "cap"
cap_price = "gpt-4"

[models.support-bot]
deployments = ["support-v3"]

[models."{FINE_TUNED}"]
deployments = ["support-v3"]

[models.azure-bot]
deployments = ["support-azure"]

[models.classic-bot]
deployments = ["support-classic"]

[models.thinker]
deployments = ["thinker"]

[models.drainer]
deployments = ["drainer"]

[models.embedder]
deployments = ["embedder"]

[models."openai/*"]
deployments = ["anything"]
"#
        );
        let setup = Self { sections, ..Self::default() };
        setup.file("upstream.key", UPSTREAM_KEY).watched(provider)
    }

    /// A provider, a deployment and a model of one name; the first text goes into the provider's section, the second
    /// into the deployment's.
    pub(crate) fn model(self, name: &str, base_url: &str, provider: &str, deployment: &str) -> Self {
        let deployment = format!("model = \"gpt-4.1-mini-2025-04-14\"\n{deployment}");
        self.model_as(name, base_url, provider, &deployment)
    }

    /// The same with the deployment's own `model`.
    pub(crate) fn model_as(self, name: &str, base_url: &str, provider: &str, deployment: &str) -> Self {
        self.and(&format!(
            r#"
[providers.{name}]
kind = "openai"
base_url = "{base_url}"
{provider}

[deployments.{name}]
provider = "{name}"
{deployment}

[models.{name}]
deployments = ["{name}"]
"#
        ))
    }

    /// Adds sections.
    pub(crate) fn and(mut self, sections: &str) -> Self {
        self.sections.push_str(sections);
        self
    }

    /// Whether the data address speaks TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        self.server.contains("tls =")
    }

    /// Retries and breakers as they are shipped. Else one attempt is all there is, and no breaker opens: most tests are
    /// about one answer.
    pub(crate) fn patient(self) -> Self {
        Self { patient: true, ..self }
    }

    /// Begins at that moment instead of now.
    pub(crate) fn dated(self, moment: &str) -> Self {
        Self { as_of: Some(moment.to_owned()), ..self }
    }

    /// What stands behind `tunegate serve`.
    pub(super) fn arguments(&self) -> Vec<&str> {
        self.as_of.iter().flat_map(|moment| ["--as-of", moment]).collect()
    }

    /// Adds lines to `[server]`.
    pub(crate) fn server(mut self, lines: &str) -> Self {
        self.server.push_str(lines);
        self.server.push('\n');
        self
    }

    /// Replaces `[worker]`, which is switched off otherwise.
    pub(crate) fn worker(mut self, lines: &str) -> Self {
        self.worker = Some(lines.to_owned());
        self
    }

    /// Replaces `[retirements]`: otherwise nobody is asked for a list of models beside the test's own requests.
    pub(crate) fn retirements(mut self, lines: &str) -> Self {
        self.retirements = Some(lines.to_owned());
        self
    }

    /// Adds lines to `[log]`.
    pub(crate) fn log(mut self, lines: &str) -> Self {
        self.log.push_str(lines);
        self.log.push('\n');
        self
    }

    /// Replaces the log's level.
    pub(crate) fn level(self, level: &str) -> Self {
        Self { level: Some(level.to_owned()), ..self }
    }

    /// Keeps its rows in PostgreSQL.
    pub(crate) fn on(mut self, url: &str) -> Self {
        self.database = Some(url.to_owned());
        self.sections.push_str("\n[database]\nurl = { file = \"database.url\" }\n");
        self.file("database.url", url)
    }

    /// Writes a file beside the configuration.
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Has this provider's bill compared with the gateway's books when the test ends.
    pub(crate) fn watched(mut self, provider: &SimulatedProvider) -> Self {
        self.providers.push(provider.clone());
        self
    }

    /// The file's text.
    pub(super) fn text(&self, data_port: u16, admin_port: u16) -> String {
        let Self { server, sections, worker, retirements, log, level, .. } = self;
        let retirements = retirements.as_deref().unwrap_or("poll_ms = 0");
        let routing = match self.patient {
            true => "",
            false => {
                "[routing]\nretry.attempts = 1\n\
                 breaker = { consecutive_failures = 10000, failure_percent = 100, least_requests = 10000 }\n"
            }
        };
        let worker = worker.as_deref().unwrap_or("enabled = false");
        let level = level.as_deref().unwrap_or("debug");
        format!(
            "[server]\nlisten = \"127.0.0.1:{data_port}\"\nthreads = 1\n{server}\n\
             [admin]\nlisten = \"127.0.0.1:{admin_port}\"\n\n[state]\ndir = \"state\"\n\n\
             [log]\nlevel = \"{level}\"\n{log}\n{routing}\n[worker]\n{worker}\n\n[retirements]\n{retirements}\n{sections}"
        )
    }
}
