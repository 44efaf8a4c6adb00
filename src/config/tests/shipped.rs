//! The files that we ship.

use std::path::Path;

use serde::de::{self, Deserialize, Visitor};

use crate::domain::budget::Scope;
use crate::domain::budget::draft::{Draft, DraftRaise};
use crate::domain::catalog::{Address, Deployment, Provider};
use crate::domain::retirement::retirement_of;

use super::*;

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
        fields::<file::Training>(),
        fields::<file::Arm>(),
        fields::<file::Timeouts>(),
        fields::<file::Deployment>(),
        fields::<file::Queue>(),
        fields::<file::Breaker>(),
        fields::<file::Model>(),
        fields::<file::ModelCache>(),
        fields::<file::ModelCapture>(),
        fields::<file::Injection>(),
        fields::<file::TrainedWith>(),
        fields::<file::ModelSemantic>(),
        fields::<file::Cache>(),
        fields::<file::Retry>(),
        fields::<file::Limits>(),
        fields::<file::RateLimits>(),
        fields::<file::Team>(),
        fields::<file::Routing>(),
        fields::<file::Retirements>(),
        fields::<file::Ledger>(),
        fields::<file::Alerts>(),
        fields::<file::Tracing>(),
        fields::<file::Tuning>(),
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
fn prices_and_retirements_say_the_same_of_fine_tunes() {
    let text = fs::read_to_string(shipped("prices.toml")).expect("there");
    let sheet = crate::config::read::tree(&text).expect("TOML");
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
