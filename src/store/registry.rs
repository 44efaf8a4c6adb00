//! Rows of the model registry: what jobs have made, where it is served, and what was moved onto which route.
//!
//! A change claims what it has seen: the number of a route's last move, the version of a deployment's row. Where another
//! process was first nothing is written, and all is decided again.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditRow, Statement, all_audited, insertion};
use super::engine::StoreError;
use super::open::Store;
use super::pool::Pool;
use super::values::optional;
use crate::domain::money::Usd;
use crate::domain::prompt::{Injection, Mode, PromptRef, Role};
use crate::domain::registry::{
    Assignment, Hosted, HostedState, Placement, Point, Registered, SystemPrompt, Tier,
};

/// Models that are read at once: more were never made by one installation.
pub const MOST_MODELS: i64 = 10_000;
/// Moves that are read at once.
pub const MOST_MOVES: i64 = 1_000;

/// A step of a route's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRow {
    /// The route.
    pub route: Arc<str>,
    /// 1, 2, 3, …
    pub number: i64,
    /// What was done.
    pub kind: MoveKind,
    /// Which model it was about.
    pub model: Arc<str>,
    /// What stood on the route.
    pub before: Placement,
    /// What stands there.
    pub after: Placement,
    /// Which move it undoes.
    pub undoes: Option<i64>,
    /// When, ms since 1970 UTC.
    pub at_ms: i64,
    /// Who.
    pub author: Arc<str>,
    /// Why.
    pub note: Arc<str>,
}

/// What a move was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveKind {
    /// A model was put somewhere.
    Promote,
    /// A move was undone.
    Rollback,
    /// A model was taken out of all routes.
    Retire,
}

impl MoveKind {
    /// All of them.
    const ALL: [Self; 3] = [Self::Promote, Self::Rollback, Self::Retire];

    /// The name in rows and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Retire => "retire",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A deployment's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostedRow {
    /// The deployment.
    pub hosted: Hosted,
    /// The name of its provider.
    pub provider: Arc<str>,
    /// The registered model that it is of: its own name, or that of one of its checkpoints, is deployed.
    pub registered: Arc<str>,
    /// When it changed last, ms since 1970 UTC.
    pub changed_at_ms: i64,
    /// What a change claims to have seen.
    pub version: i64,
}

/// One thing that is to be written.
#[derive(Debug, Clone)]
pub enum Change {
    /// What stands on a route; the move's number is the one behind the last that was seen.
    Place(Box<MoveRow>),
    /// A model is out of all routes for good, or back.
    Retire {
        /// Its name.
        name: Arc<str>,
        /// When, ms since 1970 UTC; none brings it back.
        at_ms: Option<i64>,
    },
    /// A model's requests get a stored prompt, or none.
    Bind {
        /// Its name.
        name: Arc<str>,
        /// Which.
        bound: Option<Arc<Injection>>,
    },
    /// A model is no more.
    Delete {
        /// Its name.
        name: Arc<str>,
        /// When, ms since 1970 UTC.
        at_ms: i64,
    },
    /// A deployment is asked for; nobody else has one of its name.
    Host(Box<HostedRow>),
    /// A deployment has come further; its version is the one that was seen.
    Further(Box<HostedRow>),
    /// A deployment is gone; its version is the one that was seen.
    Unhost(Box<HostedRow>),
}

/// All that a catalog is made of, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Everything {
    /// What jobs have made, by name.
    pub models: Vec<Registered>,
    /// Their deployments' rows.
    pub hosted: Vec<HostedRow>,
    /// What stands on routes, and the number of the last move, by route.
    pub placed: BTreeMap<Arc<str>, (i64, Placement)>,
}

impl Everything {
    /// What stands on routes.
    pub fn assignments(&self) -> Vec<Assignment> {
        let placed = self.placed.iter();
        let assignment = |(route, (_, placement)): (&Arc<str>, &(i64, Placement))| Assignment {
            route: Arc::clone(route),
            placement: placement.clone(),
        };
        placed.map(assignment).collect()
    }
}

/// The tables of the registry.
#[derive(Debug, Clone)]
pub struct RegistryRows {
    pool: Pool,
}

