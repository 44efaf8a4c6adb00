//! `tunegate key`: clients of the admin API.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::admin_client::{AdminClient, path_segment};
use super::{ConfigOption, say, warn};

/// Options of `tunegate key`.
#[derive(Args)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    config: ConfigOption,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key; it is written to stdout, once, and kept by the gateway only as a hash.
    Create {
        /// Your name for it: 1 to 64 of A-Z a-z 0-9 . _ -
        #[arg(long, value_name = "NAME")]
        alias: String,
    },
    /// List all keys, revoked ones too.
    List,
    /// Revoke a key: from now on nobody is let in by it.
    Revoke {
        /// The key's id or its alias.
        #[arg(value_name = "ID-OR-ALIAS")]
        key: String,
    },
}

/// `POST /admin/v1/keys`
#[derive(Debug, Deserialize)]
struct Created {
    id: String,
    alias: String,
    key: String,
}

/// `GET /admin/v1/keys`
#[derive(Debug, Deserialize)]
struct Listed {
    data: Vec<Key>,
}

/// One of them; times are seconds since 1970 UTC.
#[derive(Debug, Deserialize)]
struct Key {
    id: String,
    alias: String,
    last_four: String,
    created_at: i64,
    revoked_at: Option<i64>,
}

/// `DELETE /admin/v1/keys/{id-or-alias}`
#[derive(Debug, Deserialize)]
struct Revoked {
    id: String,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let client = AdminClient::new(&options.config)?;
    match &options.command {
        Command::Create { alias } => {
            let body = serde_json::json!({ "alias": alias });
            let made: Created = client.ask("POST", "/admin/v1/keys", Some(&body))?.read(201)?;
            say(&made.key);
            warn(&format!("made {} ({}); the key is shown once: keep it", made.alias, made.id));
        }
        Command::List => {
            let listed: Listed = client.ask("GET", "/admin/v1/keys", None)?.read(200)?;
            say(&table(&listed.data));
        }
        Command::Revoke { key } => {
            let path = format!("/admin/v1/keys/{}", path_segment(key));
            let revoked: Revoked = client.ask("DELETE", &path, None)?.read(200)?;
            say(&format!("revoked {}", revoked.id));
        }
    }
    Ok(())
}

fn table(keys: &[Key]) -> String {
    let width = keys.iter().map(|key| key.alias.len()).max().unwrap_or(0).max("ALIAS".len());
    let mut text = format!("{:<width$}  {:<28}  {:<7}  {:<17}  STATE", "ALIAS", "ID", "KEY", "CREATED");
    for key in keys {
        let state = key.revoked_at.map_or_else(|| "live".to_owned(), |at| format!("revoked {}", utc(at)));
        let last_four = format!("…{}", key.last_four);
        let created = utc(key.created_at);
        let _ =
            write!(text, "\n{:<width$}  {:<28}  {last_four:<7}  {created:<17}  {state}", key.alias, key.id);
    }
    text
}

/// A time to the minute, such as `2026-11-22 02:35Z`.
fn utc(seconds: i64) -> String {
    let (days, seconds) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}Z", seconds / 3_600, seconds % 3_600 / 60)
}

/// Year, month and day of a day's number since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms": years begin in March, eras of 400 years all have 146,097 days).
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00Z"),
            (951_827_696, "2000-02-29 12:34Z"),
            (1_795_314_900, "2026-11-22 02:35Z"),
            (4_107_542_399, "2100-02-28 23:59Z"),
            (-60, "1969-12-31 23:59Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn keys_in_a_table() {
        let key = |alias: &str, revoked_at| Key {
            id: "key_0123456789abcdef01234567".to_owned(),
            alias: alias.to_owned(),
            last_four: "wxyz".to_owned(),
            created_at: 0,
            revoked_at,
        };
        assert_eq!(
            table(&[key("default", None), key("app", Some(60))]),
            "ALIAS    ID                            KEY      CREATED            STATE\n\
             default  key_0123456789abcdef01234567  …wxyz    1970-01-01 00:00Z  live\n\
             app      key_0123456789abcdef01234567  …wxyz    1970-01-01 00:00Z  revoked 1970-01-01 00:01Z"
        );
    }
}
