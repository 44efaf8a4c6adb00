//! Virtual keys: made, changed, rotated and revoked by operators. The data plane sees each change before the operator is
//! told that it is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::audit::{self, Actor};
use super::directory::{Directory, DirectoryError, Known};
use super::form::{Form, Given, Problem};
use super::limits::{LimitsChange, limits_json, tag};
use super::random::{self, NoRandom};
use crate::domain::allowed::{AllowedModels, AllowedPrompts, MAX_ALLOWED};
use crate::domain::cache::KeyUse;
use crate::domain::key::{KEY_ID_PREFIX, KeyHasher, Rights, Terms, Tuning, VirtualKey, last_four, mint};
use crate::domain::label::{self, MAX_TAGS, alias_is_good};
use crate::domain::money::Usd;
use crate::domain::prompt::MAX_VARIABLES;
use crate::domain::secret::Secret;
use crate::domain::team::Team;
use crate::store::StoreError;
use crate::store::keys::{KeyRow, Rotation};

/// The alias of the key that is made at the first start.
const FIRST_ALIAS: &str = "default";
const ALIAS_RULE: &str = "an alias has 1 to 64 of A-Z a-z 0-9 . _ - and does not start with key_";
/// The longest time that an old secret stays good, ms: 90 days.
const MAX_GRACE_MS: u64 = 90 * 86_400_000;
/// How long it does unless the operator says otherwise, ms: a day.
const DEFAULT_GRACE_MS: u64 = 86_400_000;

/// Longest values for variables on one key, as JSON, bytes.
const MAX_VARIABLES_BYTES: usize = 8 << 10;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The operator's mistakes, all of them.
    #[error("{} wrong in what was sent", if .0.len() == 1 { "1 thing is".to_owned() } else { format!("{} things are", .0.len()) })]
    Invalid(Vec<Problem>),
    /// The operator's mistake.
    #[error("there is a live key with the alias {0}")]
    AliasTaken(String),
    /// The operator's mistake.
    #[error("there is no key with the id or alias {0}")]
    Unknown(String),
    /// The operator's mistake.
    #[error("the key {0} is revoked: it stays as it is; make a new one")]
    Revoked(String),
    /// Another process was faster.
    #[error("the key {0} was changed by somebody else at the same moment: look at it, then try again")]
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

/// A key as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: VirtualKey,
    /// The team that owns it.
    pub team: Option<Arc<Team>>,
    /// Until when a secret that was rotated away is good, ms since 1970 UTC.
    pub old_secret_until_ms: Option<i64>,
}

/// All virtual keys.
pub struct Keys {
    directory: Arc<Directory>,
    hasher: KeyHasher,
}

impl Keys {
    /// The keys of a directory, hashed with the installation's pepper.
    #[expect(clippy::needless_pass_by_value, reason = "a secret has one owner")]
    pub fn new(directory: Arc<Directory>, pepper: Secret) -> Self {
        Self { directory, hasher: KeyHasher::new(&pepper) }
    }

    /// Makes a key as a body says. The secret is told here and never again.
    pub async fn create(&self, body: &Value, now_ms: i64) -> Result<(Listed, Secret), KeysError> {
        self.create_by(Actor::Admin, body, now_ms).await
    }

    async fn create_by(
        &self,
        actor: Actor,
        body: &Value,
        now_ms: i64,
    ) -> Result<(Listed, Secret), KeysError> {
        let changing = self.directory.change().await;
        let known = changing.known().await?;
        let change = KeyChange::read(body, Required::Alias, &known, now_ms).map_err(KeysError::Invalid)?;
        let secret = mint(random::bytes()?);
        let key = change.applied_to(VirtualKey {
            id: random::id(KEY_ID_PREFIX)?.into(),
            alias: "".into(),
            last_four: last_four(&secret),
            created_at_ms: now_ms,
            revoked_at_ms: None,
            terms: Terms::default(),
        });
        let told = audit::row(actor, "key.create", &key.id, &terms_object(&key, &known), now_ms)?;
        let written = self.directory.key_rows.insert(&key, self.hasher.hash(secret.expose()), &told).await;
        written.map_err(|error| or_taken(error, &key))?;
        changing.refresh().await?;
        Ok((listed(&key.id, &self.directory.known(), now_ms)?, secret))
    }