impl RegistryRows {
    /// The tables in a store.
    pub fn new(store: &Store) -> Self {
        Self { pool: store.pool().clone() }
    }

    /// Adds a model, unless one of its name is or was there; says whether it was added.
    pub async fn register(
        &self,
        model: &Registered,
        curve: &[Point],
        audit: &AuditRow,
    ) -> Result<bool, StoreError> {
        let (row, told) = (registration(model, curve), insertion(audit));
        let work = self.pool.transaction(|connection| {
            let all = async move {
                if row.execute(&mut *connection).await?.rows_affected() == 0 {
                    return Ok(false);
                }
                told.execute(&mut *connection).await?;
                Ok(true)
            };
            all.boxed()
        });
        Ok(work.await?)
    }

    /// All of it that was not deleted.
    pub async fn everything(&self) -> Result<Everything, StoreError> {
        let hosted = self.hosted().await?;
        let models = sqlx::query(
            "SELECT name, owner, provider, base, job_id, dataset_sha256, system_prompt, trained_tokens, cost_nanos,
                    price_version, checkpoints, bound_prompt, created_at_ms, finished_at_ms, retired_at_ms
             FROM registered_models WHERE deleted_at_ms IS NULL ORDER BY name LIMIT $1",
        )
        .bind(MOST_MODELS)
        .fetch_all(&self.pool)
        .await?;
        let mut models: Vec<Registered> = models.iter().map(model_of).collect::<Result<_, _>>()?;
        for model in &mut models {
            let its = hosted.iter().filter(|row| row.registered == model.name);
            model.hosted = its.map(|row| row.hosted.clone()).collect();
        }
        let placed =
            sqlx::query("SELECT route, version, placement FROM model_assignments ORDER BY route LIMIT $1")
                .bind(MOST_MODELS)
                .fetch_all(&self.pool)
                .await?;
        let placed = placed.iter().map(|row| {
            let route: String = row.try_get(0)?;
            let placement = read(row, 2, &route)?;
            Ok((route.into(), (row.try_get(1)?, placement)))
        });
        Ok(Everything { models, hosted, placed: placed.collect::<Result<_, StoreError>>()? })
    }

    /// How a model's training went.
    pub async fn curve(&self, name: &str) -> Result<Vec<Point>, StoreError> {
        let row = sqlx::query("SELECT curve FROM registered_models WHERE name = $1")
            .bind(name.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        row.map_or_else(|| Ok(Vec::new()), |row| read(&row, 0, name))
    }

    /// All deployments' rows.
    async fn hosted(&self) -> Result<Vec<HostedRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT provider, name, model, registered, tier, capacity, state, why, wished_at_ms, ends_at_ms,
                    changed_at_ms, version
             FROM model_deployments ORDER BY provider, name LIMIT $1",
        )
        .bind(MOST_MODELS)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(hosted_of).collect()
    }

    /// The moves of a route, or of all of them, the latest first.
    pub async fn moves(&self, route: Option<&str>) -> Result<Vec<MoveRow>, StoreError> {
        let columns = "SELECT route, number, kind, model, placement_before, placement_after, undoes, at_ms, author, note
             FROM model_moves";
        let rows = match route {
            Some(route) => {
                let text =
                    sqlx::AssertSqlSafe(format!("{columns} WHERE route = $1 ORDER BY number DESC LIMIT $2"));
                let query = sqlx::query(text).bind(route.to_owned()).bind(MOST_MOVES);
                query.fetch_all(&self.pool).await?
            }
            None => {
                let text = format!("{columns} ORDER BY at_ms DESC, route, number DESC LIMIT $1");
                sqlx::query(sqlx::AssertSqlSafe(text)).bind(MOST_MOVES).fetch_all(&self.pool).await?
            }
        };
        rows.iter().map(move_of).collect()
    }

    /// Writes changes and their rows of the audit log, all or none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Taken`] when another process has changed what one of them builds on.
    pub async fn write(&self, changes: Vec<Change>, audit: &[AuditRow]) -> Result<(), StoreError> {
        all_audited(&self.pool, changes.into_iter().flat_map(statements), audit).await
    }
}

