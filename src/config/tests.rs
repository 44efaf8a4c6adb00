use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{self, Deserialize, Visitor};

use crate::domain::budget::Scope;
use crate::domain::budget::draft::{Draft, DraftRaise};
use crate::domain::catalog::{
    Address, AzureClassic, AzureV1, Credential, Deployment, Dialect, Entra, OnClientGone, OnUnpriced, Pricing,
};
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::ModelName;
use crate::domain::money::PerToken;
use crate::domain::price::rates::Class;
use crate::domain::retirement::retirement_of;

use super::*;

type Variables = BTreeMap<String, String>;

/// A worker would stand in the way where it is not the subject.
const NO_WORKER: &str = "[worker]\nenabled = false\n";

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_text(text: &str, variables: &Variables) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tunegate.toml");
    fs::write(&path, text).expect("written");
    load(Some(&path), variables)
}

fn good(text: &str, pairs: &[(&str, &str)]) -> Config {
    load_text(text, &variables(pairs)).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn resolve(config: &Config, asked: &str) -> Option<(Arc<str>, Arc<str>, String)> {
    let found = config.catalog.resolve(&ModelName::parse(asked).expect("a name"))?;
    let deployment = &found.route.deployments[0];
    let upstream = found.upstream_model(deployment).to_string();
    Some((Arc::clone(&deployment.provider.name), Arc::clone(&deployment.name), upstream))
}

fn shipped(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn shipped_files_load() {
    let keys = variables(&[("OPENAI_API_KEY", "sk-x"), ("AZURE_OPENAI_API_KEY", "k")]);
    let full = load(Some(&shipped("full.toml")), &keys).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(full.catalog.providers.len(), 4, "three, and the worker's");
    assert_eq!(resolve(&full, "support-bot").expect("found").1.as_ref(), "support-v3");
    assert_eq!(resolve(&full, "openai/gpt-4.1").expect("found").2, "gpt-4.1");
    let smallest =
        load(Some(&shipped("tunegate.toml")), &Variables::new()).unwrap_or_else(|error| panic!("{error}"));
    let built_in = load(None, &Variables::new()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(Config { source: None, ..smallest }, built_in, "the smallest file says what is built in");
}

#[test]
fn the_full_file_shows_the_defaults() {
    let keys = variables(&[("OPENAI_API_KEY", "sk-x"), ("AZURE_OPENAI_API_KEY", "k")]);
    let full = load(Some(&shipped("full.toml")), &keys).unwrap_or_else(|error| panic!("{error}"));
    let built_in = load(None, &Variables::new()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(restart_needed(&full, &built_in), Vec::<String>::new());
    let (full, plain) =
        (&full.catalog.deployments["support-v3"], &built_in.catalog.deployments["smollm2-135m"]);
    assert_eq!(
        (full.timeouts, full.drain, full.on_client_gone),
        (plain.timeouts, plain.drain, plain.on_client_gone)
    );
}

#[test]
fn every_key_is_in_the_full_file() {
    let text = fs::read_to_string(shipped("full.toml")).expect("there");
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let structs = [
        fields::<file::File>(),
        fields::<file::Server>(),
        fields::<file::Tls>(),
        fields::<file::Admin>(),
        fields::<file::State>(),
        fields::<file::Database>(),
        fields::<file::Log>(),
        fields::<file::Worker>(),
        fields::<file::Prices>(),
        fields::<file::SecretSource>(),
        fields::<file::Provider>(),
        fields::<file::Entra>(),
        fields::<file::Timeouts>(),
        fields::<file::Deployment>(),
        fields::<file::Model>(),
        fields::<file::Limits>(),
        fields::<file::RateLimits>(),
        fields::<file::Team>(),
        fields::<file::Ledger>(),
        fields::<file::Alerts>(),
        fields::<file::Retirements>(),
        fields::<Draft>(),
        fields::<DraftRaise>(),
        fields::<Scope>(),
    ];
    for field in structs.into_iter().flatten() {
        assert!(words.contains(field), "{field} is not in full.toml");
    }
}

/// The names of a struct's fields, as serde knows them.
fn fields<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Spy<'a>(&'a mut &'static [&'static str]);
    impl<'de> de::Deserializer<'de> for Spy<'_> {
        type Error = de::value::Error;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("only structs"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(de::Error::custom("seen"))
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut found: &'static [&'static str] = &[];
    assert!(T::deserialize(Spy(&mut found)).is_err() && !found.is_empty());
    found
}

#[test]
fn without_a_file_there_is_one_local_worker() {
    let config = load(None, &Variables::new()).unwrap_or_else(|error| panic!("{error}"));
    for asked in ["smollm2-135m", "local/smollm2-135m"] {
        let (provider, deployment, upstream) = resolve(&config, asked).expect(asked);
        assert_eq!((&*provider, &*deployment, &*upstream), ("local", "smollm2-135m", "smollm2-135m"));
    }
    assert_eq!(resolve(&config, "gpt-4.1"), None);
    let provider = &config.catalog.providers["local"];
    assert_eq!(provider.address, Address::Unix("./var/worker.sock".into()));
    assert_eq!((&provider.dialect, &*provider.base_path), (&Dialect::Candle, "/v1"));
    let worker = config.worker.expect("one worker");
    assert_eq!((worker.max_batch, worker.queue), (8, 32));
    assert!(worker.threads >= 1 && config.http.threads >= 1);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.admin_listen.to_string(), "127.0.0.1:8081");
}

