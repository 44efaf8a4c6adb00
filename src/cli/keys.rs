//! `tunegate keys`: clients of the admin API.

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::table::{Column, date, listing, number, one, table, text};
use super::{ConfigOption, deliver, say, warn};

/// Options of `tunegate keys`.
#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    config: ConfigOption,

    /// Write the gateway's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key; it is written to stdout, once, and kept by the gateway only as a hash.
    Create {
        /// Your name for it: 1 to 64 of A-Z a-z 0-9 . _ -
        #[arg(long, value_name = "NAME")]
        alias: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// List all keys, revoked ones too.
    List,
    /// Show one key with all that it may do.
    Show {
        /// The key's id or its alias.
        #[arg(value_name = "ID-OR-ALIAS")]
        key: String,
    },
    /// Change what a key may do; what is not named stays.
    Update {
        /// The key's id or its alias.
        #[arg(value_name = "ID-OR-ALIAS")]
        key: String,
        /// Another name for it.
        #[arg(long, value_name = "NAME")]
        alias: Option<String>,
        #[command(flatten)]
        terms: Terms,
        /// Take back what was set; may be given more than once.
        #[arg(long, value_name = "WHAT")]
        clear: Vec<Clear>,
    },
    /// Give a key another secret, written to stdout, once. The old one stays good for a while.
    Rotate {
        /// The key's id or its alias.
        #[arg(value_name = "ID-OR-ALIAS")]
        key: String,
        /// How long the old secret stays good, hours; 0 ends it at once.
        #[arg(long, value_name = "HOURS", default_value_t = 24)]
        grace_hours: u32,
    },
    /// Revoke a key: from now on nobody is let in by it.
    Revoke {
        /// The key's id or its alias.
        #[arg(value_name = "ID-OR-ALIAS")]
        key: String,
    },
}

/// What a key may do.
#[derive(Args)]
struct Terms {
    /// The team that owns it, by id or alias.
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
    /// From when on it is refused, such as 2027-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// A model that it may ask, exact or with one `*`; may be given more than once. Default: all.
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// What it may do with fine-tuning.
    #[arg(long, value_name = "RIGHT", value_parser = ["none", "read", "write", "delete_models"])]
    tuning: Option<String>,
    /// Let requests through whose cost has no bound, with so much held for them.
    #[arg(long, value_name = "USD")]
    unbounded_cost_usd: Option<String>,
    /// A tag on everything that it asks; may be given more than once.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    limits: LimitOptions,
    /// A stored prompt that its requests may name, exact or with one `*`; may be given more than once. Default: none.
    #[arg(long = "prompt", value_name = "NAME")]
    prompts: Vec<String>,
    /// A value for a variable of stored prompts, JSON or a text; may be given more than once.
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, Value)>,
    /// How far it may use the response cache.
    #[arg(long, value_name = "USE", value_parser = ["on", "read_only", "off"])]
    cache: Option<String>,
}

/// A variable and its value: JSON where it is some, else a text.
pub(super) fn variable(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

/// Limits of a key or a team.
#[derive(Args)]
pub(super) struct LimitOptions {
    /// Most requests in a minute.
    #[arg(long, value_name = "N")]
    rpm: Option<u64>,
    /// Most tokens in a minute.
    #[arg(long, value_name = "N")]
    tpm: Option<u64>,
    /// Most requests at once.
    #[arg(long, value_name = "N")]
    concurrent: Option<u64>,
}

impl LimitOptions {
    /// Puts what was given into the member `limits`.
    pub(super) fn write(&self, body: &mut Map<String, Value>) {
        let given = [
            ("requests_per_minute", self.rpm),
            ("tokens_per_minute", self.tpm),
            ("concurrent", self.concurrent),
        ];
        let given = given.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?.into())));
        let given: Map<String, Value> = given.collect();
        if !given.is_empty() {
            body.insert("limits".to_owned(), given.into());
        }
    }
}

/// What can be taken back.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Clear {
    Team,
    ExpiresAt,
    Models,
    Rights,
    Tags,
    Limits,
    Prompts,
    Variables,
    Cache,
}

impl Clear {
    const fn member(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::ExpiresAt => "expires_at",
            Self::Models => "models",
            Self::Rights => "rights",
            Self::Tags => "tags",
            Self::Limits => "limits",
            Self::Prompts => "prompts",
            Self::Variables => "variables",
            Self::Cache => "cache",
        }
    }
}

