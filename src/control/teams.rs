//! Teams: who owns keys. Those that the configuration declares are read-only here.

use std::sync::Arc;

use serde_json::{Value, json};

use super::audit::{self, Actor};
use super::directory::{Directory, DirectoryError, Known};
use super::form::{Form, Problem};
use super::limits::{LimitsChange, limits_json, tag};
use super::random::{self, NoRandom};
use crate::domain::label::{self, MAX_TAGS, TAKEN_RULE, alias_is_good, is_taken_by_metrics};
use crate::domain::limit::RateLimits;
use crate::domain::team::{Origin, TEAM_ID_PREFIX, Team};
use crate::store::StoreError;

const ALIAS_RULE: &str = "an alias has 1 to 64 of A-Z a-z 0-9 . _ - and does not start with team_";

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum TeamsError {
    /// The operator's mistakes, all of them.
    #[error("{} wrong in what was sent", if .0.len() == 1 { "1 thing is".to_owned() } else { format!("{} things are", .0.len()) })]
    Invalid(Vec<Problem>),
    /// The operator's mistake.
    #[error("there is a team with the alias {0}")]
    AliasTaken(String),
    /// The operator's mistake.
    #[error("there is no team with the id or alias {0}")]
    Unknown(String),
    /// The operator's mistake.
    #[error("the team {0} is declared in the configuration: change [teams.{0}] there, then reload")]
    Declared(String),
    /// The operator's mistake.
    #[error("the team {0} is archived: it stays as it is; make a new one")]
    Archived(String),
    /// The operator's mistake.
    #[error("the team {team} owns live keys ({}): revoke them or move them to another team first", keys.join(", "))]
    OwnsKeys {
        /// Whose.
        team: String,
        /// Their aliases, the first few.
        keys: Vec<String>,
    },
    /// Another process was faster.
    #[error("the team {0} was changed by somebody else at the same moment: look at it, then try again")]
    Raced(String),
    /// The machine's.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// The database's.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A team as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTeam {
    /// The team.
    pub team: Arc<Team>,
    /// How many live keys it owns.
    pub live_keys: usize,
}

/// All teams.
pub struct Teams {
    directory: Arc<Directory>,
}

impl Teams {
    /// The teams of a directory.
    pub const fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }

    /// The aliases of the teams that are not archived, as they were known last.
    pub fn aliases(&self) -> Vec<Arc<str>> {
        let known = self.directory.known();
        let live = known.teams.iter().filter(|team| team.archived_at_ms.is_none());
        live.map(|team| Arc::clone(&team.alias)).collect()
    }

    /// Makes a team as a body says.
    pub async fn create(&self, body: &Value, now_ms: i64) -> Result<ListedTeam, TeamsError> {
        let changing = self.directory.change().await;
        let known = changing.known().await?;
        let change = TeamChange::read(body, None).map_err(TeamsError::Invalid)?;
        let team = change.applied_to(Team {
            id: random::id(TEAM_ID_PREFIX)?.into(),
            created_at_ms: now_ms,
            origin: Origin::Stored,
            ..Team::declared("", RateLimits::default(), Vec::new())
        });
        alias_is_free(&team, &known)?;
        let told = audit::row(Actor::Admin, "team.create", &team.id, &terms_json(&team), now_ms)?;
        let written = self.directory.team_rows.insert(&team, &told).await;
        written.map_err(|error| or_taken(error, &team))?;
        changing.refresh().await?;
        listed(&team.id, &self.directory.known())
    }

    /// Returns all teams, declared ones first, archived ones too.
    pub async fn list(&self) -> Result<Vec<ListedTeam>, TeamsError> {
        let known = self.directory.change().await.known().await?;
        Ok(known.teams.iter().map(|team| seen(team, &known)).collect())
    }

    /// Returns a team by its id, or one that is not archived by its alias.
    pub async fn get(&self, id_or_alias: &str) -> Result<ListedTeam, TeamsError> {
        let known = self.directory.change().await.known().await?;
        listed(id_or_alias, &known)
    }

    /// Changes a team as a body says: what is not in it stays, `null` takes back what was set.
    pub async fn update(
        &self,
        id_or_alias: &str,
        body: &Value,
        now_ms: i64,
    ) -> Result<ListedTeam, TeamsError> {
        let changing = self.directory.change().await;
        let known = changing.known().await?;
        let before = changeable(id_or_alias, &known)?;
        let change = TeamChange::read(body, Some(before)).map_err(TeamsError::Invalid)?;
        let team = change.applied_to(Team::clone(before));
        if team.alias != before.alias {
            alias_is_free(&team, &known)?;
        }
        let detail = json!({"before": terms_json(before), "after": terms_json(&team)});
        let told = audit::row(Actor::Admin, "team.update", &team.id, &detail, now_ms)?;
        let written = self.directory.team_rows.update(&team, &told).await;
        if !written.map_err(|error| or_taken(error, &team))? {
            return Err(TeamsError::Raced(id_or_alias.to_owned()));
        }
        changing.refresh().await?;
        listed(&team.id, &self.directory.known())
    }

    /// Archives a team that owns no live key: it stays in reports, and its alias is free again.
    pub async fn archive(&self, id_or_alias: &str, now_ms: i64) -> Result<ListedTeam, TeamsError> {
        let changing = self.directory.change().await;
        let known = changing.known().await?;
        let team = changeable(id_or_alias, &known)?;
        let keys: Vec<String> = known.keys_of(&team.id).take(5).map(|key| key.alias.to_string()).collect();
        if !keys.is_empty() {
            return Err(TeamsError::OwnsKeys { team: team.alias.to_string(), keys });
        }
        let told = audit::row(Actor::Admin, "team.archive", &team.id, &json!({}), now_ms)?;
        if !self.directory.team_rows.archive(&team.id, now_ms, &told).await? {
            return Err(TeamsError::Raced(id_or_alias.to_owned()));
        }
        changing.refresh().await?;
        listed(&team.id, &self.directory.known())
    }
}

