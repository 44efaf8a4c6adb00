//! The hands at providers, over the live handles of the catalog.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::outside::{AtProviders, OutsideError, Stand, StandState};
use crate::domain::catalog::ProviderKind;
use crate::domain::registry::Hosted;
use crate::gateway::catalog::LiveCatalog;
use crate::upstream::arm::{Arm, ArmState};
use crate::upstream::tuning::{Trainer, TrainerError};
use crate::upstream::{Upstream, answers};

/// Does at providers what the registry asks.
pub struct Hands {
    catalog: Arc<LiveCatalog>,
}

impl Hands {
    /// Over a live catalog.
    pub const fn new(catalog: Arc<LiveCatalog>) -> Self {
        Self { catalog }
    }

    fn upstream(&self, provider: &str) -> Result<Arc<Upstream>, OutsideError> {
        let live = self.catalog.load();
        let found = live.upstreams().find(|upstream| *upstream.provider().name == *provider);
        found.cloned().ok_or_else(|| OutsideError::NoProvider(provider.into()))
    }
}

fn arm(upstream: &Upstream) -> Result<&Arm, OutsideError> {
    upstream.arm().ok_or_else(|| OutsideError::NoArm(Arc::clone(&upstream.provider().name)))
}

fn said_no(provider: &str, error: TrainerError) -> OutsideError {
    match error {
        TrainerError::Refused(refused) if !matches!(refused.status, 429 | 500..) => OutsideError::Refused {
            provider: provider.into(),
            status: refused.status,
            message: refused.message,
            code: refused.code,
        },
        TrainerError::NotFound(message) => {
            OutsideError::Refused { provider: provider.into(), status: 404, message, code: None }
        }
        other => OutsideError::Away { provider: provider.into(), message: other.to_string() },
    }
}

/// Whether a provider may have no such path at all.
fn has_no_path(error: &TrainerError) -> bool {
    match error {
        TrainerError::NotFound(_) => true,
        TrainerError::Refused(refused) => matches!(refused.status, 404 | 405 | 501),
        _ => false,
    }
}

impl AtProviders for Hands {
    fn delete_model<'a>(
        &'a self,
        provider: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<bool, OutsideError>> {
        let delete = async move {
            let upstream = self.upstream(provider)?;
            let is_azure = upstream.provider().dialect.kind() == ProviderKind::Azure;
            let trainer = Trainer::new(upstream);
            match trainer.delete_model(name).await {
                Ok(()) => Ok(true),
                // Azure's specification has no such path (2026-03): its portal deletes models
                Err(error) if is_azure && has_no_path(&error) => match trainer.has_model(name).await {
                    Ok(false) => Ok(false),
                    Ok(true) => Err(OutsideError::DeletesNone(provider.into())),
                    Err(error) => Err(said_no(provider, error)),
                },
                Err(TrainerError::NotFound(_)) => Ok(false),
                Err(error) => Err(said_no(provider, error)),
            }
        };
        delete.boxed()
    }

    fn deploy<'a>(
        &'a self,
        provider: &'a str,
        hosted: &'a Hosted,
    ) -> BoxFuture<'a, Result<(), OutsideError>> {
        let deploy = async move {
            let upstream = self.upstream(provider)?;
            let put =
                arm(&upstream)?.put(&hosted.name, &hosted.model, hosted.tier.sku(), hosted.capacity.into());
            put.await.map(drop).map_err(|error| said_no(provider, error))
        };
        deploy.boxed()
    }

    fn look<'a>(
        &'a self,
        provider: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Stand>, OutsideError>> {
        let look = async move {
            let upstream = self.upstream(provider)?;
            let found = match arm(&upstream)?.get(name).await {
                Ok(found) => found,
                Err(TrainerError::NotFound(_)) => return Ok(None),
                Err(error) => return Err(said_no(provider, error)),
            };
            let state = match found.state {
                ArmState::Coming | ArmState::Going => StandState::UnderWay,
                ArmState::Stands => StandState::Made,
                ArmState::Broken => {
                    let why =
                        found.raw.pointer("/properties/provisioningState").and_then(|state| state.as_str());
                    StandState::Failed(format!("Azure says: {}", why.unwrap_or("failed")))
                }
            };
            Ok(Some(Stand { state, created_at_ms: found.created_at_ms }))
        };
        look.boxed()
    }

    fn undeploy<'a>(&'a self, provider: &'a str, name: &'a str) -> BoxFuture<'a, Result<(), OutsideError>> {
        let undeploy = async move {
            let upstream = self.upstream(provider)?;
            arm(&upstream)?.delete(name).await.map_err(|error| said_no(provider, error))
        };
        undeploy.boxed()
    }

    fn answers<'a>(&'a self, provider: &'a str, name: &'a str) -> BoxFuture<'a, Result<bool, OutsideError>> {
        let asked = async move {
            let upstream = self.upstream(provider)?;
            let away = |message: String| OutsideError::Away { provider: provider.into(), message };
            answers(&upstream, name).await.map_err(|error| away(error.to_string()))
        };
        asked.boxed()
    }
}