    /// Makes the first key of an installation; nothing when there has ever been one.
    pub async fn ensure_first_key(&self, now_ms: i64) -> Result<Option<(Listed, Secret)>, KeysError> {
        if !self.directory.known().keys.is_empty() {
            return Ok(None);
        }
        self.create_by(Actor::Gateway, &json!({"alias": FIRST_ALIAS}), now_ms).await.map(Some)
    }

    /// Returns all keys, revoked ones too, in the order they were made.
    pub async fn list(&self, now_ms: i64) -> Result<Vec<Listed>, KeysError> {
        let known = self.directory.change().await.known().await?;
        Ok(known.keys.iter().map(|row| seen(row, &known, now_ms)).collect())
    }

    /// Returns a key by its id, or a live one by its alias.
    pub async fn get(&self, id_or_alias: &str, now_ms: i64) -> Result<Listed, KeysError> {
        let known = self.directory.change().await.known().await?;
        listed(id_or_alias, &known, now_ms)
    }

    /// Changes a live key as a body says: what is not in it stays, `null` takes back what was set.
    pub async fn update(&self, id_or_alias: &str, body: &Value, now_ms: i64) -> Result<Listed, KeysError> {
        let changing = self.directory.change().await;
        let known = changing.known().await?;
        let before = live(id_or_alias, &known)?;
        let change = KeyChange::read(body, Required::Nothing, &known, now_ms).map_err(KeysError::Invalid)?;
        let key = change.applied_to(before.key.clone());
        let detail = json!({
            "before": terms_object(&before.key, &known),
            "after": terms_object(&key, &known),
        });
        let told = audit::row(Actor::Admin, "key.update", &key.id, &detail, now_ms)?;
        let written = self.directory.key_rows.update(&key, &told).await;
        if !written.map_err(|error| or_taken(error, &key))? {
            return Err(KeysError::Raced(id_or_alias.to_owned()));
        }
        changing.refresh().await?;
        listed(&key.id, &self.directory.known(), now_ms)
    }

    /// Gives a live key another secret, told here and never again. The old one stays good for a while: `grace_ms` in
    /// the body, a day without it; with 0 it ends at once.
    pub async fn rotate(
        &self,
        id_or_alias: &str,
        body: &Value,
        now_ms: i64,
    ) -> Result<(Listed, Secret), KeysError> {
        let changing = self.directory.change().await;
        let known = changing.known().await?;
        let row = live(id_or_alias, &known)?;
        let form = Form::new(body);
        let grace_ms = form.number("grace_ms", 0..=MAX_GRACE_MS).flatten().unwrap_or(DEFAULT_GRACE_MS);
        let grace_ms = form.finish(grace_ms).map_err(KeysError::Invalid)?;
        let secret = mint(random::bytes()?);
        let rotation = Rotation {
            id: &row.key.id,
            old: row.hash,
            new: self.hasher.hash(secret.expose()),
            last_four: &last_four(&secret),
            old_until_ms: now_ms.saturating_add_unsigned(grace_ms),
            now_ms,
        };
        let detail = json!({"grace_ms": grace_ms});
        let told = audit::row(Actor::Admin, "key.rotate", &row.key.id, &detail, now_ms)?;
        if !self.directory.key_rows.rotate(&rotation, &told).await? {
            return Err(KeysError::Raced(id_or_alias.to_owned()));
        }
        changing.refresh().await?;
        Ok((listed(&row.key.id, &self.directory.known(), now_ms)?, secret))
    }

    /// Revokes a key by its id, or a live one by its alias; from here on nobody is let in by it. Once more does no
    /// harm: the first time stands.
    pub async fn revoke(&self, id_or_alias: &str, now_ms: i64) -> Result<Listed, KeysError> {
        let changing = self.directory.change().await;
        let known = changing.known().await?;
        let row = found(id_or_alias, &known)?;
        let told = audit::row(Actor::Admin, "key.revoke", &row.key.id, &json!({}), now_ms)?;
        changing.shut_out(&row.key.id);
        if let Err(error) = self.directory.key_rows.revoke(&row.key.id, now_ms, &told).await {
            changing.let_in();
            return Err(error.into());
        }
        changing.refresh().await?;
        listed(&row.key.id, &self.directory.known(), now_ms)
    }