fn registration(model: &Registered, curve: &[Point]) -> Statement {
    sqlx::query(
        "INSERT INTO registered_models (name, owner, provider, base, job_id, dataset_sha256, system_prompt,
                                        trained_tokens, cost_nanos, price_version, checkpoints, curve, created_at_ms,
                                        finished_at_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (name) DO NOTHING",
    )
    .bind(model.name.to_string())
    .bind(model.owner.to_string())
    .bind(model.provider.to_string())
    .bind(model.base.to_string())
    .bind(model.job_id.to_string())
    .bind(model.dataset_sha256.to_string())
    .bind(model.system_prompt.as_ref().map(|prompt| prompt.text.to_string()))
    .bind(optional(model.trained_tokens))
    .bind(model.cost.nanos())
    .bind(model.price_version.to_string())
    .bind(json!(model.checkpoints).to_string())
    .bind(json!(curve).to_string())
    .bind(model.created_at_ms)
    .bind(model.finished_at_ms)
}

/// The statements of a change, each of which has to find its row.
fn statements(change: Change) -> Vec<Statement> {
    match change {
        Change::Place(moved) => placed(*moved),
        Change::Retire { name, at_ms } => {
            let text =
                "UPDATE registered_models SET retired_at_ms = $2 WHERE name = $1 AND deleted_at_ms IS NULL";
            vec![sqlx::query(text).bind(name.to_string()).bind(at_ms)]
        }
        Change::Bind { name, bound } => {
            let text =
                "UPDATE registered_models SET bound_prompt = $2 WHERE name = $1 AND deleted_at_ms IS NULL";
            vec![sqlx::query(text).bind(name.to_string()).bind(bound.as_deref().map(bound_text))]
        }
        Change::Delete { name, at_ms } => {
            // not where somebody deploys it meanwhile
            let text =
                "UPDATE registered_models SET deleted_at_ms = $2 WHERE name = $1 AND deleted_at_ms IS NULL
                        AND NOT EXISTS (SELECT 1 FROM model_deployments WHERE registered = $1)";
            vec![sqlx::query(text).bind(name.to_string()).bind(at_ms)]
        }
        Change::Host(row) => vec![claimed(&row), hosting(*row)],
        Change::Further(row) => {
            let HostedRow { hosted, provider, changed_at_ms, version, .. } = *row;
            let query = sqlx::query(
                "UPDATE model_deployments SET state = $4, why = $5, ends_at_ms = $6, changed_at_ms = $7, version = $3 + 1
                 WHERE provider = $1 AND name = $2 AND version = $3 AND wished_at_ms = $8",
            );
            let query = query.bind(provider.to_string()).bind(hosted.name.to_string()).bind(version);
            let query = query.bind(hosted.state.name()).bind(hosted.why.map(|why| why.to_string()));
            vec![query.bind(hosted.ends_at_ms).bind(changed_at_ms).bind(hosted.wished_at_ms)]
        }
        Change::Unhost(row) => {
            let text = "DELETE FROM model_deployments
                        WHERE provider = $1 AND name = $2 AND version = $3 AND wished_at_ms = $4";
            let query = sqlx::query(text).bind(row.provider.to_string()).bind(row.hosted.name.to_string());
            vec![query.bind(row.version).bind(row.hosted.wished_at_ms)]
        }
    }
}

/// Claims that a model is there, and holds its row: a deployment that is made and a deletion wait for each other.
fn claimed(row: &HostedRow) -> Statement {
    let claim = "UPDATE registered_models SET deleted_at_ms = NULL WHERE name = $1 AND deleted_at_ms IS NULL";
    sqlx::query(claim).bind(row.registered.to_string())
}

