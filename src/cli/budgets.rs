//! `tunegate budgets`: clients of the admin API.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::admin_client::{AdminClient, path_segment};
use super::table::{Column, date, listing, number, one, table, text};
use super::{ConfigOption, say, warn};

const BUDGETS: &str = "/admin/v1/budgets";
/// Counters of a budget that are asked for, and shown, at once.
const SHOWN: usize = 100;

/// Options of `tunegate budgets`.
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
    /// List all budgets and how they stand.
    List,
    /// Show one budget; where each key, team, user or model has a counter of its own, how those stand.
    Show {
        /// The budget's name.
        name: String,
        /// Only the counters behind this one, such as the last one shown.
        #[arg(long, value_name = "SUBJECT")]
        after: Option<String>,
    },
    /// Make a budget.
    Create {
        /// Your name for it: 1 to 64 of A-Z a-z 0-9 . _ -
        name: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// Replace a budget: what is not named has its default again. Its raise stays.
    Set {
        /// The budget's name.
        name: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// Delete a budget.
    Delete {
        /// The budget's name.
        name: String,
    },
    /// Raise a budget for a while, or end its raise.
    Raise {
        /// The budget's name.
        name: String,
        /// How much more may be spent, USD.
        #[arg(long, value_name = "USD", required_unless_present = "end")]
        by: Option<String>,
        /// Until when, such as 2026-12-01T00:00:00Z
        #[arg(long, value_name = "MOMENT", required_unless_present = "end")]
        until: Option<String>,
        /// End the raise now.
        #[arg(long, conflicts_with_all = ["by", "until"])]
        end: bool,
    },
}

/// What a budget is.
#[derive(Args)]
struct Terms {
    /// The most that may be spent in a window, USD.
    #[arg(long, value_name = "USD")]
    limit: String,
    /// total, hour, day, week, month, or rolling, such as "rolling 24h".
    #[arg(long)]
    window: String,
    /// Whose midnight, for hour, day, week and month [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Only what a team's keys ask.
    #[arg(long)]
    team: Option<String>,
    /// Only what one key asks: its alias or id.
    #[arg(long)]
    key: Option<String>,
    /// Only what is asked for one end user.
    #[arg(long, value_name = "USER")]
    end_user: Option<String>,
    /// Only what carries this tag.
    #[arg(long)]
    tag: Option<String>,
    /// Only what asks for this model.
    #[arg(long)]
    model: Option<String>,
    /// Only what this deployment bills.
    #[arg(long)]
    deployment: Option<String>,
    /// Only what this provider bills.
    #[arg(long)]
    provider: Option<String>,
    /// inference, training or hosting.
    #[arg(long)]
    purpose: Option<String>,
    /// The whole limit for each key, team, end_user or model.
    #[arg(long)]
    each: Option<String>,
    /// Percent of the limit at which somebody is told; may be given more than once [default: 50, 80, 100]
    #[arg(long, value_name = "PERCENT")]
    alert_at: Vec<u64>,
    /// refuse, clamp or downgrade [default: refuse]
    #[arg(long)]
    action: Option<String>,
}

impl Terms {
    fn body(&self, name: &str) -> Value {
        let scope = [
            ("team", &self.team),
            ("key", &self.key),
            ("end_user", &self.end_user),
            ("tag", &self.tag),
            ("model", &self.model),
            ("deployment", &self.deployment),
            ("provider", &self.provider),
            ("purpose", &self.purpose),
            ("each", &self.each),
        ];
        let scope: Map<String, Value> = scope
            .iter()
            .filter_map(|(name, value)| Some(((*name).to_owned(), json!(value.as_ref()?))))
            .collect();
        let alert_at = (!self.alert_at.is_empty()).then_some(&self.alert_at);
        // null stands for the default
        json!({
            "name": name, "limit_usd": self.limit, "window": self.window, "time_zone": self.time_zone, "scope": scope,
            "alert_at_percent": alert_at, "action": self.action,
        })
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    let path = |name: &str| format!("{BUDGETS}/{}", path_segment(name));
    let answer: Value = match &options.command {
        Command::List => {
            let listed: Value = client.ask("GET", BUDGETS, None)?.read(200)?;
            say(&if options.json { listed.to_string() } else { table(&COLUMNS, listing(&listed)) });
            return Ok(());
        }
        Command::Show { name, after } => return show(&client, &path(name), after.as_deref(), options.json),
        Command::Create { name, terms } => client.ask("POST", BUDGETS, Some(&terms.body(name)))?.read(201)?,
        Command::Set { name, terms } => client.ask("PUT", &path(name), Some(&terms.body(name)))?.read(200)?,
        Command::Delete { name } => client.ask("DELETE", &path(name), None)?.read(200)?,
        Command::Raise { name, end: true, .. } => {
            client.ask("DELETE", &format!("{}/raise", path(name)), None)?.read(200)?
        }
        Command::Raise { name, by, until, .. } => {
            let body = json!({"by_usd": by, "until": until});
            client.ask("POST", &format!("{}/raise", path(name)), Some(&body))?.read(200)?
        }
    };
    say(&if options.json { answer.to_string() } else { one(&answer) });
    Ok(())
}

fn show(client: &AdminClient, path: &str, after: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let mut budget: Value = client.ask("GET", path, None)?.read(200)?;
    let behind = after.map(|after| format!("&after={}", path_segment(after))).unwrap_or_default();
    let standings = format!("{path}/standings?limit={SHOWN}{behind}");
    let standings: Value = client.ask("GET", &standings, None)?.read(200)?;
    if as_json {
        budget["standings"] = standings;
        say(&budget.to_string());
        return Ok(());
    }
    say(&one(&budget));
    if budget["standing"].is_null() {
        say(&format!("\n{}", table(&STANDINGS, listing(&standings))));
        if standings["has_more"] == true {
            let last = listing(&standings).last().map(|last| text(&last["subject"])).unwrap_or_default();
            warn(&format!("there are more: --after {last:?}"));
        }
    }
    Ok(())
}

const COLUMNS: [Column; 9] = [
    Column("NAME", |budget| text(&budget["name"])),
    Column("SCOPE", |budget| scope(&budget["scope"])),
    Column("WINDOW", |budget| text(&json!([budget["window"], budget["time_zone"]])).trim().to_owned()),
    Column("LIMIT", |budget| match &budget["standing"]["limit_usd"] {
        Value::Null => number(&budget["limit_usd"]),
        now => number(now),
    }),
    Column("SPENT", |budget| number(&budget["standing"]["spent_usd"])),
    Column("RESERVED", |budget| number(&budget["standing"]["reserved_usd"])),
    Column("LEFT", |budget| number(&budget["standing"]["left_usd"])),
    Column("RESETS", |budget| date(&budget["standing"]["resets_at"])),
    Column("STATE", |budget| {
        let declared = if budget["declared"] == true { "declared" } else { "stored" };
        let raised = if budget["raise"].is_null() { "" } else { ", raised" };
        let waits = if budget["in_force"] == true { "" } else { ", not in force yet" };
        format!("{declared}{raised}{waits}")
    }),
];

const STANDINGS: [Column; 6] = [
    Column("SUBJECT", |standing| text(&standing["subject"])),
    Column("LIMIT", |standing| number(&standing["limit_usd"])),
    Column("SPENT", |standing| number(&standing["spent_usd"])),
    Column("RESERVED", |standing| number(&standing["reserved_usd"])),
    Column("LEFT", |standing| number(&standing["left_usd"])),
    Column("RESETS", |standing| date(&standing["resets_at"])),
];

/// A scope in words: `team=acme each=end_user`, or `everything`.
fn scope(scope: &Value) -> String {
    let members = scope.as_object().into_iter().flatten();
    let words: Vec<String> = members.map(|(name, value)| format!("{name}={}", text(value))).collect();
    if words.is_empty() { "everything".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_in_a_table() {
        let budgets = [
            json!({
                "name": "all", "scope": {}, "window": "month", "time_zone": "UTC", "limit_usd": 5.0, "raise": {"by_usd": 1.0},
                "declared": false, "in_force": true, "standing": {"limit_usd": 6.0, "spent_usd": 0.25,
                "reserved_usd": 0.5, "left_usd": 5.25, "resets_at": 60},
            }),
            json!({
                "name": "users", "scope": {"model": "bot", "each": "end_user"}, "window": "total", "time_zone": null,
                "limit_usd": 0.5, "raise": null, "declared": true, "in_force": false, "standing": null,
            }),
        ];
        assert_eq!(
            table(&COLUMNS, &budgets),
            "NAME   SCOPE                    WINDOW     LIMIT  SPENT  RESERVED  LEFT  RESETS             STATE\n\
             all    everything               month UTC  6.0    0.25   0.5       5.25  1970-01-01 00:01Z  stored, raised\n\
             users  each=end_user model=bot  total      0.5    -      -         -     -                  declared, not in force yet"
        );
    }
}
