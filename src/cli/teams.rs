//! `tunegate teams`: clients of the admin API.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::keys::LimitOptions;
use super::table::{Column, date, listing, number, one, table, text};
use super::{ConfigOption, say};

/// Options of `tunegate teams`.
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
    /// Make a team.
    Create {
        /// Your name for it: 1 to 64 of A-Z a-z 0-9 . _ -
        #[arg(long, value_name = "NAME")]
        alias: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// List all teams, declared and archived ones too.
    List,
    /// Show one team.
    Show {
        /// The team's id or its alias.
        #[arg(value_name = "ID-OR-ALIAS")]
        team: String,
    },
    /// Change a team; what is not named stays.
    Update {
        /// The team's id or its alias.
        #[arg(value_name = "ID-OR-ALIAS")]
        team: String,
        /// Another name for it.
        #[arg(long, value_name = "NAME")]
        alias: Option<String>,
        #[command(flatten)]
        terms: Terms,
        /// Take all its limits back.
        #[arg(long)]
        clear_limits: bool,
        /// Take all its tags back.
        #[arg(long)]
        clear_tags: bool,
    },
    /// Archive a team that owns no live key: it stays in reports.
    Archive {
        /// The team's id or its alias.
        #[arg(value_name = "ID-OR-ALIAS")]
        team: String,
    },
}

/// What counts for all keys of a team.
#[derive(Args)]
struct Terms {
    /// A tag on everything that its keys ask; may be given more than once.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    limits: LimitOptions,
}

impl Terms {
    fn write(&self, body: &mut Map<String, Value>) {
        if !self.tags.is_empty() {
            body.insert("tags".to_owned(), json!(self.tags));
        }
        self.limits.write(body);
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let path = |team: &str| format!("/admin/v1/teams/{}", path_segment(team));
    let answer: Value = match &options.command {
        Command::Create { alias, terms } => {
            let mut body = Map::from_iter([("alias".to_owned(), json!(alias))]);
            terms.write(&mut body);
            client.ask("POST", "/admin/v1/teams", Some(&body.into()))?.read(201)?
        }
        Command::List => {
            let listed: Value = client.ask("GET", "/admin/v1/teams", None)?.read(200)?;
            say(&if options.json { listed.to_string() } else { table(&COLUMNS, listing(&listed)) });
            return Ok(());
        }
        Command::Show { team } => client.ask("GET", &path(team), None)?.read(200)?,
        Command::Update { team, alias, terms, clear_limits, clear_tags } => {
            let mut body = Map::new();
            for (name, _) in
                [("limits", clear_limits), ("tags", clear_tags)].iter().filter(|(_, clear)| **clear)
            {
                body.insert((*name).to_owned(), Value::Null);
            }
            if let Some(alias) = alias {
                body.insert("alias".to_owned(), json!(alias));
            }
            terms.write(&mut body);
            client.ask("PATCH", &path(team), Some(&body.into()))?.read(200)?
        }
        Command::Archive { team } => client.ask("DELETE", &path(team), None)?.read(200)?,
    };
    say(&if options.json { answer.to_string() } else { one(&answer) });
    Ok(())
}

const COLUMNS: [Column; 8] = [
    Column("ALIAS", |team| text(&team["alias"])),
    Column("ID", |team| text(&team["id"])),
    Column("KEYS", |team| number(&team["live_keys"])),
    Column("RPM", |team| number(&team["limits"]["requests_per_minute"])),
    Column("TPM", |team| number(&team["limits"]["tokens_per_minute"])),
    Column("AT ONCE", |team| number(&team["limits"]["concurrent"])),
    Column("TAGS", |team| text(&team["tags"])),
    Column("STATE", |team| match (&team["declared"], &team["archived_at"]) {
        (Value::Bool(true), _) => "declared in the configuration".to_owned(),
        (_, Value::Null) => "live".to_owned(),
        (_, at) => format!("archived {}", date(at)),
    }),
];
