//! Deployments at providers that serve only what was deployed: asked for, watched until they answer, and taken away. The
//! row is there before the provider is asked, so a process that dies leaves nothing that nobody knows of.

use std::sync::Arc;

use serde_json::{Value, json};

use super::moves::{Signed, Steps};
use super::{ATTEMPTS, OutsideError, Registry, RegistryError, StandState, find};
use crate::clock;
use crate::control::audit::Actor;
use crate::control::form::Form;
use crate::domain::catalog::{Deployment, ProviderKind};
use crate::domain::label::alias_is_good;
use crate::domain::money::Usd;
use crate::domain::price::read::moment_text;
use crate::domain::registry::{Hosted, HostedState, Tier};
use crate::store::registry::{Change, Everything, HostedRow};
use crate::tuning::hosting::Made;

/// What a deployment may be asked for at most where nobody says: thousands of tokens a minute.
const USUAL_CAPACITY: u64 = 10;
const MOST_CAPACITY: u64 = 10_000_000;
/// A month for whoever pays by the hour: a twelfth of a year.
const MONTH_S: u64 = 730 * 3_600;
/// So long a wish is its asker's own; then whoever steps asks the provider again, ms.
const ASKER_LIMIT_MS: i64 = 30_000;
/// So long a provider may not know a deployment that we asked for, ms.
const UNSEEN_LIMIT_MS: i64 = 10 * 60_000;
/// So long requests may find nobody at a deployment that is made: Azure says five minutes (2026-03). Twice that, ms.
const WARMING_LIMIT_MS: i64 = 10 * 60_000;
/// Between two looks at a deployment that answers, ms.
const LOOK_EVERY_MS: i64 = 10 * 60_000;

/// What a deployment costs whether it is used or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostingCost {
    /// For an hour; none where nobody knows.
    pub per_hour: Option<Usd>,
    /// For a month of 730 hours.
    pub per_month: Option<Usd>,
}

/// A deployment that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its row.
    pub row: HostedRow,
    /// What it costs.
    pub cost: HostingCost,
    /// The same, and when it ends, in words.
    pub warning: String,
}

/// What is to be deployed.
struct Wish {
    name: Arc<str>,
    tier: Tier,
    capacity: u32,
    signed: Signed,
}

impl Wish {
    fn read(body: &Value) -> Result<Self, RegistryError> {
        let form = Form::new(body);
        let name = form.read("name", |value| {
            let name = value.as_str().filter(|name| name.len() >= 2 && alias_is_good(name, "@"));
            name.ok_or("2 to 64 of A-Z a-z 0-9 . _ - stand here")
        });
        if !form.has("name") {
            form.wrong(
                "name",
                "missing: how the deployment is to be called at the provider, such as support-ft",
            );
        }
        let tier = form.read("tier", |value| {
            let names = Tier::ALL.map(Tier::name).join(", ");
            value.as_str().and_then(Tier::read).ok_or(format!("one of {names} stands here"))
        });
        if !form.has("tier") {
            form.wrong(
                "tier",
                "missing: developer (ends after 24 hours), standard or globalstandard (by the hour)",
            );
        }
        let capacity = form.number("capacity", 1..=MOST_CAPACITY).flatten().unwrap_or(USUAL_CAPACITY);
        let wish = Self {
            name: name.flatten().unwrap_or_default().into(),
            tier: tier.flatten().unwrap_or(Tier::Developer),
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            signed: Signed::read(&form),
        };
        form.finish(wish).map_err(RegistryError::Invalid)
    }
}

impl Registry {
    /// Has a model or a checkpoint deployed, as a body says: `name`, `tier`, `capacity`. It answers some minutes later.
    pub async fn deploy(&self, model: &str, body: &Value) -> Result<Asked, RegistryError> {
        let wish = Wish::read(body)?;
        self.is_free(model, &wish.name).await?;
        let row = self.wished(model, &wish).await?;
        let cost = self.hosting_cost(&row);
        let warning = warning(&row, cost);
        tracing::warn!(deployment = %wish.name, model, "a deployment is asked for: {warning}");
        // not under the lock: a provider takes its time
        match self.outside.deploy(&row.provider, &row.hosted).await {
            Ok(()) => {}
            // heard or not: whoever steps next finds out
            Err(OutsideError::Away { message, .. }) => {
                tracing::warn!(deployment = %wish.name, message, "whether the deployment was heard is not known");
            }
            Err(error) => {
                self.give_up(&row).await?;
                return Err(error.into());
            }
        }
        let row = self.further(&row, HostedState::Creating, None).await?;
        Ok(Asked { row, cost, warning })
    }

