//! What the environment brings, and what is there without a file.

use std::fmt::Write as _;

use crate::domain::catalog::{Address, AzureClassic, AzureV1, Dialect};
use crate::domain::endpoint::Endpoint;

use super::*;

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
fn the_workers_embedding_model_is_listed_where_it_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let section = |folder: &std::path::Path, more: &str| {
        format!(
            "[worker]\nembedding_model = {folder:?}\nprice = {{ input_per_1m_usd = \"1\", output_per_1m_usd = \"2\" }}\n{more}"
        )
    };
    let config = good(&section(folder.path(), ""), &[]);
    for asked in ["all-minilm-l6-v2", "local/all-minilm-l6-v2"] {
        let (provider, deployment, upstream) = resolve(&config, asked).expect(asked);
        assert_eq!((&*provider, &*deployment, &*upstream), ("local", "all-minilm-l6-v2", "all-minilm-l6-v2"));
    }
    let deployments = &config.catalog.deployments;
    let (vectors, words) = (&deployments["all-minilm-l6-v2"], &deployments["smollm2-135m"]);
    assert_eq!((&*vectors.endpoints, words.endpoints.len()), (&[Endpoint::Embeddings][..], 2));
    let embedding = config.worker.and_then(|worker| worker.embedding).expect("one");
    assert_eq!((&*embedding.folder, &*embedding.name), (folder.path(), "all-minilm-l6-v2"));

    let named = good(&section(folder.path(), "embedding_name = \"mini\""), &[]);
    assert!(resolve(&named, "local/mini").is_some() && resolve(&named, "all-minilm-l6-v2").is_none());

    let nowhere = good(&section("/nowhere".as_ref(), ""), &[]);
    assert_eq!(nowhere.worker.expect("a worker").embedding, None);
    let notice = "worker.embedding_model: /nowhere is not there: no embeddings; `make model` fetches it";
    assert!(nowhere.notices.iter().any(|found| found == notice), "{:?}", nowhere.notices);
    let none = good(&section("".as_ref(), ""), &[]);
    assert_eq!(none.worker.expect("a worker").embedding, None);
    assert!(!none.notices.iter().any(|notice| notice.contains("embedding")), "{:?}", none.notices);

    for (text, want) in [
        (section(folder.path(), "embedding_name = \"smollm2-135m\""), "is worker.name, too"),
        (section(folder.path(), "embedding_name = \"a b\""), "worker.embedding_name: "),
        (
            section(folder.path(), "[models.\"local/all-minilm-l6-v2\"]\ndeployments = [\"smollm2-135m\"]"),
            "taken by the local worker",
        ),
    ] {
        let found = wrong(&text);
        assert!(found.iter().any(|problem| problem.contains(want)), "{text}: {found:?}");
    }
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
fn what_is_only_computed_needs_no_secrets() {
    let text = r#"
[providers.openai]
kind = "openai"
api_key = { env = "NOBODY_SET_THIS" }

[alerts]
webhook_url = "https://alerts.example/hook"
webhook_secret = { env = "NOR_THIS" }

[admin]
key = { file = "/not/there" }
"#;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tunegate.toml");
    std::fs::write(&path, text).expect("a file");
    assert!(load(Some(&path), &Variables::new()).is_err());
    let config =
        load_without_secrets(Some(&path), &Variables::new()).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.catalog.providers.contains_key("openai"));
    // what is wrong elsewhere is wrong still
    std::fs::write(&path, "[providers.openai]\nkind = \"opnai\"\n").expect("a file");
    assert!(load_without_secrets(Some(&path), &Variables::new()).is_err());
}
