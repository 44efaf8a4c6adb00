//! The doors: sockets to requests and back. Hot paths go straight to the gateway, the rest to an axum router that is
//! called in-process: one set of listeners, limits and time-outs for everything.

pub mod admin;
mod api;
pub mod config;
mod exchange;
mod framing;
mod ops;
mod respond;
mod router;
mod tuning;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use http::{HeaderValue, StatusCode, Version, header};
use pingora::ErrorType;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use pingora::time::{sleep, timeout};
use tokio::sync::watch;

pub use self::ops::{Check, OK};
pub use self::tuning::TuningDesk;

use self::api::route::{Route, route};
use self::config::Limits;
use self::exchange::{Done, Exchange};
use self::tuning::{TuningNoun, TuningPath};
use crate::clock;
use crate::domain::ids::RequestId;
use crate::domain::outcome::Ending;
use crate::domain::secret::Secret;
use crate::gateway::record::Record;
use crate::gateway::{Gateway, Refusal};

/// The status of a refusal, for requests that the gateway makes itself.
pub fn status_of(refusal: &Refusal) -> u16 {
    respond::status(refusal).as_u16()
}

/// Whether this process wants more requests, and what it lacks: what `/readyz` says.
#[derive(Default)]
pub struct Readiness {
    draining: AtomicBool,
    /// What it stands on.
    checks: Vec<Check>,
    /// Whether running answers are cut off.
    cut: watch::Sender<bool>,
}

impl Readiness {
    /// Wants requests, and stands on these.
    pub fn on(checks: Vec<Check>) -> Self {
        Self { checks, ..Self::default() }
    }

    /// From now on `/readyz` says 503, so that a balancer sends no more.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Cuts off what runs: each request still writes its outcome, which the end of the process alone would not let it.
    pub fn cut_off(&self) {
        self.cut.send_replace(true);
    }

    fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    /// Resolves when running answers are cut off.
    async fn is_cut_off(&self) {
        // the sender lives in `self`, so the wait can't fail
        let _ = self.cut.subscribe().wait_for(|cut| *cut).await;
    }
}

/// How long a shutdown waits for the request of a client that has just connected: it was let in, and is answered.
const JUST_CONNECTED: Duration = Duration::from_millis(500);

/// How long an h2 connection has to send what was written: a reset throws away what is still queued.
const BEFORE_RESET: Duration = Duration::from_millis(50);
/// For TLS to say good-bye to a client that may not be reading.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// For the end of a request: longer than what is left of its body may take to be read.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Ends a connection, or an h2 stream, before its answer is complete.
async fn close(session: &mut ServerSession) {
    if session.is_http2() {
        sleep(BEFORE_RESET).await;
    }
    let _ = timeout(CLOSE_LIMIT, session.shutdown()).await;
}

/// Who stands behind a listener.
enum Behind {
    /// Applications.
    Data(Arc<Gateway>),
    /// Operators, who show this key.
    Admin(Secret),
}

/// One listener's server.
pub struct Door {
    behind: Behind,
    tuning: Arc<TuningDesk>,
    router: Router,
    limits: Limits,
    options: HttpServerOptions,
    readiness: Arc<Readiness>,
}

impl Door {
    /// The data address. `h2c` takes plain-text HTTP/2 too.
    pub fn data(tuning: Arc<TuningDesk>, readiness: &Arc<Readiness>, limits: Limits, h2c: bool) -> Self {
        let gateway = Arc::clone(&tuning.gateway);
        let router = router::data(Arc::clone(&gateway), readiness);
        Self::new(Behind::Data(gateway), tuning, router, readiness, limits, h2c)
    }

    /// The admin address; `key` guards what its router does not.
    pub fn admin(
        key: Secret,
        tuning: Arc<TuningDesk>,
        router: Router,
        readiness: &Arc<Readiness>,
        limits: Limits,
    ) -> Self {
        Self::new(Behind::Admin(key), tuning, router, readiness, limits, false)
    }

