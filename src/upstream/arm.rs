//! Azure's resource manager, called: the only way to a deployment of a fine-tuned model, and the only one who knows
//! since when it stands.
//!
//! Operations on one account must not overlap, so all who ask take turns; another client's operation is waited for a
//! while. What takes long is only begun here: who began it looks again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, header};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::call::{Answered, Limits, call};
use super::credential::LiveCredential;
use super::http::{Link, Pools};
use super::token_http::Tokens;
use super::tuning::{TrainerError, of_upstream, refused};
use crate::clock;
use crate::domain::catalog::{ArmAccount, Credential};
use crate::domain::secret::Authorization;
use crate::provider::{Outgoing, arm};

pub use crate::provider::arm::{ArmDeployment, ArmOperation, ArmState};

/// For one call.
const LIMITS: Limits =
    Limits { total: Duration::from_secs(60), silence: Duration::from_secs(60), bytes: 16 << 20 };
/// Waits for another client's operation to end, one before each further try.
const TURNS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// Pages of the list; an account has 32 deployments at most.
const MAX_PAGES: usize = 50;
/// Another operation on the account is running.
const BUSY: &str = "RequestConflict";
/// Where an operation is followed.
const OPERATION: &str = "azure-asyncoperation";

/// One account's deployments.
pub struct Arm {
    account: ArmAccount,
    /// What stands before every path.
    prefix: String,
    link: Result<Link, String>,
    credential: LiveCredential,
    turn: Mutex<()>,
    waits: [Duration; 4],
}

impl Arm {
    /// A handle that has not connected yet. `roots` are trusted instead of the system's.
    pub(super) fn new(account: ArmAccount, roots: Option<PathBuf>, pools: &Arc<Pools>) -> Self {
        let service = Tokens::new(Arc::clone(pools), roots);
        let link = service.link(&account.endpoint);
        let credential = Credential::Entra(account.credential.clone());
        let credential = LiveCredential::new(&credential, Arc::new(service));
        let prefix = account.endpoint.parse::<Uri>().map(|uri| uri.path().trim_end_matches('/').to_owned());
        let prefix = prefix.unwrap_or_default();
        Self { account, prefix, link, credential, turn: Mutex::default(), waits: TURNS }
    }

    /// Between two readings of the list.
    pub const fn poll(&self) -> Duration {
        self.account.poll
    }