#[test]
fn the_environment_brings_openai_and_azure() {
    let openai = [("OPENAI_API_KEY", "sk-x")];
    let azure = [("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com/"), ("AZURE_OPENAI_API_KEY", "k")];
    let both = [openai[0], azure[0], azure[1], ("OPENAI_API_VERSION", "2024-10-21")];
    for (pairs, asked, want) in [
        (&openai[..], "gpt-4.1", Some(("openai", "gpt-4.1"))),
        (&openai[..], "openai/gpt-4.1", Some(("openai", "gpt-4.1"))),
        (&openai[..], "smollm2-135m", Some(("local", "smollm2-135m"))),
        (&azure[..], "support", Some(("azure", "support"))),
        (&azure[..], "azure/support", Some(("azure", "support"))),
        (&azure[..1], "support", None),
        (&both[..], "gpt-4.1", Some(("openai", "gpt-4.1"))),
        (&both[..], "azure/support", Some(("azure", "support"))),
    ] {
        let config = load(None, &variables(pairs)).unwrap_or_else(|error| panic!("{error}"));
        let found = resolve(&config, asked).map(|(provider, _, upstream)| (provider.to_string(), upstream));
        assert_eq!(
            found,
            want.map(|(provider, upstream)| (provider.to_owned(), upstream.to_owned())),
            "{asked}"
        );
    }
    let dialect = |pairs: &[(&str, &str)]| {
        load(None, &variables(pairs)).unwrap_or_else(|e| panic!("{e}")).catalog.providers["azure"]
            .dialect
            .clone()
    };
    assert_eq!(dialect(&azure), Dialect::AzureV1(AzureV1 { api_version: None }));
    assert_eq!(dialect(&both), Dialect::AzureClassic(AzureClassic { api_version: "2024-10-21".to_owned() }));
    let config = good(
        &format!("{NO_WORKER}[providers.x]\nkind = \"openai\"\napi_key.env = \"K\""),
        &[both[0], ("K", "k")],
    );
    assert_eq!(config.catalog.providers.len(), 1, "declared providers keep the environment's out");
}

#[test]
fn an_openai_base_url_that_leads_to_us_is_not_followed() {
    for (base_url, host) in [
        ("http://127.0.0.1:8080/v1", "api.openai.com"),
        ("http://localhost:8080/v1", "api.openai.com"),
        ("http://127.0.0.1:9090/v1", "127.0.0.1"),
        ("", "api.openai.com"),
    ] {
        let config = load(None, &variables(&[("OPENAI_API_KEY", "sk-x"), ("OPENAI_BASE_URL", base_url)]))
            .unwrap_or_else(|error| panic!("{error}"));
        let Address::Host { host: found, .. } = &config.catalog.providers["openai"].address else {
            panic!("a host")
        };
        assert_eq!(found, host, "{base_url}");
    }
    let error = load(None, &variables(&[("OPENAI_API_KEY", "sk-x"), ("OPENAI_BASE_URL", "api.openai.com")]));
    assert!(error.expect_err("no URL").to_string().contains("OPENAI_BASE_URL: no URL"));
}

