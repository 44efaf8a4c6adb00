//! Prices.

use crate::domain::catalog::{OnUnpriced, Pricing};
use crate::domain::money::{PerToken, Usd};
use crate::domain::price::rates::Class;

use super::*;

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
    let Pricing::Presumed { price, .. } = &built_in.catalog.deployments["smollm2-135m"].pricing else {
        panic!("nobody said what the worker costs")
    };
    assert_eq!(price.tokens.standard().of(Class::Input), PerToken::FREE);
}

#[test]
fn the_time_of_a_machine_is_priced_for_our_own_worker_alone() {
    let price = "price = { compute_per_hour_usd = \"0.36\" }";
    let hour = |config: &Config, name: &str| {
        let Pricing::Explicit { price, .. } = &config.catalog.deployments[name].pricing else {
            panic!("written out")
        };
        (price.terms.compute_hour, price.tokens.standard().of(Class::Output))
    };
    let of = |kind: &str| {
        format!(
            "{NO_WORKER}\n[providers.p]\nkind = \"{kind}\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
             [deployments.a]\nprovider = \"p\"\nmodel = \"mine\"\n{price}\n[models.m]\ndeployments = [\"a\"]"
        )
    };
    let cents = Some(Usd::from_nanos(360_000_000));
    assert_eq!(hour(&good(&of("candle"), &[]), "a"), (cents, PerToken::FREE));
    assert_eq!(hour(&good(&format!("[worker]\n{price}"), &[]), "smollm2-135m"), (cents, PerToken::FREE));
    let error = load_text(&of("openai"), &Variables::new()).expect_err("nobody is believed that").to_string();
    assert!(error.contains("deployments.a.price.compute_per_hour_usd: only for candle"), "{error}");
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