    /// All deployments.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn list(&self) -> Result<Vec<ArmDeployment>, TrainerError> {
        let _turn = self.turn.lock().await;
        let mut all = Vec::new();
        let mut path = self.path(None);
        for _ in 0..MAX_PAGES {
            let answered = self.ask(Method::GET, &path, None).await?;
            if !answered.is_good() {
                return Err(refused(&answered));
            }
            let unreadable = || TrainerError::Unreadable("it is not a list of deployments".to_owned());
            let page = arm::page(&answered.body).ok_or_else(unreadable)?;
            all.extend(page.items);
            match page.next {
                None => return Ok(all),
                Some(next) => path = self.own(&next)?,
            }
        }
        Err(TrainerError::Unreadable(format!("its list has more than {MAX_PAGES} pages")))
    }

    /// One deployment.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`]; [`TrainerError::NotFound`] where there is none of that name.
    pub async fn get(&self, name: &str) -> Result<ArmDeployment, TrainerError> {
        let _turn = self.turn.lock().await;
        let answered = self.ask(Method::GET, &self.path(Some(name)), None).await?;
        read(&answered)
    }

    /// Begins to make a deployment of a fine-tuned model, or to make it anew. `capacity` is thousands of tokens a
    /// minute.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`]; what may have been done is found by [`Arm::get`].
    pub async fn put(
        &self,
        name: &str,
        model: &str,
        sku: &str,
        capacity: u64,
    ) -> Result<ArmDeployment, TrainerError> {
        let _turn = self.turn.lock().await;
        let body = arm::order(model, sku, capacity);
        let answered = self.ask(Method::PUT, &self.path(Some(name)), Some(&body)).await?;
        let operation = answered.header(OPERATION).map(Arc::from);
        Ok(ArmDeployment { operation, ..read(&answered)? })
    }

    /// Begins to take a deployment away; one that was not there is gone.
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn delete(&self, name: &str) -> Result<(), TrainerError> {
        let _turn = self.turn.lock().await;
        let answered = self.ask(Method::DELETE, &self.path(Some(name)), None).await?;
        match answered.status {
            200..=299 | 404 => Ok(()),
            _ => Err(refused(&answered)),
        }
    }

    /// How far something is that was begun, by its [`ArmDeployment::operation`].
    ///
    /// # Errors
    ///
    /// See [`TrainerError`].
    pub async fn operation(&self, address: &str) -> Result<ArmOperation, TrainerError> {
        let path = self.own(address)?;
        let answered = self.ask(Method::GET, &path, None).await?;
        match answered.is_good() {
            false => Err(refused(&answered)),
            true => arm::operation(&answered.body)
                .ok_or_else(|| TrainerError::Unreadable("it is not an operation".to_owned())),
        }
    }

    fn path(&self, name: Option<&str>) -> String {
        format!("{}{}", self.prefix, arm::path(&self.account, name))
    }

    /// Path and query of an address that the resource manager gave us: our token goes nowhere else.
    fn own(&self, address: &str) -> Result<String, TrainerError> {
        let elsewhere = || TrainerError::Unreadable("it leads to another host".to_owned());
        let (ours, theirs) = (self.account.endpoint.parse::<Uri>(), address.parse::<Uri>());
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return Err(elsewhere()) };
        if ours.authority() != theirs.authority() || ours.scheme() != theirs.scheme() {
            return Err(elsewhere());
        }
        Ok(theirs.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string))
    }

    /// Asks; again where another operation on the account is running, and once more where our token was refused.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answered, TrainerError> {
        let link = self.link.as_ref().map_err(|why| TrainerError::Unreachable(why.clone()))?;
        let mut headers = vec![(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))];
        if body.is_some() {
            headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        let body = body.map(|body| Bytes::from(body.to_string()));
        let outgoing = Outgoing { method, path: path.to_owned(), headers, body, usage_injected: false };
        let mut waits = self.waits.into_iter();
        let mut tokens = 0;
        loop {
            let authorization = self.credential.header(clock::monotonic()).await;
            let authorization =
                authorization.map_err(|error| TrainerError::Unreachable(error.to_string()))?;
            let answered =
                call(link, &outgoing, &bearer(&authorization), LIMITS).await.map_err(of_upstream)?;
            if answered.status == 401
                && tokens == 0
                && self.credential.reject(&authorization, clock::monotonic())
            {
                tokens += 1;
                continue;
            }
            match waits.next().filter(|_| is_busy(&answered)) {
                Some(wait) => sleep(wait).await,
                None => return Ok(answered),
            }
        }
    }
}

fn bearer(authorization: &Authorization) -> Vec<(http::HeaderName, HeaderValue)> {
    let Authorization::Bearer(token) = authorization else { return Vec::new() };
    // a token of printable characters, as the credential has made sure
    let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", token.expose())) else {
        return Vec::new();
    };
    value.set_sensitive(true);
    vec![(header::AUTHORIZATION, value)]
}

fn is_busy(answered: &Answered) -> bool {
    let code = || crate::provider::said(answered.status, &answered.body).code;
    answered.status == 409 && code().is_some_and(|code| code.eq_ignore_ascii_case(BUSY))
}

fn read(answered: &Answered) -> Result<ArmDeployment, TrainerError> {
    match answered.status {
        404 => Err(TrainerError::NotFound(crate::provider::said(404, &answered.body).message)),
        200..=299 => arm::deployment(&answered.body)
            .ok_or_else(|| TrainerError::Unreadable("it is not a deployment".to_owned())),
        _ => Err(refused(answered)),
    }
}

#[cfg(test)]
mod tests;
