//! A model that is deleted: at its provider first, then here. What is asked for somewhere is not.

use std::sync::Arc;

use serde_json::json;

use super::moves::{Signed, Steps};
use super::{ATTEMPTS, OutsideError, Registry, RegistryError, find, listed, unavailable};
use crate::clock;
use crate::control::audit::Actor;
use crate::domain::key::Tuning;
use crate::domain::registry::Stage;
use crate::domain::tuning::Caller;
use crate::store::registry::{Change, Everything};
use crate::tuning::{Noun, TuningError};

/// A model that goes, until this is dropped.
struct Going<'r> {
    registry: &'r Registry,
    name: Arc<str>,
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.registry.going.lock().remove(&self.name);
    }
}

impl Registry {
    /// Deletes a model of the caller's.
    ///
    /// # Errors
    ///
    /// Without the right; where there is none of the caller's; while a route asks for it or it is deployed; when the
    /// provider refuses.
    pub async fn delete(&self, caller: &Caller, name: &str) -> Result<(), TuningError> {
        let has = caller.right();
        if has < Tuning::DeleteModels {
            return Err(TuningError::Forbidden { needs: Tuning::DeleteModels, has });
        }
        let (provider, _going) = self.goes(caller, name).await?;
        // where it is gone already, only we still have it
        if !self.outside.delete_model(&provider, name).await.map_err(said_no)? {
            tracing::warn!(model = name, provider = &*provider, "the provider has no such model to delete");
        }
        self.strike(caller, name).await
    }

    /// Says that a model goes, where it may: until that is over it gets nowhere. A move that another process makes meanwhile is
    /// undone with the model's end.
    async fn goes(&self, caller: &Caller, name: &str) -> Result<(Arc<str>, Going<'_>), TuningError> {
        let _only_one = self.changing.lock().await;
        let known = self.read().await.map_err(|error| unavailable(&error))?;
        let provider = may_go(&known, caller, name)?;
        let name: Arc<str> = name.into();
        if !self.going.lock().insert(Arc::clone(&name)) {
            let message = format!("{name} is being deleted already");
            return Err(TuningError::Conflict { message, param: Some("model".to_owned()) });
        }
        Ok((provider, Going { registry: self, name }))
    }

    /// Refuses what would have requests come to a model that goes.
    pub(super) fn stays(&self, known: &Everything, names: &[&Arc<str>]) -> Result<(), RegistryError> {
        let going = self.going.lock();
        let models = names.iter().filter_map(|name| find(known, name).ok());
        match models.into_iter().find(|model| going.contains(&model.name)) {
            Some(model) => Err(RegistryError::Refused(format!("{} is being deleted", model.name))),
            None => Ok(()),
        }
    }

    async fn strike(&self, caller: &Caller, name: &str) -> Result<(), TuningError> {
        let failed = |error: RegistryError| unavailable(&error);
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let known = self.read().await.map_err(failed)?;
            let Ok(model) = find(&known, name) else { return Ok(()) };
            let now_ms = clock::unix_ms();
            let (mut steps, names) = (Steps::new(now_ms), model.names().cloned().collect::<Vec<_>>());
            let told = steps.clear(&known, &names, &Signed::deleted()).and_then(|()| {
                let by = caller.key().map_or_else(|| "operator".to_owned(), |key| key.id.to_string());
                let actor = if caller.key().is_some() { Actor::Gateway } else { Actor::Admin };
                steps.tell(actor, "model.delete", name, &json!({"by": by, "job": &*model.job_id}))
            });
            told.map_err(|error| failed(error.into()))?;
            steps.changes.push(Change::Delete { name: name.into(), at_ms: now_ms });
            if self.write(steps.changes, &steps.told).await.map_err(failed)? {
                return self.read().await.map(drop).map_err(failed);
            }
        }
        Err(failed(RegistryError::Contended))
    }
}

/// The provider of a model that may be deleted.
fn may_go(known: &Everything, caller: &Caller, name: &str) -> Result<Arc<str>, TuningError> {
    let not_found = || TuningError::not_found(Noun::Model, name);
    let model = find(known, name).ok().filter(|model| caller.finds(&model.owner)).ok_or_else(not_found)?;
    let conflict = |message| TuningError::Conflict { message, param: Some("model".to_owned()) };
    if *model.name != *name {
        return Err(conflict(format!("{name} is a checkpoint of {}: it goes with its model", model.name)));
    }
    let listed = listed(model, known);
    if let Some(standing) = listed.routes.iter().find(|standing| standing.stage >= Stage::Canary) {
        return Err(conflict(format!(
            "{name} is asked for on the route {} ({}): an operator takes it out with `tunegate models retire {name}`",
            standing.route,
            standing.stage.name()
        )));
    }
    if let Some(hosted) = model.hosted.first() {
        return Err(conflict(format!(
            "{name} is deployed as {}: an operator takes that away first with `tunegate models undeploy {}`",
            hosted.name, hosted.name
        )));
    }
    Ok(Arc::clone(&model.provider))
}

fn said_no(error: OutsideError) -> TuningError {
    match error {
        OutsideError::Away { provider, message } => TuningError::ProviderAway { provider, message },
        OutsideError::Refused { provider, status, message, code } => {
            let message =
                format!("{message} (provider `{provider}` refused to delete the model; it is still there)");
            TuningError::Provider { provider, status, message, code, param: None }
        }
        other @ OutsideError::DeletesNone(_) => {
            TuningError::Conflict { message: other.to_string(), param: Some("model".to_owned()) }
        }
        other @ (OutsideError::NoArm(_) | OutsideError::NoProvider(_)) => TuningError::Conflict {
            message: format!("{other}: it can't be deleted there"),
            param: Some("model".to_owned()),
        },
    }
}