impl Terms {
    fn write(&self, body: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
        if let Some(team) = &self.team {
            put("team", json!(team));
        }
        if let Some(time) = &self.expires_at {
            put("expires_at", json!(time));
        }
        if !self.models.is_empty() {
            put("models", json!(self.models));
        }
        if !self.tags.is_empty() {
            put("tags", json!(self.tags));
        }
        if !self.prompts.is_empty() {
            put("prompts", json!(self.prompts));
        }
        if !self.variables.is_empty() {
            put("variables", self.variables.iter().cloned().collect::<Map<_, _>>().into());
        }
        if let Some(cache) = &self.cache {
            put("cache", json!(cache));
        }
        let mut rights = Map::new();
        if let Some(tuning) = &self.tuning {
            rights.insert("tuning".to_owned(), json!(tuning));
        }
        if let Some(cost) = &self.unbounded_cost_usd {
            rights.insert("unbounded_cost_usd".to_owned(), json!(cost));
        }
        if !rights.is_empty() {
            put("rights", rights.into());
        }
        self.limits.write(body);
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let path = |key: &str| format!("/admin/v1/keys/{}", path_segment(key));
    match &options.command {
        Command::Create { alias, terms } => {
            let mut body = Map::from_iter([("alias".to_owned(), json!(alias))]);
            terms.write(&mut body);
            let made: Value = client.ask("POST", "/admin/v1/keys", Some(&body.into()))?.read(201)?;
            tell_secret(&made, options.json, "made")?;
        }
        Command::List => {
            let listed: Value = client.ask("GET", "/admin/v1/keys", None)?.read(200)?;
            say(&if options.json { listed.to_string() } else { table(&COLUMNS, listing(&listed)) });
        }
        Command::Show { key } => {
            let shown: Value = client.ask("GET", &path(key), None)?.read(200)?;
            say(&if options.json { shown.to_string() } else { one(&shown) });
        }
        Command::Update { key, alias, terms, clear } => {
            let mut body = Map::new();
            for clear in clear {
                body.insert(clear.member().to_owned(), Value::Null);
            }
            if let Some(alias) = alias {
                body.insert("alias".to_owned(), json!(alias));
            }
            terms.write(&mut body);
            let changed: Value = client.ask("PATCH", &path(key), Some(&body.into()))?.read(200)?;
            say(&if options.json { changed.to_string() } else { one(&changed) });
        }
        Command::Rotate { key, grace_hours } => {
            let body = json!({"grace_ms": u64::from(*grace_hours) * 3_600_000});
            let path = format!("{}/rotate", path(key));
            let rotated: Value = client.ask("POST", &path, Some(&body))?.read(200)?;
            tell_secret(&rotated, options.json, "rotated")?;
        }
        Command::Revoke { key } => {
            let revoked: Value = client.ask("DELETE", &path(key), None)?.read(200)?;
            let id = text(&revoked["id"]);
            say(&if options.json { revoked.to_string() } else { format!("revoked {id}") });
        }
    }
    Ok(())
}

/// Only the secret goes to stdout, for a script to keep.
///
/// # Errors
///
/// When nobody reads it: then it is lost.
fn tell_secret(key: &Value, json: bool, done: &str) -> anyhow::Result<()> {
    let (alias, id) = (text(&key["alias"]), text(&key["id"]));
    let answer = if json { key.to_string() } else { text(&key["key"]) };
    deliver(&answer).with_context(|| {
        format!("{done} {alias} ({id}), but its key could not be written: rotate it, or revoke it")
    })?;
    if !json {
        warn(&format!("{done} {alias} ({id}); the key is shown once: keep it"));
    }
    Ok(())
}

const COLUMNS: [Column; 10] = [
    Column("ALIAS", |key| text(&key["alias"])),
    Column("ID", |key| text(&key["id"])),
    Column("KEY", |key| format!("…{}", text(&key["last_four"]))),
    Column("TEAM", |key| text(&key["team"])),
    Column("MODELS", |key| match text(&key["models"]).as_str() {
        "" => "all".to_owned(),
        some => some.to_owned(),
    }),
    Column("RPM", |key| number(&key["limits"]["requests_per_minute"])),
    Column("TPM", |key| number(&key["limits"]["tokens_per_minute"])),
    Column("AT ONCE", |key| number(&key["limits"]["concurrent"])),
    Column("CREATED", |key| date(&key["created_at"])),
    Column("STATE", |key| match (text(&key["state"]).as_str(), &key["revoked_at"], &key["expires_at"]) {
        ("revoked", at, _) => format!("revoked {}", date(at)),
        ("expired", _, at) => format!("expired {}", date(at)),
        (state, _, Value::Null) => state.to_owned(),
        (state, _, at) => format!("{state} until {}", date(at)),
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_a_table() {
        let key = |alias: &str, state: &str, more: Value| {
            let mut key = json!({
                "alias": alias, "id": "key_01", "last_four": "wxyz", "team": null, "models": [], "state": state,
                "limits": {"requests_per_minute": null, "tokens_per_minute": null, "concurrent": null},
                "created_at": 0, "revoked_at": null, "expires_at": null,
            });
            for (name, value) in more.as_object().into_iter().flatten() {
                key[name.as_str()] = value.clone();
            }
            key
        };
        let limits = json!({"requests_per_minute": 60, "tokens_per_minute": 9000, "concurrent": 2});
        let keys = [
            key("default", "live", json!({})),
            key("app", "revoked", json!({"revoked_at": 60})),
            key(
                "b",
                "live",
                json!({"team": "ops", "models": ["a", "b/*"], "expires_at": 120, "limits": limits}),
            ),
        ];
        assert_eq!(
            table(&COLUMNS, &keys),
            "ALIAS    ID      KEY    TEAM  MODELS  RPM  TPM   AT ONCE  CREATED            STATE\n\
             default  key_01  …wxyz  -     all     -    -     -        1970-01-01 00:00Z  live\n\
             app      key_01  …wxyz  -     all     -    -     -        1970-01-01 00:00Z  revoked 1970-01-01 00:01Z\n\
             b        key_01  …wxyz  ops   a b/*   60   9000  2        1970-01-01 00:00Z  live until 1970-01-01 00:02Z"
        );
    }
}
