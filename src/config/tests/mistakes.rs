//! What is refused, and what is only said.

use super::*;

/// Each mistake, and how its line begins.
const MISTAKES: &[(&str, &str)] = &[
    ("[server]\nlisten = \"localhost:8080\"", "server.listen: \"localhost:8080\" is no address"),
    ("[server]\nlisten = \"127.0.0.1:8081\"", "admin.listen: 127.0.0.1:8081 is taken by server.listen"),
    ("[server]\nlisten = \"0.0.0.0:8081\"", "admin.listen: 127.0.0.1:8081 is taken by server.listen"),
    (
        "[server]\nh2c_listen = \"127.0.0.1:8080\"",
        "server.h2c_listen: 127.0.0.1:8080 is taken by server.listen",
    ),
    ("[server]\nmax_body_bytes = 1023", "server.max_body_bytes: 1023 is out of bounds: 1024 to 1073741824"),
    ("[server]\nthreads = 5000", "server.threads: 5000 is out of bounds"),
    ("[server]\nhead_timeout_ms = 0", "server.head_timeout_ms: 0 ms leaves no time"),
    ("[server]\nbody_read_timeout_ms = 400000", "server.body_read_timeout_ms: longer than body_total"),
    ("[server]\ndrain_timeout_ms = 99999999", "server.drain_timeout_ms: 99999999 is out of bounds"),
    (
        "[server]\ntls = { cert_file = \"/nowhere/tls.crt\" }",
        "server.tls.cert_file: can't read /nowhere/tls.crt",
    ),
    ("[server]\ntls = { cert_file = \"/nowhere/tls.crt\" }", "server.tls.key_file: missing"),
    ("[admin]\nlisten = \"0.0.0.0:8081\"", "admin.listen: 0.0.0.0:8081 can be reached from other machines"),
    ("[admin]\nkey.env = \"SHORT\"", "admin.key: too easy to guess"),
    ("[admin]\nkey = {}", "admin.key: says not where"),
    ("[admin]\nkey = { env = \"KEY\", file = \"/x\" }", "admin.key: env and file contradict"),
    ("[admin]\nkey.env = \"UNSET\"", "admin.key.env: the environment variable UNSET is not set"),
    ("[admin]\nkey.env = \"BLANK\"", "admin.key.env: the environment variable BLANK is empty"),
    ("[admin]\nkey.env = \"BROKEN\"", "admin.key.env: holds white space"),
    ("[admin]\nkey.file = \"/nowhere/key\"", "admin.key.file: can't read /nowhere/key"),
    ("[state]\ndir = \"\"", "state.dir: empty"),
    ("[database]\nurl.env = \"KEY\"", "database.url: no URL of PostgreSQL"),
    ("[database]\nurl.env = \"UNSET\"", "database.url.env: the environment variable UNSET is not set"),
    ("[ledger]\nkeep_days = 31", "ledger.keep_days: budgets over rolling windows look back 31 days"),
    ("[ledger]\nkeep_days = 99999", "ledger.keep_days: 99999 is out of bounds"),
    ("[database]\nconnections = 1", "database.connections: 1 is out of bounds: 2 to 256"),
    ("[database]\nstatement_timeout_ms = 0", "database.statement_timeout_ms: 0 ms leaves no time"),
    ("[database]\ndurability = \"forever\"", "database.durability: "),
    ("[metrics]\nmax_label_values = 99999", "metrics.max_label_values: 99999 is out of bounds: 0 to 10000"),
    ("[retirements]\npoll_ms = 10", "retirements.poll_ms: 10 is out of bounds: 1000 to 86400000"),
    ("[retirements]\nlead_ms = 999999999999", "retirements.lead_ms: 999999999999 is out of bounds"),
    ("[retirements]\nwarn_days = 99999", "retirements.warn_days: 99999 is out of bounds: 0 to 3660"),
    ("[models.x.gate]\nrows = 20", "models.x.gate.rules: 1 to 32 rules stand here"),
    ("[models.x.gate]\nrules = [\"be good\"]", "models.x.gate.rules[0]: \"be good\" is no rule"),
    ("[models.x.gate]\nrows = 0", "models.x.gate.rows: 0 is out of bounds: 1 to 10000"),
    ("[models.x.gate]\nmax_age_days = 0", "models.x.gate.max_age_days: 0 is out of bounds: 1 to 3650"),
    ("[cache]\nmax_bytes = 1", "cache.max_bytes: 1 is out of bounds: 1048576 to 1099511627776"),
    ("[cache]\nmax_answer_bytes = 1", "cache.max_answer_bytes: 1 is out of bounds: 1024 to 67108864"),
    (
        "[cache]\nmax_bytes = 1048576\nmax_answer_bytes = 1048577",
        "cache.max_answer_bytes: more than max_bytes, 1048576",
    ),
    ("[cache]\nembed_timeout_ms = 1001", "cache.embed_timeout_ms: 1001 is out of bounds: 0 to 1000"),
    ("[ledger]\nlease_ms = 10", "ledger.lease_ms: 10 is out of bounds: 1000 to 600000"),
    ("[ledger]\nhold_wait_ms = 60001", "ledger.hold_wait_ms: 60001 is out of bounds: 0 to 60000"),
    (
        "[ledger]\nbudget_exceeded_status = 401",
        "ledger.budget_exceeded_status: 401 is none of 402, 403 and 429",
    ),
    ("[alerts]\nwebhook_url = \"ftp://x\"", "alerts.webhook_url: the scheme is https or http"),
    ("[alerts]\nwebhook_secret.env = \"KEY\"", "alerts.webhook_url: missing: webhook_secret signs"),
    ("[alerts]\nwebhook_secret = \"hunter2\"", "alerts.webhook_secret: write { env = "),
    ("[alerts]\nwebhook_secret.env = \"SHORT\"", "alerts.webhook_secret: too easy to guess"),
    ("[tracing]\nendpoint = \"localhost:4318\"", "tracing.endpoint: the scheme is https or http"),
    ("[tracing]\nsample_ratio = 1.5", "tracing.sample_ratio: 1.5 is out of bounds: 0 to 1"),
    ("[tracing]\nsample_ratio = nan", "tracing.sample_ratio: NaN is out of bounds"),
    ("[tracing]\ntimeout_ms = 99999", "tracing.timeout_ms: 99999 is out of bounds"),
    ("[tracing]\nqueue = 0", "tracing.queue: 0 is out of bounds"),
    ("[tracing]\nservice_name = \"\"", "tracing.service_name: write 1 to 256 bytes"),
    (
        "[tracing]\nresource = { \"service.name\" = \"x\" }",
        "tracing.resource.\"service.name\": write tracing.service_name",
    ),
    ("[tracing]\nresource = { k = \"\" }", "tracing.resource.k: key and value have 1 to 256 bytes"),
    ("[tracing]\nheaders = { Host = { env = \"KEY\" } }", "tracing.headers.Host: written by tunegate itself"),
    ("[tracing]\nheaders = { \"a b\" = { env = \"KEY\" } }", "tracing.headers.\"a b\": no name of a header"),
    (
        "[tracing]\nheaders = { authorization = \"Bearer hunter2\" }",
        "tracing.headers.authorization: write { env = ",
    ),
    ("[tracing]\nca_file = \"/nowhere/ca.crt\"", "tracing.ca_file: can't read /nowhere/ca.crt"),
    (
        "[budgets.\"a/b\"]\nlimit_usd = \"1\"\nwindow = \"day\"",
        "budgets.\"a/b\": a budget's name has 1 to 64",
    ),
    ("[budgets.a]\nwindow = \"day\"", "budgets.a.limit_usd: missing"),
    (
        "[budgets.a]\nlimit_usd = \"1\"\nwindow = \"day\"\ntime_zone = \"Mars/Base\"",
        "budgets.a.time_zone: there is no",
    ),
    (
        "[budgets.a]\nlimit_usd = \"99999999999\"\nwindow = \"day\"",
        "budgets.a.limit_usd: an amount is at most",
    ),
    (
        "[budgets.a]\nlimit_usd = \"1\"\nwindow = \"day\"\nscope.model = \"m\"",
        "budgets.a.scope.model: there is no [models.m]",
    ),
    (
        "[budgets.a]\nlimit_usd = \"1\"\nwindow = \"day\"\nscope.deployment = \"m\"",
        "budgets.a.scope.deployment: there is no",
    ),
    (
        "[budgets.a]\nlimit_usd = \"1\"\nwindow = \"day\"\nscope.provider = \"m\"",
        "budgets.a.scope.provider: there is no",
    ),
    ("[budgets.a]\nlimit_usd = \"1\"\nwindow = \"day\"\nscope.teem = \"m\"", "budgets.a.scope"),
    ("[budgets.a]\nlimit_usd = \"1\"\nwindow = \"day\"\naction = \"explode\"", "budgets.a.action: "),
    (
        "[budgets.a]\nlimit_usd = \"1\"\nwindow = \"day\"\nraise.by_usd = \"1\"",
        "budgets.a.raise.until: missing",
    ),
    (
        "[budgets.a]\nlimit_usd = \"1\"\nwindow = \"day\"\n[budgets.b]\nlimit_usd = \"2\"\nwindow = \"day\"",
        "budgets.b: counts the same money in the same windows as the budget a",
    ),
    ("[log]\nlevel = \"tunegate=loud\"", "log.level: \"tunegate=loud\" is no log filter"),
    ("[log]\nformat = \"xml\"", "log.format: "),
    ("[worker]\nname = \"a b\"", "worker.name: a name has 1 to 64"),
    ("[worker]\nmax_batch = 0", "worker.max_batch: 0 is out of bounds"),
    ("[providers.local]\nkind = \"openai\"", "providers.local: taken by the local worker"),
    ("[models.smollm2-135m]\ndeployments = [\"x\"]", "models.smollm2-135m: taken by the local worker"),
    ("[providers.\"a/b\"]\nkind = \"openai\"", "providers.\"a/b\": a name has 1 to 64"),
    ("[providers.a]", "providers.a.kind: missing"),
    ("[providers.a]\nkind = \"openai\"\napi = \"v1\"", "providers.a.api: only for kind = \"azure\""),
    (
        "[providers.a]\nkind = \"openai\"\napi_version = \"x\"",
        "providers.a.api_version: only for kind = \"azure\"",
    ),
    ("[providers.a]\nkind = \"candle\"", "providers.a.base_url: missing"),
    (
        "[providers.a]\nkind = \"candle\"\nbase_url = \"unix:/x\"\nproject = \"p\"",
        "providers.a.project: only for",
    ),
    ("[providers.a]\nkind = \"openai\"\nbase_url = \"https://u:p@h\"", "providers.a.base_url: no user"),
    ("[providers.a]\nkind = \"openai\"\nbase_url = \"unix:/x\"", "providers.a.base_url: the scheme is"),
    ("[providers.a]\nkind = \"openai\"\nca_file = \"/nowhere\"", "providers.a.ca_file: can't read"),
    (
        "[providers.a]\nkind = \"openai\"\nbase_url = \"http://h\"\nca_file = \"/nowhere\"",
        "providers.a.ca_file: base_url",
    ),
    ("[providers.a]\nkind = \"openai\"\norganization = \"a b\"", "providers.a.organization: empty, or holds"),
    (
        "[providers.a]\nkind = \"openai\"\ntimeouts.total_ms = 10",
        "providers.a.timeouts.connect_ms: 5000 ms is longer",
    ),
    ("[providers.a]\nkind = \"openai\"\ntimeouts.total_ms = 0", "providers.a.timeouts.total_ms: 0 ms"),
    (
        "[providers.a]\nkind = \"openai\"\ndrain_ms = 9999999",
        "providers.a.drain_ms: 9999999 is out of bounds",
    ),
    ("[providers.a]\nkind = \"azure\"", "providers.a.base_url: missing"),
    ("[providers.a]\nkind = \"azure\"", "providers.a.api_key: missing: Azure needs"),
    ("[providers.a]\nkind = \"azure\"\napi = \"classic\"", "providers.a.api_version: missing"),
    (
        "[providers.a]\nkind = \"azure\"\napi_key.env = \"KEY\"\nentra = {}",
        "providers.a: api_key and entra contradict",
    ),
    ("[providers.a]\nkind = \"azure\"\nentra = {}", "providers.a.entra.kind: missing"),
    (
        "[providers.a]\nkind = \"azure\"\nentra = { kind = \"client_secret\" }",
        "providers.a.entra.tenant_id: missing",
    ),
    (
        "[providers.a]\nkind = \"azure\"\nentra = { kind = \"client_secret\" }",
        "providers.a.entra.client_secret: missing",
    ),
    ("[providers.a]\nkind = \"azure\"\nentra = { kind = \"token_file\" }", "providers.a.entra.path: missing"),
    (
        "[providers.a]\nkind = \"azure\"\nentra = { kind = \"token_file\", client_id = \"x\" }",
        "providers.a.entra.client_id: means nothing",
    ),
    (
        "[providers.a]\nkind = \"azure\"\nentra = { kind = \"client_secret\", authority = \"http://evil\" }",
        "providers.a.entra.authority: needs https",
    ),
    (
        "[providers.a]\nkind = \"openai\"\ntraining.models = [\"a*b\"]",
        "providers.a.training.models[0]: a pattern has one `*`, at its end",
    ),
    (
        "[providers.a]\nkind = \"openai\"\ntraining.models = [\"a\", \"a\"]",
        "providers.a.training.models[1]: a is listed twice",
    ),
    (
        "[providers.a]\nkind = \"openai\"\ntraining.models = [\"\"]",
        "providers.a.training.models[0]: the name of a base model stands here",
    ),
    (
        "[providers.a]\nkind = \"openai\"\ntraining.resource = \"r\"",
        "providers.a.training.resource: only for kind = \"azure\"",
    ),
    (
        "[providers.a]\nkind = \"openai\"\ntraining.tokens_per_second = 1",
        "providers.a.training.tokens_per_second: only for kind = \"candle\"",
    ),
    (
        "[providers.a]\nkind = \"candle\"\ntraining.tokens_per_second = 0",
        "providers.a.training.tokens_per_second: 0 is out of bounds",
    ),
    (
        "[providers.a]\nkind = \"azure\"\ntraining.resource = \"a/b\"",
        "providers.a.training.resource: the resource's name has 1 to 64",
    ),
    (
        "[providers.a]\nkind = \"azure\"\ntraining.training_type = \"cheap\"",
        "providers.a.training.training_type: \"cheap\" is no type of training",
    ),
    (
        "[providers.a]\nkind = \"azure\"\ntraining.arm = {}",
        "providers.a.training.arm.subscription_id: missing",
    ),
    (
        "[providers.a]\nkind = \"azure\"\ntraining.arm = {}",
        "providers.a.training.arm.resource_group: missing",
    ),
    ("[providers.a]\nkind = \"azure\"\ntraining.arm = {}", "providers.a.training.arm.account: missing"),
    ("[providers.a]\nkind = \"azure\"\ntraining.arm = {}", "providers.a.training.arm.entra: missing"),
    (
        "[providers.a]\nkind = \"azure\"\nentra = { kind = \"token_file\", path = \"/x\" }\ntraining.arm = {}",
        "providers.a.training.arm.entra: missing: the token in the provider's file",
    ),
    (
        "[providers.a]\nkind = \"azure\"\ntraining.arm = { account = \"a/../b\" }",
        "providers.a.training.arm.account: holds characters",
    ),
    (
        "[providers.a]\nkind = \"azure\"\ntraining.arm = { endpoint = \"http://evil\" }",
        "providers.a.training.arm.endpoint: needs https",
    ),
    (
        "[providers.a]\nkind = \"azure\"\ntraining.arm = { poll_ms = 1 }",
        "providers.a.training.arm.poll_ms: 1 is out of bounds",
    ),
    (
        "[tuning]\nmoderate = true\n[providers.a]\nkind = \"azure\"",
        "tuning.moderate: needs a provider of kind \"openai\"",
    ),
    ("[evaluations]\nat_once = 0", "evaluations.at_once: 0 is out of bounds: 1 to 8"),
    ("[tuning]\nidle_after_hours = 0", "tuning.idle_after_hours: 0 is out of bounds: 1 to 360"),
    ("[deployments.d]\nmodel = \"m\"", "deployments.d.provider: missing"),
    (
        "[deployments.d]\nprovider = \"local\"\nmodel = \"m\"\nhosted_from = \"soon\"",
        "deployments.d.hosted_from: ",
    ),
    (
        "[deployments.d]\nprovider = \"local\"\nmodel = \"m\"\nhosted_until = \"2026-11-01\"",
        "deployments.d.hosted_from: missing",
    ),
    (
        "[deployments.d]\nprovider = \"local\"\nmodel = \"m\"\nhosted_from = \"2026-11-02\"\n\
         hosted_until = \"2026-11-01\"",
        "deployments.d.hosted_until: not behind hosted_from",
    ),
    (
        "[deployments.d]\nprovider = \"local\"\nmodel = \"*\"\nhosted_from = \"2026-11-02\"",
        "deployments.d.hosted_from: behind a `*`",
    ),
    ("[deployments.d]\nprovider = \"local\"\nmodel = \"m\"\nsku = \"\"", "deployments.d.sku: empty"),
    ("[deployments.d]\nprovider = \"p\"", "deployments.d.model: missing"),
    (
        "[deployments.d]\nprovider = \"p\"",
        "deployments.d.provider: there is no [providers.p]: there is local",
    ),
    ("[deployments.d]\nprovider = \"local\"\nmodel = \"*-*\"", "deployments.d.model: more than one"),
    (
        "[deployments.d]\nprovider = \"local\"\nendpoints = [\"chat\"]",
        "deployments.d.endpoints[0]: \"chat\" is no",
    ),
    ("[deployments.d]\nprovider = \"local\"\nendpoints = []", "deployments.d.endpoints: an empty list"),
    (
        "[deployments.d]\nprovider = \"local\"\nmax_output_tokens = 0",
        "deployments.d.max_output_tokens: 0 is out",
    ),
    (
        "[deployments.d]\nprovider = \"local\"\ndefault_output_tokens = 0",
        "deployments.d.default_output_tokens: 0 is out",
    ),
    (
        "[deployments.d]\nprovider = \"local\"\nmax_output_tokens = 7\ndefault_output_tokens = 8",
        "deployments.d.default_output_tokens: 8 is more than max_output_tokens, 7",
    ),
    (
        "[deployments.d]\nprovider = \"local\"\nmodel = \"m\"\nprice = { input_per_1m_usd = 2.5 }",
        "deployments.d.price.input_per_1m_usd: an amount is written as text",
    ),
    (
        "[deployments.d]\nprovider = \"local\"\nmodel = \"m\"\nprice_model = \"x\"\nprice = {}",
        "deployments.d.price_model: contradicts `price`",
    ),
    (
        "[providers.a]\nkind = \"openai\"\n[deployments.d]\nprovider = \"a\"\nmodel = \"gpt-4o\"\n\
         price = { input_per_1k_usd = \"1\", output_per_1k_usd = \"1\" }",
        "deployments.d.price: 1000.00 USD per 1M tokens of input is far from the 2.50 USD",
    ),
    ("[worker]\nprice = { input_per_1m_usd = \"1\" }", "worker.price: output_per_1m_usd: missing"),
    ("[prices]\non_unpriced = \"free\"", "prices.on_unpriced: "),
    ("[prices]\non_unpriced = \"cap\"", "prices.cap_price: missing"),
    ("[prices]\ncap_price = \"gpt-4\"", "prices.cap_price: means nothing"),
    ("[prices]\non_unpriced = \"cap\"\ncap_price = \"no-such\"", "prices.cap_price: no price is known"),
    ("[prices]\nfile = \"/nowhere/prices.toml\"", "prices.file: /nowhere/prices.toml: can't be read"),
    ("[models.m]", "models.m.deployments: missing"),
    ("[models.m]\ndeployments = [\"d\"]", "models.m.deployments[0]: there is no [deployments.d]"),
    (
        "[models.m]\ndeployments = [\"smollm2-135m\", \"smollm2-135m\"]",
        "models.m.deployments[1]: smollm2-135m is listed twice",
    ),
    (
        "[models.\"a*b\"]\ndeployments = [\"smollm2-135m\"]",
        "models.\"a*b\": a pattern has one `*`, at its end",
    ),
    (
        "[models.\"a**\"]\ndeployments = [\"smollm2-135m\"]",
        "models.\"a**\": a pattern has one `*`, at its end",
    ),
    ("[models.\"\"]\ndeployments = [\"smollm2-135m\"]", "models.\"\": a model name can't be empty"),
    (
        "[deployments.d]\nprovider = \"local\"\nmodel = \"*\"\n[models.m]\ndeployments = [\"d\"]",
        "models.m.deployments[0]: d needs what a pattern's `*` matched",
    ),
    ("[limits]\nmax_in_flight = 0", "limits.max_in_flight: 0 is out of bounds: 1 to"),
    (
        "[limits]\nmax_body_bytes_in_flight = 1048576",
        "limits.max_body_bytes_in_flight: less than server.max_body_bytes (33554432)",
    ),
    (
        "[models.m]\nlimits = { requests_per_minute = 0 }",
        "models.m.limits.requests_per_minute: 0 is out of bounds: 1 to",
    ),
    ("[models.m]\nlimits = { rpm = 1 }", "models.m.limits.rpm: unknown key"),
    ("[models.m]\ncache = { ttl_s = 0 }", "models.m.cache.ttl_s: 0 is out of bounds: 1 to 2678400"),
    ("[models.m]\ncache = { ttl = 1 }", "models.m.cache.ttl: unknown key"),
    ("[models.m]\ncache = { scope = \"all\" }", "models.m.cache.scope: "),
    ("[models.m]\ncache = { joiners = \"pay\" }", "models.m.cache.joiners: "),
    (
        "[models.m]\ncache = { semantic = { threshold = 0.4 } }",
        "models.m.cache.semantic.threshold: 0.4 is out of bounds: 0.5 to 1",
    ),
    (
        "[models.m]\ncache = { semantic = {} }\n[worker]\nembedding_model = \"\"",
        "models.m.cache.semantic: needs the local worker and its worker.embedding_model",
    ),
    ("[models.m]\ncapture = { sample = 0.0 }", "models.m.capture.sample: 0 is out of bounds: 0.000001 to 1"),
    ("[models.m]\ncapture = { sample = 1.1 }", "models.m.capture.sample: 1.1 is out of bounds"),
    (
        "[models.m]\ncapture = { retention_days = 400 }",
        "models.m.capture.retention_days: 400 is out of bounds: 1 to 366",
    ),
    ("[models.m]\ncapture = { max_rows = 0 }", "models.m.capture.max_rows: 0 is out of bounds: 1 to 1000000"),
    ("[models.m]\ncapture = { max_row_bytes = 10 }", "models.m.capture.max_row_bytes: 10 is out of bounds"),
    ("[models.m]\ncapture = { deployments = [] }", "models.m.capture.deployments: names none"),
    ("[models.m]\ncapture = { rate = 1 }", "models.m.capture.rate: unknown key"),
    ("[models.m]\nprompt = {}", "models.m.prompt.name: "),
    ("[models.m]\nprompt = { name = \"a b\" }", "models.m.prompt.name: a b is no NAME, NAME@LABEL"),
    ("[models.m]\nprompt = { name = \"a\", mode = \"after\" }", "models.m.prompt.mode: "),
    ("[models.m]\nprompt = { prompt = \"a\" }", "models.m.prompt.prompt: unknown key"),
    (
        "[models.m]\ndeployments = [\"smollm2-135m\"]\nlabel_prompts = { x = { name = \"a\" } }",
        "models.m.label_prompts.x: there is no label x",
    ),
    ("[deployments.d]\nprompt = { name = \"\" }", "deployments.d.prompt.name: "),
    (
        "[deployments.d]\ntrained_with = {}",
        "deployments.d.trained_with: exactly one of sha256, file and prompt",
    ),
    ("[deployments.d]\ntrained_with = { sha256 = \"ab\" }", "deployments.d.trained_with.sha256: no SHA-256"),
    (
        "[deployments.d]\ntrained_with = { file = \"/nowhere/train.jsonl\" }",
        "deployments.d.trained_with.file: /nowhere/train.jsonl: ",
    ),
    (
        "[deployments.d]\ntrained_with = { prompt = \"x@\" }",
        "deployments.d.trained_with.prompt: x@ is no NAME",
    ),
    (
        "[providers.o]\nkind = \"openai\"\napi_key.env = \"KEY\"\n[deployments.d]\nprovider = \"o\"\nmodel = \"m\"\n\
         unsupported = [\"instructions\"]\non_unsupported = \"drop\"\nprompt = { name = \"a\" }",
        "deployments.d.prompt: its words would be left out",
    ),
    (
        "[providers.o]\nkind = \"openai\"\napi_key.env = \"KEY\"\n[deployments.d]\nprovider = \"o\"\nmodel = \"m\"\n\
         unsupported = [\"instructions\"]\non_unsupported = \"drop\"\n\
         [models.m]\ndeployments = [\"d\"]\nprompt = { name = \"a\" }",
        "models.m.prompt: on the deployment d, its words would be left out",
    ),
    ("[deployments.d]\nmodel_version = \"\"", "deployments.d.model_version: a text of 1 to 128 bytes"),
    ("[teams.other]", "teams.other: \"other\" and \"none\" are labels of metrics"),
    (
        "[budgets.none]\nlimit_usd = \"1\"\nwindow = \"day\"",
        "budgets.none: \"other\" and \"none\" are labels of metrics",
    ),
    ("[teams.\"a b\"]", "teams.\"a b\": a name has 1 to 64"),
    (
        "[teams.team_a]",
        "teams.team_a: a name has 1 to 64 of A-Z a-z 0-9 . _ -, and does not start with team_",
    ),
    ("[teams.a]\ntags = [\"x\", \"a b\"]", "teams.a.tags[1]: a tag has 1 to 64"),
    ("[teams.a]\nlimits = { concurrent = 0 }", "teams.a.limits.concurrent: 0 is out of bounds"),
    ("[server\nlisten", "the file: TOML parse error at line 1"),
];