fn hosting(row: HostedRow) -> Statement {
    let HostedRow { hosted, provider, registered, changed_at_ms, version } = row;
    sqlx::query(
        "INSERT INTO model_deployments (provider, name, model, registered, tier, capacity, state, why, wished_at_ms,
                                        ends_at_ms, changed_at_ms, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(provider.to_string())
    .bind(hosted.name.to_string())
    .bind(hosted.model.to_string())
    .bind(registered.to_string())
    .bind(hosted.tier.name())
    .bind(i64::from(hosted.capacity))
    .bind(hosted.state.name())
    .bind(hosted.why.map(|why| why.to_string()))
    .bind(hosted.wished_at_ms)
    .bind(hosted.ends_at_ms)
    .bind(changed_at_ms)
    .bind(version)
}

/// What stands on a route, and its history's next row.
fn placed(moved: MoveRow) -> Vec<Statement> {
    let MoveRow { route, number, kind, model, before, after, undoes, at_ms, author, note } = moved;
    let placement = json!(after).to_string();
    let text = match number {
        1 => "INSERT INTO model_assignments (route, version, placement) VALUES ($1, $2, $3)",
        _ => {
            "UPDATE model_assignments SET version = $2, placement = $3 WHERE route = $1 AND version = $2 - 1"
        }
    };
    let assignment = sqlx::query(text).bind(route.to_string()).bind(number).bind(placement.clone());
    let history = sqlx::query(
        "INSERT INTO model_moves (route, number, kind, model, placement_before, placement_after, undoes, at_ms, author,
                                  note)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(route.to_string())
    .bind(number)
    .bind(kind.name())
    .bind(model.to_string())
    .bind(json!(before).to_string())
    .bind(placement)
    .bind(undoes)
    .bind(at_ms)
    .bind(author.to_string())
    .bind(note.to_string());
    vec![assignment, history]
}

/// JSON in a column of the row that `id` names.
fn read<T: DeserializeOwned>(row: &AnyRow, column: usize, id: &str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|_| damaged(id))
}

fn damaged(id: &str) -> StoreError {
    StoreError::Damaged(format!("a row of the model registry: {id}"))
}

/// A bound prompt as its column has it.
#[derive(Serialize, Deserialize)]
struct Bound {
    prompt: String,
    mode: Mode,
    role: Role,
}

fn bound_text(bound: &Injection) -> String {
    let bound = Bound { prompt: bound.prompt.to_string(), mode: bound.mode, role: bound.role };
    json!(bound).to_string()
}

fn bound_of(text: &str, id: &str) -> Result<Arc<Injection>, StoreError> {
    let Bound { prompt, mode, role } = serde_json::from_str(text).map_err(|_| damaged(id))?;
    let prompt = PromptRef::parse(&prompt).ok_or_else(|| damaged(id))?;
    Ok(Arc::new(Injection { prompt, mode, role }))
}

fn model_of(row: &AnyRow) -> Result<Registered, StoreError> {
    let name: String = row.try_get(0)?;
    let text = |column: usize| row.try_get::<String, _>(column).map(Arc::<str>::from);
    let tokens: Option<i64> = row.try_get(7)?;
    let prompt: Option<String> = row.try_get(6)?;
    let bound: Option<String> = row.try_get(11)?;
    Ok(Registered {
        owner: text(1)?.parse().map_err(|_| damaged(&name))?,
        provider: text(2)?,
        base: text(3)?,
        job_id: text(4)?,
        dataset_sha256: text(5)?,
        system_prompt: prompt.as_deref().map(SystemPrompt::new),
        trained_tokens: tokens.and_then(|tokens| u64::try_from(tokens).ok()),
        cost: Usd::from_nanos(row.try_get(8)?),
        price_version: text(9)?,
        checkpoints: read(row, 10, &name)?,
        bound: bound.map(|bound| bound_of(&bound, &name)).transpose()?,
        created_at_ms: row.try_get(12)?,
        finished_at_ms: row.try_get(13)?,
        retired_at_ms: row.try_get(14)?,
        hosted: Vec::new(),
        name: name.into(),
    })
}

fn hosted_of(row: &AnyRow) -> Result<HostedRow, StoreError> {
    let text = |column: usize| row.try_get::<String, _>(column).map(Arc::<str>::from);
    let name = text(1)?;
    let why: Option<String> = row.try_get(7)?;
    let capacity: i64 = row.try_get(5)?;
    Ok(HostedRow {
        provider: text(0)?,
        registered: text(3)?,
        changed_at_ms: row.try_get(10)?,
        version: row.try_get(11)?,
        hosted: Hosted {
            model: text(2)?,
            tier: Tier::read(&text(4)?).ok_or_else(|| damaged(&name))?,
            capacity: u32::try_from(capacity).map_err(|_| damaged(&name))?,
            state: HostedState::from_name(&text(6)?).ok_or_else(|| damaged(&name))?,
            why: why.map(Into::into),
            wished_at_ms: row.try_get(8)?,
            ends_at_ms: row.try_get(9)?,
            name,
        },
    })
}

