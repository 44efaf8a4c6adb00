//! A token that a service issues, kept and renewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::domain::secret::Secret;

use super::entra::{Grant, Issue};
use super::{CredentialError, TokenHttp};

/// For one request to the token service.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A token is renewed so long before its end, or in the last quarter of a shorter life.
const MARGIN: Duration = Duration::from_secs(300);
/// The wait after a first failure; doubled after each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A token refused so soon after its issue is not the token's fault: a new one would be refused too.
const JUST_ISSUED: Duration = Duration::from_secs(30);

/// A token that is kept and renewed.
pub(super) struct Issued {
    grant: Grant,
    http: Arc<dyn TokenHttp>,
    call_timeout: Duration,
    held: Mutex<Option<Held>>,
    /// Held by the one who renews.
    renewal: tokio::sync::Mutex<Renewal>,
    /// Renewals that came to an end, good or bad: who waited through one shares how it ended.
    ended: AtomicU64,
}

struct Held {
    token: Secret,
    issued: Instant,
    renew_from: Instant,
    expires: Instant,
}

#[derive(Default)]
struct Renewal {
    /// Since the last success.
    failures: u32,
    last: Option<Failure>,
}

struct Failure {
    error: CredentialError,
    not_before: Instant,
}

/// What is held at a time.
enum Now {
    /// A token of which nothing need be done.
    Fresh(Secret),
    /// A valid token that should be renewed.
    Ageing(Secret),
    Nothing,
}

impl Issued {
    pub(super) fn new(grant: Grant, http: Arc<dyn TokenHttp>) -> Self {
        Self::with_timeout(grant, http, CALL_TIMEOUT)
    }

    pub(super) fn with_timeout(grant: Grant, http: Arc<dyn TokenHttp>, call_timeout: Duration) -> Self {
        Self {
            grant,
            http,
            call_timeout,
            held: Mutex::default(),
            renewal: tokio::sync::Mutex::default(),
            ended: AtomicU64::new(0),
        }
    }

    /// Returns a valid token, a renewed one if need be.
    pub(super) async fn token(&self, now: Instant) -> Result<Secret, CredentialError> {
        match self.held(now) {
            Now::Fresh(token) => Ok(token),
            Now::Ageing(token) => Ok(self.renewed_or(token, now).await),
            Now::Nothing => self.awaited(now).await,
        }
    }

    /// Forgets a refused token. Whether another try may go better.
    pub(super) fn reject(&self, refused: &Secret, now: Instant) -> bool {
        let mut held = self.held.lock();
        match &*held {
            Some(current) if current.token == *refused => {
                let may_help = now.saturating_duration_since(current.issued) >= JUST_ISSUED;
                if may_help {
                    *held = None;
                }
                may_help
            }
            // Another request has had it renewed or forgotten already.
            Some(_) | None => true,
        }
    }

    fn held(&self, now: Instant) -> Now {
        match &*self.held.lock() {
            Some(held) if now < held.renew_from => Now::Fresh(held.token.clone()),
            Some(held) if now < held.expires => Now::Ageing(held.token.clone()),
            Some(_) | None => Now::Nothing,
        }
    }

    /// Renews a token that is still valid, unless somebody does or a failure is too fresh; the old one is good enough.
    async fn renewed_or(&self, old: Secret, now: Instant) -> Secret {
        let Ok(mut renewal) = self.renewal.try_lock() else { return old };
        if let Now::Fresh(token) = self.held(now) {
            return token;
        }
        if renewal.must_wait(now) {
            return old;
        }
        match self.renew(&mut renewal, now).await {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(%error, "a token could not be renewed; the old one is used while it is valid");
                old
            }
        }
    }

    /// Waits for the one renewal, without a valid token.
    async fn awaited(&self, now: Instant) -> Result<Secret, CredentialError> {
        let ended = self.ended.load(Ordering::Acquire);
        let mut renewal = self.renewal.lock().await;
        if let Now::Fresh(token) | Now::Ageing(token) = self.held(now) {
            return Ok(token);
        }
        let one_ended_meanwhile = self.ended.load(Ordering::Acquire) != ended;
        if let Some(failure) = &renewal.last
            && (one_ended_meanwhile || renewal.must_wait(now))
        {
            return Err(failure.error.clone());
        }
        self.renew(&mut renewal, now).await
    }

    async fn renew(&self, renewal: &mut Renewal, now: Instant) -> Result<Secret, CredentialError> {
        let issued = self.ask().await;
        self.ended.fetch_add(1, Ordering::AcqRel);
        match issued {
            Ok(Issue { token, lifetime }) => {
                *renewal = Renewal::default();
                let expires = now + lifetime;
                let renew_from = expires - MARGIN.min(lifetime / 4);
                *self.held.lock() = Some(Held { token: token.clone(), issued: now, renew_from, expires });
                Ok(token)
            }
            Err(error) => {
                renewal.failed(error.clone(), now);
                Err(error)
            }
        }
    }

    async fn ask(&self) -> Result<Issue, CredentialError> {
        let request = self.grant.request().await?;
        let sent = self.http.send(request.method, &request.url, &request.headers, &request.body);
        let service = || self.grant.service.clone();
        let (status, body) = timeout(self.call_timeout, sent)
            .await
            .map_err(|_| CredentialError::Timeout { service: service() })?
            .map_err(|reason| CredentialError::Unreachable { service: service(), reason })?;
        self.grant.read(status, &Zeroizing::new(body))
    }
}

impl Renewal {
    fn must_wait(&self, now: Instant) -> bool {
        self.last.as_ref().is_some_and(|failure| now < failure.not_before)
    }

    fn failed(&mut self, error: CredentialError, now: Instant) {
        let backoff = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.last = Some(Failure { error, not_before: now + backoff });
    }
}