    /// Whether a name is free, at the provider too: it would put the new deployment in another's place.
    async fn is_free(&self, model: &str, name: &Arc<str>) -> Result<(), RegistryError> {
        let known = self.read_alone().await?;
        let provider = &find(&known, model)?.provider;
        self.can_deploy(&known, provider, name)?;
        match self.outside.look(provider, name).await? {
            None => Ok(()),
            Some(_) => Err(RegistryError::Refused(format!(
                "{name} is another deployment at provider `{provider}`, which would be overwritten: choose another name"
            ))),
        }
    }

    /// Writes down that a deployment is wished for.
    async fn wished(&self, name: &str, wish: &Wish) -> Result<HostedRow, RegistryError> {
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let known = self.read().await?;
            let model = find(&known, name)?;
            self.can_deploy(&known, &model.provider, &wish.name)?;
            self.stays(&known, &[&model.name])?;
            let now_ms = clock::unix_ms();
            let hosted = Hosted {
                name: Arc::clone(&wish.name),
                model: name.into(),
                tier: wish.tier,
                capacity: wish.capacity,
                state: HostedState::Wished,
                why: None,
                wished_at_ms: now_ms,
                ends_at_ms: wish.tier.ends_at_ms(now_ms),
            };
            let row = HostedRow {
                hosted,
                provider: Arc::clone(&model.provider),
                registered: Arc::clone(&model.name),
                changed_at_ms: now_ms,
                version: 1,
            };
            let mut steps = Steps::new(now_ms);
            let detail = json!({
                "model": name,
                "provider": &*row.provider,
                "tier": wish.tier.name(),
                "capacity": wish.capacity,
            });
            let detail = wish.signed.on(detail);
            steps.tell(Actor::Admin, "model.deploy", &wish.name, &detail)?;
            if self.write(vec![Change::Host(Box::new(row.clone()))], &steps.told).await? {
                self.read().await?;
                return Ok(row);
            }
        }
        Err(RegistryError::Contended)
    }

    /// Whether a provider deploys at all, and the name is free.
    fn can_deploy(
        &self,
        known: &Everything,
        provider: &Arc<str>,
        name: &Arc<str>,
    ) -> Result<(), RegistryError> {
        let laid = self.laid.lock();
        let Some(found) = laid.base.providers.get(provider) else {
            return Err(OutsideError::NoProvider(Arc::clone(provider)).into());
        };
        if found.dialect.kind() != ProviderKind::Azure {
            let words = format!(
                "at provider `{provider}` nothing is deployed: a model is served there by its own name"
            );
            return Err(RegistryError::Refused(words));
        }
        // Azure takes the case of letters for the same
        let is_its = |deployment: &Deployment| {
            deployment.provider.name == *provider && deployment.upstream_model.eq_ignore_ascii_case(name)
        };
        let is_taken = laid.base.deployments.contains_key(name)
            || laid.base.deployments.values().any(|deployment| is_its(deployment))
            || known.hosted.iter().any(|row| row.hosted.name.eq_ignore_ascii_case(name))
            || laid.base.models().any(|model| model.name.as_str() == &**name);
        match is_taken {
            true => Err(RegistryError::Refused(format!(
                "{name} is the name of another deployment or model: choose one"
            ))),
            false => Ok(()),
        }
    }

    /// Has a deployment taken away; `force` also where a route is left without it.
    pub async fn undeploy(&self, name: &str, body: &Value) -> Result<HostedRow, RegistryError> {
        let form = Form::new(body);
        let force = form.read("force", |value| value.as_bool().ok_or("true or false stands here")).flatten();
        let signed = Signed::read(&form);
        let force = form.finish(force.unwrap_or(false)).map_err(RegistryError::Invalid)?;
        let row = self.leaving(name, force, &signed).await?;
        match self.outside.undeploy(&row.provider, name).await {
            // whoever steps next sees that it is gone, or asks again
            Ok(()) | Err(OutsideError::Away { .. }) => Ok(row),
            Err(error) => Err(error.into()),
        }
    }

    async fn leaving(&self, name: &str, force: bool, signed: &Signed) -> Result<HostedRow, RegistryError> {
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let known = self.read().await?;
            let row = known.hosted.iter().find(|row| *row.hosted.name == *name);
            let row = row.ok_or_else(|| RegistryError::NoDeployment(name.chars().take(200).collect()))?;
            let routes = routes_without(&known, row);
            if !force && !routes.is_empty() {
                let words = format!(
                    "{name} is the only deployment of {}, which is asked for on {}: roll that back first, or use force",
                    row.hosted.model,
                    routes.join(", ")
                );
                return Err(RegistryError::Refused(words));
            }
            let now_ms = clock::unix_ms();
            let mut row = row.clone();
            row.hosted.state = HostedState::Leaving;
            row.changed_at_ms = now_ms;
            let mut steps = Steps::new(now_ms);
            let detail = signed.on(json!({"model": &*row.hosted.model, "provider": &*row.provider}));
            steps.tell(Actor::Admin, "model.undeploy", name, &detail)?;
            if self.write(vec![Change::Further(Box::new(row.clone()))], &steps.told).await? {
                self.read().await?;
                row.version += 1;
                return Ok(row);
            }
        }
        Err(RegistryError::Contended)
    }

    /// What an hour of a deployment costs at this moment's prices.
    pub fn hosting_cost(&self, row: &HostedRow) -> HostingCost {
        let hosted = &row.hosted;
        let found =
            self.prices.load().find(ProviderKind::Azure, &hosted.name, Some(&hosted.model), clock::unix_ms());
        let price = found.ok().map(|found| found.price);
        let cost = |seconds| match hosted.tier.is_by_the_hour() {
            true => price.as_ref()?.hosting_cost(seconds, Some(hosted.tier.sku())),
            false => Some(Usd::ZERO),
        };
        HostingCost { per_hour: cost(3_600), per_month: cost(MONTH_S) }
    }

    /// Looks at all deployments that are not settled, and now and then at those that are; does what is next for each.
    pub async fn step(&self) -> Result<(), RegistryError> {
        let now_ms = clock::unix_ms();
        let known = self.known.load_full();
        for row in &known.hosted {
            let is_due = row.hosted.state.is_under_way() || now_ms - row.changed_at_ms >= LOOK_EVERY_MS;
            if is_due && let Err(error) = self.step_one(row, now_ms).await {
                tracing::warn!(deployment = %row.hosted.name, %error, "a deployment could not be looked at");
            }
        }
        Ok(())
    }

    pub(super) async fn step_one(&self, row: &HostedRow, now_ms: i64) -> Result<(), RegistryError> {
        let (provider, name) = (&*row.provider, &*row.hosted.name);
        let age_ms = now_ms - row.changed_at_ms;
        let looked_ms = clock::unix_ms();
        match row.hosted.state {
            HostedState::Wished if age_ms < ASKER_LIMIT_MS => Ok(()),
            HostedState::Wished => self.step_wished(row).await,
            HostedState::Creating => self.step_creating(row, age_ms).await,
            HostedState::Warming => {
                if self.outside.answers(provider, name).await? {
                    return self.further(row, HostedState::Ready, None).await.map(drop);
                }
                if age_ms < WARMING_LIMIT_MS {
                    return Ok(());
                }
                let why = "it was made, but requests still find nobody there";
                self.further(row, HostedState::Failed, Some(why)).await.map(drop)
            }
            HostedState::Leaving => match self.outside.look(provider, name).await? {
                None => self.gone(row, looked_ms).await,
                Some(_) if self.claim(row).await?.is_some() => {
                    Ok(self.outside.undeploy(provider, name).await?)
                }
                Some(_) => Ok(()),
            },
            HostedState::Ready | HostedState::Failed => match self.outside.look(provider, name).await? {
                None => {
                    tracing::warn!(deployment = name, provider, "the provider has this deployment no longer");
                    self.gone(row, looked_ms).await
                }
                // looked at: the next look is some minutes away
                Some(_) => self.further(row, row.hosted.state, row.hosted.why.as_deref()).await.map(drop),
            },
        }
    }

    async fn step_wished(&self, row: &HostedRow) -> Result<(), RegistryError> {
        let Some(row) = self.claim(row).await? else { return Ok(()) };
        match self.outside.deploy(&row.provider, &row.hosted).await {
            Ok(()) => self.further(&row, HostedState::Creating, None).await.map(drop),
            Err(error @ OutsideError::Away { .. }) => Err(error.into()),
            Err(error) => self.further(&row, HostedState::Failed, Some(&error.to_string())).await.map(drop),
        }
    }

    async fn step_creating(&self, row: &HostedRow, age_ms: i64) -> Result<(), RegistryError> {
        let looked_ms = clock::unix_ms();
        let Some(stand) = self.outside.look(&row.provider, &row.hosted.name).await? else {
            return match age_ms < UNSEEN_LIMIT_MS {
                true => Ok(()),
                false => {
                    let why = "the provider does not know it";
                    self.further(row, HostedState::Failed, Some(why)).await.map(drop)
                }
            };
        };
        match stand.state {
            StandState::UnderWay => Ok(()),
            StandState::Failed(why) => self.further(row, HostedState::Failed, Some(&why)).await.map(drop),
            StandState::Made => {
                let mut row = row.clone();
                let made_at_ms = stand.created_at_ms.unwrap_or(row.hosted.wished_at_ms);
                row.hosted.ends_at_ms = row.hosted.tier.ends_at_ms(made_at_ms);
                if let Some(since_ms) = stand.created_at_ms {
                    let Hosted { name, model, tier, .. } = &row.hosted;
                    let (provider, sku) = (&*row.provider, tier.sku());
                    self.witness.made(Made { name, provider, model, sku, since_ms }, looked_ms).await?;
                }
                self.further(&row, HostedState::Warming, None).await.map(drop)
            }
        }
    }

    /// Writes how far a deployment is. Where another process was first, its word stands.
    async fn further(
        &self,
        row: &HostedRow,
        state: HostedState,
        why: Option<&str>,
    ) -> Result<HostedRow, RegistryError> {
        let _only_one = self.changing.lock().await;
        let mut next = row.clone();
        next.hosted.state = state;
        next.hosted.why = why.map(Into::into);
        next.changed_at_ms = clock::unix_ms();
        if state != row.hosted.state {
            tracing::info!(deployment = %row.hosted.name, state = state.name(), why, "a deployment has come further");
        }
        let is_written = self.write(vec![Change::Further(Box::new(next.clone()))], &[]).await?;
        let known = self.read().await?;
        next.version += i64::from(is_written);
        let now = known
            .hosted
            .iter()
            .find(|known| known.hosted.name == row.hosted.name && known.provider == row.provider);
        Ok(now.cloned().unwrap_or(next))
    }

    /// Claims a row before its provider is told to change something; none where another process was first, for which the
    /// name may stand for another deployment by now.
    async fn claim(&self, row: &HostedRow) -> Result<Option<HostedRow>, RegistryError> {
        let _only_one = self.changing.lock().await;
        let mut row = row.clone();
        row.changed_at_ms = clock::unix_ms();
        let is_ours = self.write(vec![Change::Further(Box::new(row.clone()))], &[]).await?;
        self.read().await?;
        row.version += 1;
        Ok(is_ours.then_some(row))
    }

    /// Strikes a deployment out that was there no longer at a moment. Its hours end before its row goes: whoever is cut
    /// off between the two looks again.
    async fn gone(&self, row: &HostedRow, at_ms: i64) -> Result<(), RegistryError> {
        self.witness.gone(&row.provider, &row.hosted.name, at_ms).await?;
        let _only_one = self.changing.lock().await;
        let mut steps = Steps::new(clock::unix_ms());
        let detail = json!({"model": &*row.hosted.model, "provider": &*row.provider});
        steps.tell(Actor::Gateway, "model.undeployed", &row.hosted.name, &detail)?;
        self.write(vec![Change::Unhost(Box::new(row.clone()))], &steps.told).await?;
        self.read().await.map(drop)
    }

    /// Strikes a deployment out that the provider has refused.
    async fn give_up(&self, row: &HostedRow) -> Result<(), RegistryError> {
        let _only_one = self.changing.lock().await;
        self.write(vec![Change::Unhost(Box::new(row.clone()))], &[]).await?;
        self.read().await.map(drop)
    }
}