#[test]
fn a_key_of_our_own_is_not_shown_to_openai() {
    let ours = ("OPENAI_API_KEY", "sk-tg-0123456789");
    let config = load(None, &variables(&[ours])).unwrap_or_else(|error| panic!("{error}"));
    assert!(!config.catalog.providers.contains_key("openai"));
    assert!(config.notices.iter().any(|notice| notice.contains("tunegate's own")), "{:?}", config.notices);
    let behind_another = [ours, ("OPENAI_BASE_URL", "http://10.0.0.1:8080/v1")];
    let config = load(None, &variables(&behind_another)).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.catalog.providers.contains_key("openai"), "another tunegate may stand behind us");
    let text = format!("{NO_WORKER}[providers.x]\nkind = \"openai\"\napi_key.env = \"OPENAI_API_KEY\"");
    let error = load_text(&text, &variables(&[ours])).expect_err("written out");
    assert!(error.to_string().contains("providers.x.api_key: a key of tunegate's own"), "{error}");
}

#[test]
fn deployments_take_their_manners_from_the_provider() {
    let config = good(
        &format!(
            "{NO_WORKER}
            [providers.p]
            kind = \"openai\"
            base_url = \"http://127.0.0.1:1/v1\"
            on_client_gone = \"drain\"
            timeouts = {{ connect_ms = 1000, total_ms = 9000 }}
            [deployments.a]
            provider = \"p\"
            model = \"o4-mini\"
            [deployments.b]
            provider = \"p\"
            model = \"m\"
            base_model = \"gpt-4.1\"
            endpoints = [\"embeddings\"]
            max_output_tokens = 7
            default_output_tokens = 5
            on_client_gone = \"abort\"
            drain_ms = 0
            timeouts.total_ms = 5000
            [models.m]
            deployments = [\"a\", \"b\"]"
        ),
        &[],
    );
    let (a, b) = (&config.catalog.deployments["a"], &config.catalog.deployments["b"]);
    let seconds = Duration::from_secs;
    assert_eq!(
        (a.timeouts.connect, a.timeouts.total, a.timeouts.first_byte),
        (seconds(1), seconds(9), seconds(600))
    );
    assert_eq!((b.timeouts.connect, b.timeouts.total), (seconds(1), seconds(5)));
    assert_eq!((a.on_client_gone, b.on_client_gone), (OnClientGone::Drain, OnClientGone::Abort));
    assert_eq!((a.drain, b.drain), (seconds(30), Duration::ZERO));
    assert_eq!((a.reasoning, b.reasoning), (true, false));
    assert_eq!((a.endpoints.len(), b.endpoints.as_slice()), (5, &[Endpoint::Embeddings][..]));
    assert_eq!((a.max_output_tokens, b.max_output_tokens), (None, Some(7)));
    assert_eq!((a.default_output_tokens, b.default_output_tokens), (4_096, 5));
    assert_eq!(b.model_identity(), "gpt-4.1");
}

#[test]
fn entra_of_each_kind() {
    let entra = |inner: &str| {
        let text = format!(
            "{NO_WORKER}[providers.a]\nkind = \"azure\"\nbase_url = \"https://r.openai.azure.com\"\nentra = {{ {inner} }}"
        );
        match &good(&text, &[("S", "s3cret")]).catalog.providers["a"].credential {
            Credential::Entra(entra) => entra.clone(),
            other => panic!("{other:?}"),
        }
    };
    let Entra::ClientSecret { authority, scope, client_secret, .. } = entra(
        "kind = \"client_secret\", tenant_id = \"t\", client_id = \"c\", client_secret = { env = \"S\" }",
    ) else {
        panic!("a client secret")
    };
    assert_eq!(authority, "https://login.microsoftonline.com");
    assert_eq!(scope, "https://cognitiveservices.azure.com/.default");
    assert_eq!(client_secret.expose(), "s3cret");
    assert!(matches!(
        entra("kind = \"federated_token_file\", tenant_id = \"t\", client_id = \"c\", token_file = \"/x\""),
        Entra::FederatedTokenFile { .. }
    ));
    assert!(matches!(entra("kind = \"managed_identity\""), Entra::ManagedIdentity { client_id: None, .. }));
    assert!(matches!(entra("kind = \"token_file\", path = \"/x\""), Entra::TokenFile { .. }));
}

#[test]
fn prices_of_deployments_are_read_and_looked_at() {
    let text = format!(
        "{NO_WORKER}
        [providers.p]
        kind = \"openai\"
        base_url = \"http://127.0.0.1:1/v1\"
        [deployments.a]
        provider = \"p\"
        model = \"mine\"
        price = {{ input_per_1m_usd = \"1\", output_per_1k_usd = \"0.002\" }}
        [deployments.b]
        provider = \"p\"
        model = \"yours\"
        price_model = \"gpt-4o\"
        [deployments.c]
        provider = \"p\"
        model = \"theirs\"
        on_unpriced = \"cap\"
        cap_price = \"gpt-4\"
        [deployments.d]
        provider = \"p\"
        model = \"ours\"
        [models.m]
        deployments = [\"a\", \"b\", \"c\", \"d\"]"
    );
    let config = good(&text, &[]);
    let of = |name: &str| &config.catalog.deployments[name];
    let Pricing::Explicit { price, version } = &of("a").pricing else { panic!("written out") };
    assert_eq!(price.tokens.standard().of(Class::Output).per_million(), "2.00");
    assert!(version.starts_with("config:a~") && version.len() == "config:a~01234567".len(), "{version}");
    assert_eq!(of("b").pricing, Pricing::Row("gpt-4o".into()));
    assert_eq!(of("c").on_unpriced, OnUnpriced::Cap("gpt-4".into()));
    let notices = config.notices.join("\n");
    assert!(
        notices.contains("deployments.c: its price: no price is known; the cap price is used"),
        "{notices}"
    );
    assert!(
        notices.contains("deployments.d: its requests are refused: no price is known for \"ours\""),
        "{notices}"
    );
    let built_in = good("", &[]);
    let Pricing::Explicit { price, .. } = &built_in.catalog.deployments["smollm2-135m"].pricing else {
        panic!("the worker's price is written out")
    };
    assert_eq!(price.tokens.standard().of(Class::Input), PerToken::FREE);
}

#[test]
fn a_price_file_replaces_the_built_in_one_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("prices.toml");
    let text = format!("[prices]\nfile = {:?}", path.display().to_string());
    let row = "[[models]]\nprovider = \"openai\"\nmodel = \"m\"\n[[models.periods]]\n";
    fs::write(
        &path,
        format!("version = \"ours\"\n{row}input_per_1m_usd = \"1\"\noutput_per_1m_usd = \"2\"\n"),
    )
    .expect("written");
    let config = good(&text, &[]);
    assert!(config.prices.version.starts_with("ours~"), "{}", config.prices.version);
    assert_eq!(config.prices.rows.len(), 1);
    for (content, said) in [
        (
            format!("version = \"ours\"\n{row}input_per_1m_usd = 1.5\n"),
            "models[0].periods[0].input_per_1m_usd: an",
        ),
        ("version = \"ours\"\n[[models]".to_owned(), "TOML parse error"),
        (row.to_owned(), "version: missing"),
    ] {
        fs::write(&path, content).expect("written");
        let error = load_text(&text, &Variables::new()).expect_err(said).to_string();
        assert!(error.contains("prices.file: ") && error.contains(said), "{error}");
    }
}

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
    ("[retirements]\npoll_ms = 10", "retirements.poll_ms: 10 is out of bounds: 1000 to 86400000"),
    ("[retirements]\nlead_ms = 999999999999", "retirements.lead_ms: 999999999999 is out of bounds"),
    ("[retirements]\nwarn_days = 99999", "retirements.warn_days: 99999 is out of bounds: 0 to 3660"),
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
    ("[deployments.d]\nmodel = \"m\"", "deployments.d.provider: missing"),
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
    ] {
        let config = good(text, &environment);
        assert!(config.notices.iter().any(|found| found.starts_with(notice)), "{text}: {:?}", config.notices);
    }
    good("[admin]\nlisten = \"0.0.0.0:8081\"\nkey.env = \"KEY\"", &environment);
}

#[test]
fn certificates_are_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, label: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("-----BEGIN {label}-----\nAA==\n-----END {label}-----\n")).expect("written");
        path.display().to_string()
    };
    let (cert, key) = (write("tls.crt", "CERTIFICATE"), write("tls.key", "EC PRIVATE KEY"));
    let config = good(&format!("[server]\ntls = {{ cert_file = {cert:?}, key_file = {key:?} }}"), &[]);
    assert_eq!(config.http.tls.expect("both").cert_file.display().to_string(), cert);
    let error = load_text(
        &format!("[server]\ntls = {{ cert_file = {key:?}, key_file = {cert:?} }}"),
        &Variables::new(),
    );
    assert_eq!(error.expect_err("swapped").problems.len(), 2);
}