fn move_of(row: &AnyRow) -> Result<MoveRow, StoreError> {
    let text = |column: usize| row.try_get::<String, _>(column).map(Arc::<str>::from);
    let route = text(0)?;
    Ok(MoveRow {
        number: row.try_get(1)?,
        kind: MoveKind::from_name(&text(2)?).ok_or_else(|| damaged(&route))?,
        model: text(3)?,
        before: read(row, 4, &route)?,
        after: read(row, 5, &route)?,
        undoes: row.try_get(6)?,
        at_ms: row.try_get(7)?,
        author: text(8)?,
        note: text(9)?,
        route,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::registry::{Stage, Variant};
    use crate::domain::tuning::Owner;
    use crate::store::audit::AuditRows;
    use crate::store::audit::tests::change;
    use crate::store::testing::for_each_database;

    fn model(name: &str) -> Registered {
        let checkpoint = Variant {
            step: 40,
            name: format!("{name}:ckpt-step-40").into(),
            created_at_ms: Some(7),
            metrics: json!({"a": 0.5}),
        };
        Registered {
            name: name.into(),
            owner: Owner::Team("team_a".into()),
            provider: "openai".into(),
            base: "gpt-4.1-mini".into(),
            job_id: "ftjob-1".into(),
            dataset_sha256: "ab".into(),
            system_prompt: Some(SystemPrompt::new("猫です。")),
            trained_tokens: Some(300_000),
            cost: Usd::from_nanos(2_400_000_000),
            price_version: "v1+2".into(),
            checkpoints: vec![checkpoint],
            created_at_ms: 1,
            finished_at_ms: 2,
            retired_at_ms: None,
            bound: None,
            hosted: Vec::new(),
        }
    }

    fn moved(number: i64, before: &Placement, after: &Placement) -> Change {
        Change::Place(Box::new(row(number, before, after)))
    }

    fn row(number: i64, before: &Placement, after: &Placement) -> MoveRow {
        MoveRow {
            route: "bot".into(),
            number,
            kind: MoveKind::Promote,
            model: "ft:a".into(),
            before: before.clone(),
            after: after.clone(),
            undoes: (number > 1).then_some(1),
            at_ms: number,
            author: "ann".into(),
            note: "why".into(),
        }
    }

    #[tokio::test]
    async fn a_model_is_registered_once_and_read_back() {
        for_each_database(async |database| {
            let store = database.open().await;
            let rows = RegistryRows::new(&store);
            let curve = crate::domain::registry::curve::read("step,train_loss\n1,0.5\n");
            assert!(rows.register(&model("ft:a"), &curve, &change("1")).await.expect("written"));
            let other = Registered { base: "other".into(), ..model("ft:a") };
            assert!(!rows.register(&other, &[], &change("2")).await.expect("it is there"));
            let all = rows.everything().await.expect("read");
            assert_eq!((all.models, all.hosted.len(), all.placed.len()), (vec![model("ft:a")], 0, 0));
            assert_eq!(rows.curve("ft:a").await.expect("read"), curve);
            assert_eq!(rows.curve("ft:b").await.expect("read"), []);
            let told = AuditRows::new(&store).page(None, 9).await.expect("read");
            assert_eq!(told, [change("1")], "only what was done is in the log");

            let prompt = PromptRef::parse("cat@3").expect("a prompt");
            let bound = Some(Arc::new(Injection { prompt, mode: Mode::Replace, role: Role::Auto }));
            let steps = vec![
                Change::Bind { name: "ft:a".into(), bound: bound.clone() },
                Change::Retire { name: "ft:a".into(), at_ms: Some(7) },
            ];
            rows.write(steps, &[change("3")]).await.expect("written");
            let all = rows.everything().await.expect("read");
            assert_eq!(all.models, [Registered { bound, retired_at_ms: Some(7), ..model("ft:a") }]);
            let delete = || vec![Change::Delete { name: "ft:a".into(), at_ms: 9 }];
            rows.write(delete(), &[change("4")]).await.expect("deleted");
            assert_eq!(rows.everything().await.expect("read").models, []);
            let twice = rows.write(delete(), &[change("5")]).await;
            assert!(matches!(twice, Err(StoreError::Taken)), "{twice:?}");
            assert!(
                !rows.register(&model("ft:a"), &[], &change("6")).await.expect("its name is gone for ever")
            );
        })
        .await;
    }

    #[tokio::test]
    async fn moves_are_numbered_and_one_of_two_is_first() {
        for_each_database(async |database| {
            let rows = RegistryRows::new(&database.open().await);
            let none = Placement::default();
            let first = none.moved(&"ft:a".into(), Stage::Candidate, 1).expect("a move");
            let second = first.moved(&"ft:a".into(), Stage::Canary, 7).expect("a move");
            rows.write(vec![moved(1, &none, &first)], &[change("1")]).await.expect("written");
            for late in [moved(1, &none, &second), moved(3, &first, &second)] {
                let late = rows.write(vec![late], &[change("2")]).await;
                assert!(matches!(late, Err(StoreError::Taken)), "{late:?}");
            }
            rows.write(vec![moved(2, &first, &second)], &[change("3")]).await.expect("written");
            let history = [row(2, &first, &second), row(1, &none, &first)];
            assert_eq!(rows.moves(Some("bot")).await.expect("read"), history);
            assert_eq!(rows.moves(None).await.expect("read"), history);
            assert_eq!(rows.moves(Some("other")).await.expect("read"), []);
            let all = rows.everything().await.expect("read");
            assert_eq!(all.placed, BTreeMap::from([("bot".into(), (2, second.clone()))]));
            assert_eq!(all.assignments(), [Assignment { route: "bot".into(), placement: second }]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_deployment_goes_on_only_from_where_it_was_seen() {
        for_each_database(async |database| {
            let rows = RegistryRows::new(&database.open().await);
            let hosted = |state| Hosted {
                name: "support-ft".into(),
                model: "ft:a".into(),
                tier: Tier::Developer,
                capacity: 50,
                state,
                why: (state == HostedState::Failed).then(|| "no quota".into()),
                wished_at_ms: 1,
                ends_at_ms: Some(2),
            };
            let row = |state, version| {
                Box::new(HostedRow {
                    hosted: hosted(state),
                    provider: "azure".into(),
                    registered: "ft:a".into(),
                    changed_at_ms: 3,
                    version,
                })
            };
            let wished = row(HostedState::Wished, 1);
            let nobody = rows.write(vec![Change::Host(wished.clone())], &[change("0")]).await;
            assert!(matches!(nobody, Err(StoreError::Taken)), "there is no such model: {nobody:?}");
            rows.register(&model("ft:a"), &[], &change("1")).await.expect("written");
            rows.write(vec![Change::Host(wished.clone())], &[change("2")]).await.expect("written");
            let twice = rows.write(vec![Change::Host(wished.clone())], &[change("3")]).await;
            assert!(matches!(twice, Err(StoreError::Taken)), "its name is taken: {twice:?}");
            let all = rows.everything().await.expect("read");
            assert_eq!(
                (all.hosted, &all.models[0].hosted),
                (vec![*wished], &vec![hosted(HostedState::Wished)])
            );
            let failed = row(HostedState::Failed, 1);
            rows.write(vec![Change::Further(failed.clone())], &[]).await.expect("written");
            let late = rows.write(vec![Change::Further(failed)], &[]).await;
            assert!(matches!(late, Err(StoreError::Taken)), "{late:?}");
            assert_eq!(rows.everything().await.expect("read").hosted, [*row(HostedState::Failed, 2)]);
            let delete = Change::Delete { name: "ft:a".into(), at_ms: 9 };
            let late = rows.write(vec![delete.clone()], &[]).await;
            assert!(matches!(late, Err(StoreError::Taken)), "it is deployed: {late:?}");
            rows.write(vec![Change::Unhost(row(HostedState::Leaving, 2)), delete], &[]).await.expect("gone");
        })
        .await;
    }
}