fn or_taken(error: StoreError, team: &Team) -> TeamsError {
    match error {
        StoreError::Taken => TeamsError::AliasTaken(team.alias.to_string()),
        other => TeamsError::Store(other),
    }
}

/// A declared team's name is taken, too; the database knows only the others.
fn alias_is_free(team: &Team, known: &Known) -> Result<(), TeamsError> {
    match known.teams.iter().any(|other| other.id != team.id && other.is_named(&team.alias)) {
        true => Err(TeamsError::AliasTaken(team.alias.to_string())),
        false => Ok(()),
    }
}

fn found<'k>(id_or_alias: &str, known: &'k Known) -> Result<&'k Arc<Team>, TeamsError> {
    known.team(id_or_alias).ok_or_else(|| TeamsError::Unknown(id_or_alias.to_owned()))
}

fn changeable<'k>(id_or_alias: &str, known: &'k Known) -> Result<&'k Arc<Team>, TeamsError> {
    let team = found(id_or_alias, known)?;
    match (team.origin, team.archived_at_ms) {
        (Origin::Declared, _) => Err(TeamsError::Declared(team.alias.to_string())),
        (Origin::Stored, Some(_)) => Err(TeamsError::Archived(id_or_alias.to_owned())),
        (Origin::Stored, None) => Ok(team),
    }
}

fn listed(id_or_alias: &str, known: &Known) -> Result<ListedTeam, TeamsError> {
    Ok(seen(found(id_or_alias, known)?, known))
}

fn seen(team: &Arc<Team>, known: &Known) -> ListedTeam {
    ListedTeam { team: Arc::clone(team), live_keys: known.keys_of(&team.id).count() }
}

/// What an operator decides about a team, as they read and write it.
pub fn terms_json(team: &Team) -> Value {
    json!({"alias": &*team.alias, "tags": team.tags, "limits": limits_json(&team.limits)})
}

/// What an operator wants of a team; what was left out is none.
struct TeamChange {
    alias: Option<String>,
    tags: Option<Vec<String>>,
    limits: LimitsChange,
}

impl TeamChange {
    /// What a body says, of a team as it is `before` or of a new one.
    fn read(body: &Value, before: Option<&Team>) -> Result<Self, Vec<Problem>> {
        let is_new = |alias: &str| before.is_none_or(|team| *team.alias != *alias);
        let form = Form::new(body);
        let alias = form.text("alias");
        match alias {
            None if before.is_none() => form.wrong("alias", "missing: name the team"),
            Some(None) => form.wrong("alias", ALIAS_RULE),
            Some(Some(alias)) if !alias_is_good(alias, TEAM_ID_PREFIX) => form.wrong("alias", ALIAS_RULE),
            Some(Some(alias)) if is_taken_by_metrics(alias) && is_new(alias) => {
                form.wrong("alias", TAKEN_RULE);
            }
            _ => {}
        }
        let tags = form.list("tags", MAX_TAGS, tag);
        let limits = LimitsChange::read(&form);
        let alias = alias.flatten().map(str::to_owned);
        form.finish(Self { alias, tags, limits })
    }

    fn applied_to(self, team: Team) -> Team {
        Team {
            alias: self.alias.map_or(team.alias, Into::into),
            tags: self.tags.map_or(team.tags, label::in_order),
            limits: self.limits.applied_to(team.limits),
            ..team
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_keeps_a_name_that_metrics_have_and_none_gets_it() {
        let team = |alias: &str| Team::declared(alias, RateLimits::default(), Vec::new());
        for (before, alias, good) in [
            (None, "none", false),
            (None, "nonesuch", true),
            (Some(team("sales")), "other", false),
            (Some(team("other")), "other", true),
            (Some(team("other")), "none", false),
            (Some(team("other")), "sales", true),
        ] {
            let change = TeamChange::read(&json!({"alias": alias}), before.as_ref());
            assert_eq!(change.is_ok(), good, "{before:?} {alias}");
        }
    }
}
