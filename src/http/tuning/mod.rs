//! Files, uploads, fine-tuning jobs and the models that come of them, in OpenAI's own shapes: at the data address for a
//! key and its team, and below `/admin/v1` for operators, who see all teams' and may act for one by `?team=NAME`.

mod feedback;
mod files;
mod form;
mod jobs;
mod models;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use super::api::credential;
use super::config::Limits;
use super::exchange::{Done, Exchange, Unwritten};
use super::respond;
use crate::clock;
use crate::control::audit::AuditLog;
use crate::control::teams::{Teams, TeamsError};
use crate::domain::outcome::Ending;
use crate::domain::tuning::{Caller, Owner};
use crate::gateway::record::Record;
use crate::gateway::{Gateway, Refusal};
use crate::tuning::TuningError;
use crate::tuning::captures::Captures;
use crate::tuning::files::Files;
use crate::tuning::jobs::Jobs;
use crate::tuning::registry::Registry;

/// The largest body that is read whole; files and their parts are not.
const BODY_BYTES: usize = 1 << 20;

/// The operator's routes that are answered here: what the admin API's document has to name beside its router's own.
#[cfg(test)]
pub(super) const OPERATIONS: [(&str, &str); 18] = [
    ("/admin/v1/files", "get"),
    ("/admin/v1/files", "post"),
    ("/admin/v1/files/{id}", "get"),
    ("/admin/v1/files/{id}", "delete"),
    ("/admin/v1/files/{id}/content", "get"),
    ("/admin/v1/files/{id}/report", "get"),
    ("/admin/v1/uploads", "post"),
    ("/admin/v1/uploads/{id}/parts", "post"),
    ("/admin/v1/uploads/{id}/complete", "post"),
    ("/admin/v1/uploads/{id}/cancel", "post"),
    ("/admin/v1/fine_tuning/jobs", "get"),
    ("/admin/v1/fine_tuning/jobs", "post"),
    ("/admin/v1/fine_tuning/jobs/{id}", "get"),
    ("/admin/v1/fine_tuning/jobs/{id}/events", "get"),
    ("/admin/v1/fine_tuning/jobs/{id}/checkpoints", "get"),
    ("/admin/v1/fine_tuning/jobs/{id}/cancel", "post"),
    ("/admin/v1/fine_tuning/jobs/{id}/pause", "post"),
    ("/admin/v1/fine_tuning/jobs/{id}/resume", "post"),
];

/// What a request of the training plane is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TuningNoun {
    /// `/v1/files…`
    Files,
    /// `/v1/uploads…`
    Uploads,
    /// `/v1/fine_tuning…`
    Jobs,
    /// `DELETE /v1/models/{model}`
    Model,
    /// `POST /v1/tunegate/feedback`
    Feedback,
}

/// A path of the training plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TuningPath<'a> {
    /// What it is about.
    pub(super) noun: TuningNoun,
    /// What stands behind the noun, without the slash between: empty, `file-1`, `jobs/ftjob-1/events`.
    pub(super) rest: &'a str,
}

impl<'a> TuningPath<'a> {
    /// Reads a path without the prefix of its address (`v1/`, `openai/`, `admin/v1/`); none where it is another room's.
    pub(super) fn read(path: &'a str) -> Option<Self> {
        let nouns = [
            ("files", TuningNoun::Files),
            ("uploads", TuningNoun::Uploads),
            ("fine_tuning", TuningNoun::Jobs),
        ];
        nouns.into_iter().find_map(|(word, noun)| {
            let rest = path.strip_prefix(word)?;
            match rest.strip_prefix('/') {
                Some(rest) => Some(Self { noun, rest }),
                None => rest.is_empty().then_some(Self { noun, rest }),
            }
        })
    }

    /// The path as spans name it.
    pub(super) const fn template(&self) -> &'static str {
        match self.noun {
            TuningNoun::Files => "/v1/files",
            TuningNoun::Uploads => "/v1/uploads",
            TuningNoun::Jobs => "/v1/fine_tuning",
            TuningNoun::Model => "/v1/models/{model}",
            TuningNoun::Feedback => "/v1/tunegate/feedback",
        }
    }
}

/// Where requests of the training plane are brought to.
pub struct TuningDesk {
    /// The data plane: who may ask, and what there is.
    pub gateway: Arc<Gateway>,
    /// The teams that operators may act for.
    pub teams: Arc<Teams>,
    /// Training files and uploads.
    pub files: Arc<Files>,
    /// Traffic that is kept to train on.
    pub captures: Arc<Captures>,
    /// Fine-tuning jobs.
    pub jobs: Arc<Jobs>,
    /// What jobs have made.
    pub registry: Arc<Registry>,
    /// Told of what operators change.
    pub audit: Arc<AuditLog>,
}

/// What is answered.
pub(super) enum Answer {
    /// An object of OpenAI's, 200.
    Json(Value),
    /// The same, to who has changed something.
    Changed(Value, Deed),
    /// What a file holds.
    Content(Box<files::Content>),
}

/// A change, as the audit log names it where an operator has made it.
pub(super) struct Deed {
    action: &'static str,
    subject: String,
    detail: Value,
}

impl Deed {
    /// A noun and a verb, the thing's id, and whose it is; `more` are members of the detail.
    fn new(action: &'static str, subject: &str, owner: &Owner, mut more: Value) -> Self {
        more["owner"] = owner.to_string().into();
        Self { action, subject: subject.to_owned(), detail: more }
    }
}