    fn new(
        behind: Behind,
        tuning: Arc<TuningDesk>,
        router: Router,
        readiness: &Arc<Readiness>,
        limits: Limits,
        h2c: bool,
    ) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        options.h2_idle_timeout = Some(limits.keepalive_timeout);
        Self { behind, tuning, router, limits, options, readiness: Arc::clone(readiness) }
    }

    /// Reads the next head; nothing when the connection is done.
    async fn read_head(&self, session: &mut ServerSession, shutdown: &ShutdownWatch) -> Option<()> {
        let mut shutdown = shutdown.clone();
        // a kept-alive connection may be silent before its head begins; a new one has no reason to
        let reused = session.take_connection_user_context().is_some();
        let limit = match reused {
            true => self.limits.keepalive_timeout + self.limits.head_timeout,
            false => self.limits.head_timeout,
        };
        let stopping = async {
            let _ = shutdown.wait_for(|stopping| *stopping).await;
            if !reused {
                sleep(JUST_CONNECTED).await;
            }
        };
        let read = tokio::select! {
            biased;
            read = timeout(limit, session.read_request()) => read,
            // an idle connection must not outlive the shutdown
            () = stopping => return None,
        };
        match read {
            Ok(Ok(true)) => Some(()),
            Ok(Ok(false)) => None,
            Ok(Err(error)) => {
                if *error.etype() == ErrorType::InvalidHTTPHeader {
                    self.refuse_head(session).await;
                }
                close(session).await;
                None
            }
            Err(_) => {
                close(session).await;
                None
            }
        }
    }

    /// Answers what is no HTTP, and writes it down like any other refusal.
    async fn refuse_head(&self, session: &mut ServerSession) {
        let id = RequestId::new(clock::unix_ms(), rand::random());
        let refusal = Refusal::Framing("its head is not valid HTTP, or larger than 1 MiB or 256 fields");
        let status = respond::status(&refusal);
        let body = respond::body(&refusal);
        if let Ok(mut head) = ResponseHeader::build(status, Some(4)) {
            let written = head
                .insert_header(http::header::CONTENT_TYPE, "application/json")
                .and_then(|()| head.insert_header(http::header::CONTENT_LENGTH, body.len()))
                .and_then(|()| head.insert_header("x-request-id", id.as_str()));
            if written.is_ok() {
                let _ = session.write_error_response(head, body).await;
            }
        }
        if let Behind::Data(gateway) = &self.behind {
            let record = Record::begin(&gateway.book, &id, clock::unix_ms(), clock::monotonic());
            record.refused(&refusal, status.as_u16());
        }
    }

    async fn serve(&self, exchange: &mut Exchange) -> Done {
        match &self.behind {
            Behind::Admin(key) => self.serve_operator(key, exchange).await,
            Behind::Data(gateway) => self.serve_data(gateway, exchange).await,
        }
    }

    /// Serves what is no application's request and has no outcome.
    async fn serve_aside(&self, exchange: &mut Exchange) -> Done {
        match exchange.wrong_framing() {
            Some(why) => exchange.refuse(&Refusal::Framing(why)).await,
            None => router::call(&self.router, exchange, &self.limits).await.0,
        }
    }

    /// Serves an operator: files and jobs here, as their bodies may be long, all else by the router.
    async fn serve_operator(&self, key: &Secret, exchange: &mut Exchange) -> Done {
        let path = exchange.uri().path().to_owned();
        let tuning = path.strip_prefix("/admin/v1/").and_then(TuningPath::read);
        let Some(tuning) = tuning.filter(|_| exchange.wrong_framing().is_none()) else {
            return self.serve_aside(exchange).await;
        };
        if !admin::is_known(exchange.headers(), key) {
            let body = respond::envelope(
                StatusCode::UNAUTHORIZED,
                admin::NEEDS_KEY,
                None,
                Some("invalid_admin_key"),
            );
            let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            return exchange.refuse_plainly(StatusCode::UNAUTHORIZED, headers, body).await;
        }
        tuning::serve_operator(&self.tuning, &self.limits, exchange, tuning).await
    }

    async fn serve_data(&self, gateway: &Arc<Gateway>, exchange: &mut Exchange) -> Done {
        let path = exchange.uri().path().to_owned();
        if ops::is_health(&path) {
            return self.serve_aside(exchange).await;
        }
        let mut record = Record::begin(&gateway.book, &exchange.id, clock::unix_ms(), clock::monotonic());
        let route = route(&path);
        api::trace::note(gateway, exchange, &route, &mut record);
        if let Some(why) = exchange.wrong_framing() {
            return api::inference::refuse(exchange, &Refusal::Framing(why), record).await;
        }
        match route {
            Route::Inference(endpoint, model) => {
                let model = model.map(std::borrow::Cow::into_owned);
                api::inference::serve(gateway, &self.limits, exchange, endpoint, model, record).await
            }
            Route::Stored { id, tail } => api::stored::serve(gateway, exchange, id, tail, record).await,
            Route::Request(id) => api::requests::serve(gateway, exchange, id, record).await,
            Route::Tuning(path) => tuning::serve(&self.tuning, &self.limits, exchange, path, record).await,
            Route::Model(model) if *exchange.method() == http::Method::DELETE => {
                let path = TuningPath { noun: TuningNoun::Model, rest: &model };
                tuning::serve(&self.tuning, &self.limits, exchange, path, record).await
            }
            Route::Models | Route::Model(_) | Route::Health | Route::Other => {
                let (done, status, code) = router::call(&self.router, exchange, &self.limits).await;
                record.note(|outcome| outcome.code = code);
                record.ended(if code.is_some() { Ending::Refused } else { Ending::Served }, status);
                done
            }
        }
    }
}

#[async_trait]
impl HttpServerApp for Door {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.read_head(&mut session, shutdown).await?;
        // an HTTP/1.0 client may wait for the connection's end to know that of its answer
        let last = *shutdown.borrow() || session.req_header().version == Version::HTTP_10;
        session.set_keepalive((!last).then(|| self.limits.keepalive_timeout.as_secs().max(1)));
        let mut exchange = Exchange::new(session, RequestId::new(clock::unix_ms(), rand::random()));
        let done = tokio::select! {
            biased;
            done = self.serve(&mut exchange) => done,
            () = self.readiness.is_cut_off() => Done::Close,
        };
        let mut session = exchange.into_session();
        if *shutdown.borrow() {
            session.set_keepalive(None); // the signal came while we answered
        }
        if done == Done::Close {
            close(&mut session).await;
            return None;
        }
        let mut settings = HttpPersistentSettings::for_session(&session);
        settings.set_user_context(Box::new(()));
        let reusable = timeout(FINISH_LIMIT, session.finish()).await.ok()?.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
