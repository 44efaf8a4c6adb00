//! What `tunegate serve` says to the person who started it: where it is, a key, and a line to paste.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::config::Config;
use crate::domain::secret::Secret;

/// Asked for in the example when every model goes to OpenAI.
const WELL_KNOWN_MODEL: &str = "gpt-4.1-mini";
/// Stands for a key that is not known any more.
const KEY_VARIABLE: &str = "$TUNEGATE_API_KEY";

/// The key that the banner speaks of.
#[derive(Debug, Clone, Copy)]
pub enum BannerKey<'a> {
    /// Made just now: shown here and never again.
    New {
        /// Its alias.
        alias: &'a str,
        /// The key itself.
        key: &'a Secret,
    },
    /// Made at an earlier start.
    Existing {
        /// Its alias.
        alias: &'a str,
    },
    /// All have been revoked.
    None,
}

/// What the banner tells.
#[derive(Debug, Clone, Copy)]
pub struct Banner<'a> {
    /// The data address, as it is listened on.
    pub listen: SocketAddr,
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// The admin address, as it is listened on.
    pub admin_listen: SocketAddr,
    /// A key to use.
    pub key: BannerKey<'a>,
    /// A model to ask for in the example.
    pub model: Option<&'a str>,
    /// The worker's model file, when it is not there.
    pub missing_model_file: Option<&'a Path>,
}

/// Returns the banner, with a line break at its end.
pub fn banner(facts: &Banner<'_>) -> String {
    let scheme = if facts.tls { "https" } else { "http" };
    let base_url = format!("{scheme}://{}/v1", reachable(facts.listen));
    let mut text = format!("tunegate {}\n\n", env!("CARGO_PKG_VERSION"));
    line(&mut text, "data", &base_url);
    line(&mut text, "admin", &format!("http://{}", reachable(facts.admin_listen)));
    let key = match facts.key {
        BannerKey::New { alias, key } => {
            line(&mut text, "key", &format!("{}   ({alias}; shown once: keep it)", key.expose()));
            key.expose()
        }
        BannerKey::Existing { alias } => {
            let another = "tunegate keys create --alias NAME";
            line(&mut text, "key", &format!("the one you kept for {alias}; another: {another}"));
            KEY_VARIABLE
        }
        BannerKey::None => {
            line(&mut text, "key", "none is live; make one: tunegate keys create --alias NAME");
            KEY_VARIABLE
        }
    };
    if let Some(file) = facts.missing_model_file {
        line(
            &mut text,
            "model",
            &format!("no local model: run `make model` ({} is not there)", file.display()),
        );
    }
    if let Some(model) = facts.model {
        let _ = write!(text, "\nTry it:\n\n{}", curl(&base_url, key, model));
    }
    let exports = format!("  export OPENAI_BASE_URL={base_url}\n  export OPENAI_API_KEY={key}\n");
    let _ = write!(text, "\nUse it from any OpenAI client:\n\n{exports}\n");
    text
}

/// Returns a model that the example can ask for: the local one where it runs, else the first by name, else a well-known
/// one of OpenAI where every name goes there.
pub fn example_model(config: &Config, worker_runs: bool) -> Option<String> {
    let local = config.worker.as_ref().map(|worker| worker.name.to_string());
    if worker_runs && local.is_some() {
        return local;
    }
    // The worker's others make no conversation.
    let vectors = config.worker.as_ref().and_then(|worker| Some(worker.embedding.as_ref()?.name.to_string()));
    let ours = |model: &str, name: &str| model == name || model.ends_with(&format!("/{name}"));
    let elsewhere = |model: &str| !local.iter().chain(&vectors).any(|name| ours(model, name));
    let mut exact = config.catalog.names().map(|(name, _)| name.as_str());
    if let Some(model) = exact.find(|model| elsewhere(model)) {
        return Some(model.to_owned());
    }
    let any_goes_to_openai = config.catalog.patterns().any(|pattern| {
        let provider = pattern.route.deployments.first().map(|deployment| &deployment.provider);
        pattern.name.as_str() == "*"
            && provider.is_some_and(|provider| provider.authority == "api.openai.com")
    });
    any_goes_to_openai.then(|| WELL_KNOWN_MODEL.to_owned())
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<7}{value}");
}