#[test]
fn a_reload_says_what_only_a_restart_applies() {
    let old = good("", &[]);
    assert_eq!(restart_needed(&old, &good("[providers.a]\nkind = \"openai\"", &[])), Vec::<String>::new());
    let text = "[server]\nlisten = \"127.0.0.1:9\"\nsse_keepalive_ms = 5\n[admin]\nlisten = \"127.0.0.1:10\"\n\
                [state]\ndir = \"/x\"\n[log]\nlevel = \"debug\"\n[worker]\nqueue = 1\n\
                [limits]\nmax_in_flight = 5\n[teams.a]\n\
                [retirements]\npoll_ms = 0\nlead_ms = 0\nwarn_days = 0\n";
    let want = [
        "server.listen",
        "server.sse_keepalive_ms",
        "admin.listen",
        "state.dir",
        "log.level",
        "limits.max_in_flight",
        "retirements.poll_ms",
        "retirements.lead_ms",
        "retirements.warn_days",
        "worker.queue",
    ];
    assert_eq!(restart_needed(&old, &good(text, &[])), want);
    assert_eq!(restart_needed(&old, &good(NO_WORKER, &[])), ["worker.enabled"]);
}

#[test]
fn clients_of_the_control_plane_need_no_provider_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(usual_file(folder.path()), None);
    let path = folder.path().join("tunegate.toml");
    let mut text = String::from("[admin]\nlisten = \"127.0.0.1:7\"\n");
    write!(text, "[providers.a]\nkind = \"openai\"\napi_key.env = \"UNSET\"").expect("written");
    text.push_str("\nkidn = \"openai\"\n[server]\nthreads = \"many\"");
    fs::write(&path, text).expect("written");
    assert_eq!(usual_file(folder.path()), Some(path.clone()));
    let access = load_admin_access(Some(&path), &Variables::new()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((access.listen.port(), access.key, access.state_dir), (7, None, "./var".into()));
    for text in
        ["[admin]\nlisten = \"x\"", "[admin]\nlistn = \"x\"", "[state]\ndir = \"\"", "[admin", "state = 1"]
    {
        fs::write(&path, text).expect("written");
        let error = load_admin_access(Some(&path), &Variables::new()).expect_err(text);
        assert_eq!(error.problems.len(), 1, "{error}");
    }
    let missing = load(Some(&folder.path().join("other.toml")), &Variables::new()).expect_err("no such file");
    assert_eq!(missing.problems.len(), 1, "{missing}");
}

#[test]
fn prices_and_retirements_say_the_same_of_fine_tunes() {
    let text = fs::read_to_string(shipped("prices.toml")).expect("there");
    let sheet = super::read::tree(&text).expect("TOML");
    let plain = crate::domain::catalog::tests::deployment("d", "m");
    let address = Address::Host { host: "api.openai.com".to_owned(), port: 443, tls: true };
    let provider = Arc::new(Provider { address, ..(*plain.provider).clone() });
    let deployment = Deployment { provider, ..(*plain).clone() };
    let mut compared = 0;
    for row in sheet["models"].as_array().expect("rows") {
        let model = row["model"].as_str().expect("a name");
        let shutdown = row["periods"].as_array().and_then(|all| all.last()?["shutdown"].as_str());
        if let (true, Some(shutdown)) = (model.starts_with("ft:"), shutdown) {
            let found = retirement_of(&deployment, model, None).map(|retirement| retirement.day());
            assert_eq!(found.as_deref(), Some(shutdown), "{model}");
            compared += 1;
        }
    }
    assert!(compared >= 10, "only {compared} rows were compared");
}
