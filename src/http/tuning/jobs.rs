//! `/v1/fine_tuning/jobs…`: paths, queries and bodies to the jobs and back.

use std::borrow::Cow;

use http::Method;
use serde_json::{Value, json};

use super::{Answer, BODY_BYTES, Deed};
use crate::domain::key::Tuning;
use crate::domain::tuning::Caller;
use crate::domain::tuning::lifecycle::Wish;
use crate::gateway::Refusal;
use crate::http::config::Limits;
use crate::http::exchange::Exchange;
use crate::store::jobs::JobRow;
use crate::tuning::TuningError;
use crate::tuning::files::must_may;
use crate::tuning::jobs::{Jobs, Listing, Page, checkpoint_json, event_json, job_json};

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked<'a> {
    Create,
    List,
    Show(&'a str),
    Delete(&'a str),
    Wish(&'a str, Wish),
    Events(&'a str),
    Checkpoints(&'a str),
}

/// Serves a request; `rest` is what stands behind `fine_tuning/`.
pub(super) async fn answer(
    jobs: &Jobs,
    limits: &Limits,
    exchange: &mut Exchange,
    caller: &Caller,
    rest: &str,
) -> Result<Answer, TuningError> {
    let Some(asked) = asked(exchange.method(), rest) else {
        let (method, path) = (exchange.method(), exchange.uri().path());
        return Err(TuningError::NoSuchRoute(format!(
            "there is no {method} {path}: jobs are made, listed and told about below /v1/fine_tuning/jobs"
        )));
    };
    let query = Query::read(exchange.uri().query().unwrap_or_default());
    let shown = match asked {
        Asked::Create => {
            must_may(caller, Tuning::Write)?;
            let repeat_key =
                exchange.headers().get("idempotency-key").map(|key| key.to_str().map(str::to_owned));
            let repeat_key = repeat_key
                .transpose()
                .map_err(|_| TuningError::invalid("Idempotency-Key", "an Idempotency-Key is plain text"))?;
            let body = exchange.body(limits, BODY_BYTES, None).await.map_err(|refusal| match refusal {
                Refusal::TooLarge(_) => TuningError::TooLarge(refusal.to_string()),
                other => {
                    TuningError::Invalid { message: other.to_string(), param: None, code: "invalid_json" }
                }
            })?;
            let job = jobs.create(caller, &body, repeat_key.as_deref()).await?;
            return Ok(changed("job.create", &job));
        }
        Asked::List => {
            let page = jobs.list(caller, &query.listing()?).await?;
            list(&page, job_json)
        }
        Asked::Show(id) => job_json(&jobs.find(caller, id).await?),
        Asked::Delete(id) => {
            let job = jobs.find(caller, id).await?;
            let model = job.course.seen.as_ref().and_then(|seen| seen.model.as_deref()).unwrap_or("{model}");
            return Err(TuningError::NoSuchRoute(format!(
                "a fine-tuning job can't be deleted; its model can: DELETE /v1/models/{model}"
            )));
        }
        Asked::Wish(id, wish) => {
            let action = match wish {
                Wish::Cancel => "job.cancel",
                Wish::Pause => "job.pause",
                Wish::Resume => "job.resume",
            };
            return Ok(changed(action, &jobs.wish(caller, id, wish).await?));
        }
        Asked::Events(id) => {
            let page = jobs.events(caller, id, query.one("after"), query.limit()?).await?;
            list(&page, event_json)
        }
        Asked::Checkpoints(id) => {
            let page = jobs.checkpoints(caller, id, query.one("after"), query.limit()?).await?;
            let shown = list(&page, |checkpoint| checkpoint_json(id, checkpoint));
            with_ends(shown)
        }
    };
    Ok(Answer::Json(shown))
}

fn changed(action: &'static str, job: &JobRow) -> Answer {
    let more = json!({"provider": job.provider, "base": job.base, "training_file": job.training_file});
    Answer::Changed(job_json(job), Deed::new(action, &job.id, &job.owner, more))
}

fn asked<'a>(method: &Method, rest: &'a str) -> Option<Asked<'a>> {
    let rest = rest.trim_end_matches('/');
    let Some(below) = rest.strip_prefix("jobs/") else {
        return match (rest, method) {
            ("jobs", &Method::POST) => Some(Asked::Create),
            ("jobs", &Method::GET) => Some(Asked::List),
            _ => None,
        };
    };
    let (id, tail) = below.split_once('/').unwrap_or((below, ""));
    match (tail, method) {
        ("", &Method::GET) => Some(Asked::Show(id)),
        ("", &Method::DELETE) => Some(Asked::Delete(id)),
        ("events", &Method::GET) => Some(Asked::Events(id)),
        ("checkpoints", &Method::GET) => Some(Asked::Checkpoints(id)),
        (word, &Method::POST) => Wish::from_name(word).map(|wish| Asked::Wish(id, wish)),
        _ => None,
    }
}

/// A list in OpenAI's form.
fn list<T>(page: &Page<T>, show: impl Fn(&T) -> Value) -> Value {
    let shown: Vec<Value> = page.items.iter().map(show).collect();
    json!({"object": "list", "data": shown, "has_more": page.has_more})
}

/// The form that names its first and last.
fn with_ends(mut shown: Value) -> Value {
    let end = |at: Option<&Value>| at.map_or(Value::Null, |one| one["id"].clone());
    let items = shown["data"].as_array();
    let (first, last) =
        (end(items.and_then(|items| items.first())), end(items.and_then(|items| items.last())));
    shown["first_id"] = first;
    shown["last_id"] = last;
    shown
}

/// The query, taken apart; what nobody asks about is not looked at, as at OpenAI.
struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    fn read(query: &'a str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).collect())
    }

    fn one(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    fn limit(&self) -> Result<Option<i64>, TuningError> {
        let wrong = |_| TuningError::invalid("limit", "`limit` is a whole number");
        self.one("limit").map(|limit| limit.parse().map_err(wrong)).transpose()
    }

    fn listing(&self) -> Result<Listing, TuningError> {
        let pairs = self.0.iter().filter_map(|(key, value)| {
            let key = key.strip_prefix("metadata[")?.strip_suffix(']')?;
            Some((key.to_owned(), value.to_string()))
        });
        Ok(Listing {
            after: self.one("after").map(str::to_owned),
            limit: self.limit()?,
            metadata: pairs.collect(),
            without_metadata: self.one("metadata") == Some("null"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tuning::OPERATIONS;

    #[test]
    fn a_path_and_a_method_ask_for_one_thing() {
        use Method as M;
        for (method, rest, want) in [
            (M::POST, "jobs", Some(Asked::Create)),
            (M::GET, "jobs/", Some(Asked::List)),
            (M::GET, "jobs/ftjob-1", Some(Asked::Show("ftjob-1"))),
            (M::DELETE, "jobs/ftjob-1", Some(Asked::Delete("ftjob-1"))),
            (M::POST, "jobs/ftjob-1/cancel", Some(Asked::Wish("ftjob-1", Wish::Cancel))),
            (M::POST, "jobs/ftjob-1/pause", Some(Asked::Wish("ftjob-1", Wish::Pause))),
            (M::POST, "jobs/ftjob-1/resume", Some(Asked::Wish("ftjob-1", Wish::Resume))),
            (M::GET, "jobs/ftjob-1/events", Some(Asked::Events("ftjob-1"))),
            (M::GET, "jobs/ftjob-1/checkpoints", Some(Asked::Checkpoints("ftjob-1"))),
            (M::GET, "jobs/ftjob-1/cancel", None),
            (M::POST, "jobs/ftjob-1", None),
            (M::POST, "jobs/ftjob-1/events", None),
            (M::POST, "alpha/graders/run", None),
            (M::GET, "", None),
        ] {
            assert_eq!(asked(&method, rest), want, "{method} {rest}");
        }
    }

    #[test]
    fn operators_are_told_of_every_route() {
        let tails =
            ["", "/{id}", "/{id}/events", "/{id}/checkpoints", "/{id}/cancel", "/{id}/pause", "/{id}/resume"];
        let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let mut answered = Vec::new();
        for (tail, method) in tails.iter().flat_map(|tail| methods.iter().map(move |method| (tail, method))) {
            // to a deletion it is said that there is none
            if asked(method, &format!("jobs{tail}")).is_some_and(|asked| !matches!(asked, Asked::Delete(_))) {
                let path = format!("/admin/v1/fine_tuning/jobs{tail}");
                answered.push((path, method.as_str().to_ascii_lowercase()));
            }
        }
        let told = OPERATIONS.iter().filter(|(path, _)| path.contains("/fine_tuning/"));
        let told: Vec<_> = told.map(|(path, method)| ((*path).to_owned(), (*method).to_owned())).collect();
        assert_eq!(answered, told);
    }

    #[test]
    fn a_query_names_a_page_and_metadata() {
        let query = Query::read("after=ftjob-1&limit=5&metadata%5Bteam%5D=a%20b&x=y");
        let listing = query.listing().expect("sound");
        assert_eq!((listing.after.as_deref(), listing.limit), (Some("ftjob-1"), Some(5)));
        assert_eq!(listing.metadata["team"], "a b");
        assert!(!listing.without_metadata);
        assert!(Query::read("metadata=null").listing().expect("sound").without_metadata);
        assert!(Query::read("limit=many").listing().is_err());
        let page = Page { items: vec![1, 2], has_more: true };
        let shown = with_ends(list(&page, |number| json!({"id": number})));
        assert_eq!(
            (&shown["first_id"], &shown["last_id"], &shown["has_more"]),
            (&json!(1), &json!(2), &json!(true))
        );
    }
}