fn curl(base_url: &str, key: &str, model: &str) -> String {
    // A model's name may hold quotes: JSON for the body, then the shell's own.
    let body = serde_json::json!({ "model": model, "temperature": 0,
        "messages": [{ "role": "user", "content": "What is the capital of France?" }] });
    let body = body.to_string().replace('\'', r"'\''");
    format!(
        "  curl {base_url}/chat/completions \\\n    -H \"Authorization: Bearer {key}\" \\\n    \
         -H \"Content-Type: application/json\" \\\n    -d '{body}'\n"
    )
}

/// Returns an address that a client on this machine can use: one that is listened on everywhere can't be called.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::collections::BTreeMap;

    fn facts(key: BannerKey<'_>) -> Banner<'_> {
        Banner {
            listen: "0.0.0.0:8080".parse().expect("an address"),
            tls: false,
            admin_listen: "127.0.0.1:8081".parse().expect("an address"),
            key,
            model: Some("smollm2-135m"),
            missing_model_file: None,
        }
    }

    #[test]
    fn the_first_start_shows_the_key_and_a_line_to_paste() {
        let key = Secret::new("sk-tg-once");
        let text = banner(&facts(BannerKey::New { alias: "default", key: &key }));
        let want = concat!(
            "tunegate ",
            env!("CARGO_PKG_VERSION"),
            r#"

  data   http://127.0.0.1:8080/v1
  admin  http://127.0.0.1:8081
  key    sk-tg-once   (default; shown once: keep it)

Try it:

  curl http://127.0.0.1:8080/v1/chat/completions \
    -H "Authorization: Bearer sk-tg-once" \
    -H "Content-Type: application/json" \
    -d '{"messages":[{"content":"What is the capital of France?","role":"user"}],"model":"smollm2-135m","temperature":0}'

Use it from any OpenAI client:

  export OPENAI_BASE_URL=http://127.0.0.1:8080/v1
  export OPENAI_API_KEY=sk-tg-once

"#
        );
        assert_eq!(text, want);
    }

    #[test]
    fn later_starts_name_the_key_and_the_variable() {
        let model_file = Path::new("./models/m.gguf");
        let later = Banner {
            tls: true,
            model: Some("it's"),
            missing_model_file: Some(model_file),
            ..facts(BannerKey::Existing { alias: "default" })
        };
        let text = banner(&later);
        for part in [
            "https://127.0.0.1:8080/v1",
            "the one you kept for default; another: tunegate keys create --alias NAME",
            "Bearer $TUNEGATE_API_KEY\"",
            r#""model":"it'\''s","temperature":0}'"#,
            "no local model: run `make model` (./models/m.gguf is not there)",
        ] {
            assert!(text.contains(part), "{part}\nis not in\n{text}");
        }
        let none = banner(&Banner { model: None, ..facts(BannerKey::None) });
        assert!(none.contains("none is live") && !none.contains("curl"), "{none}");
    }

    #[test]
    fn the_example_asks_for_what_can_answer() {
        let openai = BTreeMap::from([("OPENAI_API_KEY".to_owned(), "sk-x".to_owned())]);
        for (environment, worker_runs, want) in [
            (BTreeMap::new(), true, Some("smollm2-135m")),
            (BTreeMap::new(), false, None),
            (openai.clone(), true, Some("smollm2-135m")),
            (openai, false, Some(WELL_KNOWN_MODEL)),
        ] {
            let config = config::load(None, &environment).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(example_model(&config, worker_runs).as_deref(), want);
        }
    }
}