/// The routes on which a model is asked for and would have no deployment without this one.
fn routes_without(known: &Everything, row: &HostedRow) -> Vec<String> {
    let others = known.hosted.iter().any(|other| {
        let is_other = other.hosted.name != row.hosted.name || other.provider != row.provider;
        is_other && other.hosted.model == row.hosted.model && other.hosted.state == HostedState::Ready
    });
    if others {
        return Vec::new();
    }
    let placed = known.placed.iter();
    let stands = placed.filter(|(_, (_, placement))| placement.stage_of(&row.hosted.model).is_some());
    stands.map(|(route, _)| route.to_string()).collect()
}

/// What an operator has to know of a deployment that was asked for.
fn warning(row: &HostedRow, cost: HostingCost) -> String {
    let Hosted { name, tier, ends_at_ms, .. } = &row.hosted;
    if let Some(ends_at_ms) = ends_at_ms {
        return format!(
            "{name} has no hourly fee, no promise of being there, and is taken away after 24 hours, about {}",
            moment_text(*ends_at_ms)
        );
    }
    match (cost.per_hour, cost.per_month) {
        (Some(hour), Some(month)) => format!(
            "{name} costs {hour} USD an hour from now on, used or not: {month} USD in a month of 730 hours. \
             `tunegate models undeploy {name}` ends that"
        ),
        _ => format!(
            "{name} is billed by the hour, used or not, and what an hour of {} costs is not known: set it with \
             `tunegate prices set`. `tunegate models undeploy {name}` ends it",
            tier.sku()
        ),
    }
}