    /// Reads keys and teams again, for changes that another process has made.
    pub async fn refresh(&self) -> Result<(), DirectoryError> {
        self.directory.refresh().await
    }
}

fn or_taken(error: StoreError, key: &VirtualKey) -> KeysError {
    match error {
        StoreError::Taken => KeysError::AliasTaken(key.alias.to_string()),
        other => KeysError::Store(other),
    }
}

fn found<'k>(id_or_alias: &str, known: &'k Known) -> Result<&'k KeyRow, KeysError> {
    known.key(id_or_alias).ok_or_else(|| KeysError::Unknown(id_or_alias.to_owned()))
}

fn live<'k>(id_or_alias: &str, known: &'k Known) -> Result<&'k KeyRow, KeysError> {
    let row = found(id_or_alias, known)?;
    match row.key.revoked_at_ms {
        None => Ok(row),
        Some(_) => Err(KeysError::Revoked(id_or_alias.to_owned())),
    }
}

fn listed(id_or_alias: &str, known: &Known, now_ms: i64) -> Result<Listed, KeysError> {
    Ok(seen(found(id_or_alias, known)?, known, now_ms))
}

fn seen(row: &KeyRow, known: &Known, now_ms: i64) -> Listed {
    let ends = row.retired.iter().map(|retired| retired.until_ms);
    Listed {
        key: row.key.clone(),
        team: known.team_of(&row.key),
        old_secret_until_ms: ends.max().filter(|end| *end > now_ms),
    }
}

/// A key's terms as JSON, for the audit log.
fn terms_object(key: &VirtualKey, known: &Known) -> Value {
    let mut object = terms_json(&key.terms, known.team_of(key).as_deref());
    object["alias"] = (*key.alias).into();
    object
}

/// Terms as operators read and write them.
pub fn terms_json(terms: &Terms, team: Option<&Team>) -> Value {
    json!({
        "team": team.map(|team| &*team.alias),
        "expires_at": terms.expires_at_ms.map(|ms| ms.div_euclid(1_000)),
        "models": terms.models.iter().collect::<Vec<_>>(),
        "rights": {
            "tuning": terms.rights.tuning,
            "unbounded_cost_usd": terms.rights.unbounded_cost.map(|cost| cost.to_string()),
        },
        "tags": terms.tags,
        "limits": limits_json(&terms.limits),
        "prompts": terms.prompts.iter().collect::<Vec<_>>(),
        "variables": &*terms.variables,
        "cache": terms.cache.name(),
    })
}

/// Which members a body must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Required {
    Alias,
    Nothing,
}

/// What an operator wants of a key; what was left out is none.
struct KeyChange {
    alias: Option<String>,
    team: Given<Arc<str>>,
    expires_at_ms: Given<i64>,
    models: Option<Vec<crate::domain::ids::ModelName>>,
    tuning: Given<Tuning>,
    unbounded_cost: Given<Usd>,
    tags: Option<Vec<String>>,
    limits: LimitsChange,
    prompts: Option<Vec<Arc<str>>>,
    variables: Given<Variables>,
    cache: Given<KeyUse>,
}

/// Values for the variables of stored prompts, by name.
type Variables = BTreeMap<Arc<str>, Value>;

impl KeyChange {
    fn read(body: &Value, required: Required, known: &Known, now_ms: i64) -> Result<Self, Vec<Problem>> {
        let form = Form::new(body);
        let alias = form.text("alias");
        match alias {
            None if required == Required::Alias => form.wrong("alias", "missing: name the key"),
            Some(None) => form.wrong("alias", ALIAS_RULE),
            Some(Some(alias)) if !alias_is_good(alias, KEY_ID_PREFIX) => form.wrong("alias", ALIAS_RULE),
            _ => {}
        }
        let team = form.read("team", |value| team(value, known));
        let expires_at_ms = form.read("expires_at", |value| expiry(value, now_ms));
        let models = form.list("models", MAX_ALLOWED, AllowedModels::pattern);
        let rights =
            form.object("rights", |rights| (rights.read("tuning", tuning), rights.usd("unbounded_cost_usd")));
        let (tuning, unbounded_cost) = match rights {
            None => (None, None),
            Some(None) => (Some(None), Some(None)),
            Some(Some(both)) => both,
        };
        let tags = form.list("tags", MAX_TAGS, tag);
        let limits = LimitsChange::read(&form);
        let prompts = form.list("prompts", MAX_ALLOWED, prompt);
        let variables = form.read("variables", variables);
        let cache = form.read("cache", |value| {
            value.as_str().and_then(KeyUse::from_name).ok_or("not one of \"on\", \"read_only\", \"off\"")
        });
        let alias = alias.flatten().map(str::to_owned);
        form.finish(Self {
            alias,
            team,
            expires_at_ms,
            models,
            tuning,
            unbounded_cost,
            tags,
            limits,
            prompts,
            variables,
            cache,
        })
    }