/// Serves an application's request.
pub(super) async fn serve(
    desk: &TuningDesk,
    limits: &Limits,
    exchange: &mut Exchange,
    path: TuningPath<'_>,
    mut record: Box<Record>,
) -> Done {
    let admitted = match desk.gateway.admit(credential(exchange.headers()), clock::unix_ms()) {
        Ok(admitted) => admitted,
        Err(refusal) => return super::api::inference::refuse(exchange, &refusal, record).await,
    };
    record.admitted(&admitted);
    let caller = Caller::Key { key: admitted.key, team: admitted.team };
    record.waits();
    let answered = answer(desk, limits, exchange, &caller, path).await;
    let (status, code) = match &answered {
        Ok(_) => (StatusCode::OK, None),
        Err(error) => (respond::tuning_status(error), Some(error.label())),
    };
    let written = write(exchange, answered).await;
    record.note(|outcome| outcome.code = code);
    let ending = match (written, code) {
        (Done::Close, None) => Ending::ClientGone,
        (_, None) => Ending::Served,
        (_, Some(_)) => Ending::Refused,
    };
    record.ended(ending, status.as_u16());
    written
}

/// Serves an operator's request, whose key is known to be right.
pub(super) async fn serve_operator(
    desk: &TuningDesk,
    limits: &Limits,
    exchange: &mut Exchange,
    path: TuningPath<'_>,
) -> Done {
    let answered = match operator(desk, exchange).await {
        Ok(caller) => answer(desk, limits, exchange, &caller, path).await,
        Err(error) => Err(error),
    };
    if let Ok(Answer::Changed(_, Deed { action, subject, detail })) = &answered
        && let Err(why) = desk.audit.note(action, subject, detail, clock::unix_ms()).await
    {
        tracing::error!(error = %why, action, subject, "what an operator did is missing in the audit log");
    }
    write(exchange, answered).await
}

/// An operator, and the team that `?team=NAME` says they act for.
async fn operator(desk: &TuningDesk, exchange: &Exchange) -> Result<Caller, TuningError> {
    let query = exchange.uri().query().unwrap_or_default().as_bytes();
    let Some((_, name)) = url::form_urlencoded::parse(query).find(|(name, _)| name == "team") else {
        return Ok(Caller::Operator { team: None });
    };
    match desk.teams.get(&name).await {
        Ok(listed) => Ok(Caller::Operator { team: Some(listed.team) }),
        Err(error @ TeamsError::Unknown(_)) => Err(TuningError::invalid("team", error.to_string())),
        Err(error) => {
            tracing::error!(%error, "the store failed an operator");
            Err(TuningError::Unavailable(
                "the teams can't be read right now: try again in a moment".to_owned(),
            ))
        }
    }
}

/// Hands a request to its noun.
async fn answer(
    desk: &TuningDesk,
    limits: &Limits,
    exchange: &mut Exchange,
    caller: &Caller,
    path: TuningPath<'_>,
) -> Result<Answer, TuningError> {
    match path.noun {
        TuningNoun::Files => files::answer(desk, limits, exchange, caller, path.rest).await,
        TuningNoun::Uploads => files::answer_uploads(desk, limits, exchange, caller, path.rest).await,
        TuningNoun::Jobs => jobs::answer(&desk.jobs, limits, exchange, caller, path.rest).await,
        TuningNoun::Model => models::delete(desk, caller, path.rest).await,
        TuningNoun::Feedback => feedback::hear(desk, limits, exchange, caller).await,
    }
}

/// The body as JSON; nothing for none.
pub(super) async fn body(exchange: &mut Exchange, limits: &Limits) -> Result<Option<Value>, TuningError> {
    let bytes = exchange.body(limits, BODY_BYTES, None).await.map_err(|refusal| match refusal {
        Refusal::TooLarge(_) => TuningError::TooLarge(refusal.to_string()),
        other => TuningError::Invalid { message: other.to_string(), param: None, code: "invalid_json" },
    })?;
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|why| TuningError::Invalid {
        message: format!("We could not parse the JSON body of your request: {why}"),
        param: None,
        code: "invalid_json",
    })
}

async fn write(exchange: &mut Exchange, answered: Result<Answer, TuningError>) -> Done {
    match answered {
        Ok(Answer::Json(value) | Answer::Changed(value, _)) => {
            let written = exchange.whole(StatusCode::OK, json_type(), value.to_string().into()).await;
            done(&written)
        }
        Ok(Answer::Content(content)) => content.send(exchange).await,
        Err(error) => {
            let (status, body) = (respond::tuning_status(&error), respond::tuning_body(&error));
            exchange.refuse_plainly(status, respond::tuning_headers(&error), body).await
        }
    }
}

const fn done(written: &Result<(), Unwritten>) -> Done {
    match written {
        Ok(()) => Done::Reuse,
        Err(Unwritten) => Done::Close,
    }
}

fn json_type() -> Vec<(HeaderName, HeaderValue)> {
    vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_one_noun() {
        let of = |noun, rest| Some(TuningPath { noun, rest });
        for (path, want) in [
            ("files", of(TuningNoun::Files, "")),
            ("files/", of(TuningNoun::Files, "")),
            ("files/file-1/content", of(TuningNoun::Files, "file-1/content")),
            ("uploads/upload_1/parts", of(TuningNoun::Uploads, "upload_1/parts")),
            ("fine_tuning/jobs", of(TuningNoun::Jobs, "jobs")),
            ("filesystem", None),
            ("fine-tunes", None),
        ] {
            assert_eq!(TuningPath::read(path), want, "{path}");
        }
    }
}