#[test]
fn every_mistake_is_said() {
    let environment = variables(&[("KEY", "k"), ("SHORT", "x"), ("BLANK", " "), ("BROKEN", "a\nb")]);
    for (text, line) in MISTAKES {
        let error = load_text(text, &environment).expect_err(text).to_string();
        assert!(
            error.lines().any(|found| found.trim().starts_with(line)),
            "{text}\nshould say\n{line}\nbut says\n{error}"
        );
    }
}

#[test]
fn all_mistakes_are_said_at_once() {
    let error = load_text(
        "[server]\nlisten = \"x\"\nthreds = 1\n[providers.a]\nkind = \"azure\"\n[models.m]\ndeployments = [\"d\"]",
        &Variables::new(),
    )
    .expect_err("five mistakes");
    let places: Vec<&str> = error.problems.iter().map(|problem| problem.place.as_str()).collect();
    let want = [
        "models.m.deployments[0]",
        "providers.a.api_key",
        "providers.a.base_url",
        "server.listen",
        "server.threds",
    ];
    assert_eq!(places, want);
}

#[test]
fn what_works_but_should_be_known() {
    let environment = [("KEY", "0123456789abcdef"), ("K", "k")];
    for (text, notice) in [
        ("[server]\nh2c_listen = \"10.0.0.1:1\"", "server.h2c_listen: 10.0.0.1:1 speaks plain-text"),
        ("[providers.a]\nkind = \"openai\"", "providers.a.api_key: not set, but OpenAI"),
        (
            "[providers.a]\nkind = \"openai\"\nbase_url = \"http://h/v1\"\napi_key.env = \"K\"",
            "providers.a.base_url: the key",
        ),
        ("[deployments.d]\nprovider = \"local\"\nmodel = \"m\"", "deployments.d: no model leads here"),
        (
            "[models.m]\ndeployments = [\"smollm2-135m\"]\ncache = {}",
            "models.m.cache: only requests with temperature 0 are kept",
        ),
        (
            "[deployments.d]\nprovider = \"local\"\nmodel = \"m\"\nreasoning = true\n\
             [models.m]\nplan = \"d\"\ncache = {}",
            "models.m.cache: it can never hit",
        ),
        (
            "[models.m]\ndeployments = [\"smollm2-135m\"]\ncache = { scope = \"shared\" }",
            "models.m.cache.scope: what one team asked",
        ),
        (
            "[models.m]\ndeployments = [\"smollm2-135m\"]\ncapture = { mask = false }",
            "models.m.capture.mask: personal data",
        ),
        (
            "[models.m]\ndeployments = [\"smollm2-135m\"]\ncapture = { deployments = [\"later\"] }",
            "models.m.capture.deployments[0]: there is no deployment later in this file",
        ),
    ] {
        let config = good(text, &environment);
        assert!(config.notices.iter().any(|found| found.starts_with(notice)), "{text}: {:?}", config.notices);
    }
    good("[admin]\nlisten = \"0.0.0.0:8081\"\nkey.env = \"KEY\"", &environment);
}