    fn applied_to(self, key: VirtualKey) -> VirtualKey {
        let Terms { team, expires_at_ms, models, rights, tags, limits, prompts, variables, cache } =
            key.terms;
        let terms = Terms {
            team: self.team.unwrap_or(team),
            expires_at_ms: self.expires_at_ms.unwrap_or(expires_at_ms),
            models: self.models.map_or(models, AllowedModels::new),
            rights: Rights {
                tuning: self.tuning.map_or(rights.tuning, Option::unwrap_or_default),
                unbounded_cost: self.unbounded_cost.unwrap_or(rights.unbounded_cost),
            },
            tags: self.tags.map_or(tags, label::in_order),
            limits: self.limits.applied_to(limits),
            prompts: self.prompts.map_or(prompts, AllowedPrompts::new),
            variables: self.variables.map_or(variables, |given| Arc::new(given.unwrap_or_default())),
            cache: self.cache.map_or(cache, Option::unwrap_or_default),
        };
        VirtualKey { alias: self.alias.map_or(key.alias, Into::into), terms, ..key }
    }
}

fn team(value: &Value, known: &Known) -> Result<Arc<str>, String> {
    let name = value.as_str().ok_or("not a text")?;
    match known.team(name) {
        Some(team) if team.archived_at_ms.is_some() => Err(format!("the team {name} is archived")),
        Some(team) => Ok(Arc::clone(&team.id)),
        None => Err(format!("there is no team with the id or alias {name}: make it first")),
    }
}

fn prompt(text: &str) -> Result<Arc<str>, &'static str> {
    AllowedPrompts::pattern(text).ok_or("no name of a prompt, exact or with one `*`")
}

/// Reads values for variables: scalars, or lists of texts.
fn variables(value: &Value) -> Result<Variables, String> {
    let object = value.as_object().ok_or("not an object")?;
    if object.len() > MAX_VARIABLES || value.to_string().len() > MAX_VARIABLES_BYTES {
        return Err(format!("more than {MAX_VARIABLES} values, or longer than {MAX_VARIABLES_BYTES} bytes"));
    }
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.contains('\0'));
    for (name, value) in object {
        let is_good = match value {
            Value::Bool(_) | Value::Number(_) => true,
            Value::Array(texts) => texts.iter().all(is_text),
            other => is_text(other),
        };
        if !is_good || name.is_empty() || name.contains('\0') {
            return Err(format!("{name:?} is no text, number, boolean or list of texts"));
        }
    }
    Ok(object.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect())
}

/// Reads seconds since 1970 UTC, or a time as RFC 3339 writes it.
fn expiry(value: &Value, now_ms: i64) -> Result<i64, &'static str> {
    let rule = "not a time: write seconds since 1970 UTC, or a text such as \"2027-01-31T00:00:00Z\"";
    let seconds = match value {
        Value::String(text) => text.parse().map(jiff::Timestamp::as_second).map_err(|_| rule)?,
        other => other.as_i64().ok_or(rule)?,
    };
    let ms =
        seconds.checked_mul(1_000).filter(|_| jiff::Timestamp::from_second(seconds).is_ok()).ok_or(rule)?;
    if ms <= now_ms {
        return Err("in the past: revoke the key instead");
    }
    Ok(ms)
}

fn tuning(value: &Value) -> Result<Tuning, &'static str> {
    let found = value.as_str().and_then(Tuning::from_name);
    found.ok_or("not one of \"none\", \"read\", \"write\", \"delete_models\"")
}

#[cfg(test)]
mod tests;
