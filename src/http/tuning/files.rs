//! `/v1/files` and `/v1/uploads`, in OpenAI's shapes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::form::{Form, Member};
use super::{Answer, Deed, TuningDesk, body};
use crate::clock;
use crate::domain::key::Tuning;
use crate::domain::tuning::{
    Caller, LONGEST_EXPIRY_S, Purpose, SHORTEST_EXPIRY_S, TrainingFile, Upload, UploadPart, filename,
};
use crate::http::config::Limits;
use crate::http::exchange::{Done, Exchange, Unwritten};
use crate::store::files::Order;
use crate::tuning::TuningError;
use crate::tuning::files::{
    Begun, Completion, Files, Listed, Listing, MOST_LISTED, NewFile, PART_BYTES, Receiving, must_may,
};

/// How much of a content is read and written at a time.
const SLICE_BYTES: usize = 256 << 10;

/// Answers a request for files.
pub(super) async fn answer(
    desk: &TuningDesk,
    limits: &Limits,
    exchange: &mut Exchange,
    caller: &Caller,
    rest: &str,
) -> Result<Answer, TuningError> {
    let (files, now_ms) = (&*desk.files, clock::unix_ms());
    let operator = matches!(caller, Caller::Operator { .. });
    let shown = |file: &TrainingFile| if operator { whole_object(file) } else { object(file) };
    let (id, below) = rest.split_once('/').unwrap_or((rest, ""));
    match (exchange.method().clone(), id, below) {
        (Method::GET, "", "") => {
            let listed = files.list(caller, &listing(exchange)?).await?;
            Ok(Answer::Json(list(&listed, shown)))
        }
        (Method::POST, "", "") => {
            let file = upload(files, limits, exchange, caller).await?;
            Ok(Answer::Changed(shown(&file), of_file("file.create", &file)))
        }
        (Method::GET, id, "") => Ok(Answer::Json(shown(&files.find(caller, id).await?))),
        (Method::DELETE, id, "") => {
            let file = files.delete(caller, id, now_ms).await?;
            let shown = json!({"id": id, "object": "file", "deleted": true});
            Ok(Answer::Changed(shown, of_file("file.delete", &file)))
        }
        (Method::GET, id, "content") => {
            let (file, content) = files.content(caller, id).await?;
            Ok(Answer::Content(Box::new(Content { file, content })))
        }
        (Method::GET, id, "report") => {
            let file = files.find(caller, id).await?;
            let report = files.report(&file.id).await?;
            Ok(Answer::Json(json!({
                "object": "file.report", "id": file.id, "status": file.status.shown(), "report": report,
            })))
        }
        _ => Err(no_route(exchange)),
    }
}

/// Answers a request for uploads.
pub(super) async fn answer_uploads(
    desk: &TuningDesk,
    limits: &Limits,
    exchange: &mut Exchange,
    caller: &Caller,
    rest: &str,
) -> Result<Answer, TuningError> {
    let files = &*desk.files;
    let (id, below) = rest.split_once('/').unwrap_or((rest, ""));
    match (exchange.method().clone(), id, below) {
        (Method::POST, "", "") => {
            must_may(caller, Tuning::Write)?;
            let begun = begun(body(exchange, limits).await?)?;
            let upload = files.begin_upload(caller, begun, clock::unix_ms()).await?;
            Ok(Answer::Changed(upload_object(&upload, None), of_upload("upload.create", &upload)))
        }
        (Method::POST, id, "parts") if !id.is_empty() => {
            let received = files.receive_part(caller, id, clock::unix_ms()).await?;
            let received = part(limits, exchange, received).await?;
            let part = files.add_part(caller, id, received, clock::unix_ms()).await?;
            Ok(Answer::Json(part_object(&part)))
        }
        (Method::POST, id, "complete") if !id.is_empty() => {
            // who may not, and whose it is not, is told so before what they have sent is looked at
            files.pending_upload(caller, id, clock::unix_ms()).await?;
            let completion = completion(body(exchange, limits).await?)?;
            let (upload, file) = files.complete_upload(caller, id, &completion, clock::unix_ms()).await?;
            let shown = upload_object(&upload, Some(&file));
            Ok(Answer::Changed(shown, of_upload("upload.complete", &upload)))
        }
        (Method::POST, id, "cancel") if !id.is_empty() => {
            let upload = files.cancel_upload(caller, id, clock::unix_ms()).await?;
            Ok(Answer::Changed(upload_object(&upload, None), of_upload("upload.cancel", &upload)))
        }
        _ => Err(no_route(exchange)),
    }
}

fn of_file(action: &'static str, file: &TrainingFile) -> Deed {
    let TrainingFile { id, owner, filename, bytes, sha256, purpose, .. } = file;
    let more = json!({"filename": filename, "bytes": bytes, "sha256": sha256, "purpose": purpose.name()});
    Deed::new(action, id, owner, more)
}

fn of_upload(action: &'static str, upload: &Upload) -> Deed {
    let Upload { id, owner, filename, bytes, file_id, .. } = upload;
    let more = json!({"filename": filename, "bytes": bytes, "file": file_id});
    Deed::new(action, id, owner, more)
}

fn no_route(exchange: &Exchange) -> TuningError {
    TuningError::NoSuchRoute(format!("there is no {} {}", exchange.method(), exchange.uri().path()))
}

/// Reads a form with a file: what it is for may stand before it or behind.
async fn upload(
    files: &Files,
    limits: &Limits,
    exchange: &mut Exchange,
    caller: &Caller,
) -> Result<TrainingFile, TuningError> {
    // may they, and is there room: before a byte is read
    let mut room = Some(files.receive(caller).await?);
    let too_large = || files.too_large();
    let mut form = Form::begin(exchange, limits, files.config().max_file_bytes, too_large).await?;
    let mut received = None;
    let mut values = BTreeMap::new();
    while let Some(member) = form.next().await? {
        match member.name.as_str() {
            "file" => {
                let into = room.take().ok_or_else(|| {
                    TuningError::invalid("file", "the form has more than one file: send them one by one")
                })?;
                let name = member.filename.as_deref().unwrap_or_default();
                let name = filename(name).map_err(|why| TuningError::invalid("file", why))?;
                received = Some((name, take(member, into).await?));
            }
            "purpose" | "expires_after[anchor]" | "expires_after[seconds]" => {
                let name = member.name.clone();
                let value = member.text().await?;
                if name == "purpose" {
                    Purpose::of_upload(&value).map_err(|why| TuningError::invalid("purpose", why))?;
                }
                if values.insert(name.clone(), value).is_some() {
                    return Err(TuningError::invalid(&name, format!("'{name}' is there twice")));
                }
            }
            other => {
                let name: String = other.chars().take(64).collect();
                return Err(TuningError::invalid(
                    &name,
                    format!("Unrecognized request argument supplied: {name}"),
                ));
            }
        }
    }
    drop(form);
    let (filename, received) = received.ok_or_else(|| TuningError::missing("file"))?;
    let purpose = values.remove("purpose").ok_or_else(|| TuningError::missing("purpose"))?;
    let purpose = Purpose::of_upload(&purpose).map_err(|why| TuningError::invalid("purpose", why))?;
    let anchor = values.remove("expires_after[anchor]").map(Value::from);
    let seconds = values.remove("expires_after[seconds]").map(|text| match text.parse::<u64>() {
        Ok(seconds) => seconds.into(),
        Err(_) => Value::from(text),
    });
    let expires_after_ms = expiry(anchor.as_ref(), seconds.as_ref())?;
    files.create(caller, received, NewFile { filename, purpose, expires_after_ms }, clock::unix_ms()).await
}

/// Takes a member's bytes as they come.
async fn take(mut member: Member<'_>, mut into: Receiving) -> Result<Receiving, TuningError> {
    while let Some(piece) = member.piece().await? {
        into.push(piece).await?;
    }
    Ok(into)
}

/// Reads a form with a part.
async fn part(limits: &Limits, exchange: &mut Exchange, room: Receiving) -> Result<Receiving, TuningError> {
    let mut form = Form::begin(exchange, limits, PART_BYTES, Files::part_too_large).await?;
    let (mut room, mut received) = (Some(room), None);
    while let Some(member) = form.next().await? {
        match (member.name.as_str(), room.take()) {
            ("data", Some(into)) => received = Some(take(member, into).await?),
            ("data", None) => {
                return Err(TuningError::invalid("data", "'data' is there twice: send parts one by one"));
            }
            (other, _) => {
                let name: String = other.chars().take(64).collect();
                return Err(TuningError::invalid(
                    &name,
                    format!("Unrecognized request argument supplied: {name}"),
                ));
            }
        }
    }
    let received = received.ok_or_else(|| TuningError::missing("data"))?;
    match received.bytes() {
        0 => Err(TuningError::invalid("data", "the part is empty: leave it out")),
        _ => Ok(received),
    }
}

/// How long a file is kept, ms.
fn expiry(anchor: Option<&Value>, seconds: Option<&Value>) -> Result<Option<i64>, TuningError> {
    if anchor.is_none() && seconds.is_none() {
        return Ok(None);
    }
    if anchor.and_then(Value::as_str) != Some("created_at") {
        return Err(TuningError::invalid(
            "expires_after[anchor]",
            "'expires_after[anchor]' has to be 'created_at'",
        ));
    }
    let seconds = seconds.and_then(Value::as_u64);
    match seconds.filter(|seconds| (SHORTEST_EXPIRY_S..=LONGEST_EXPIRY_S).contains(seconds)) {
        Some(seconds) => Ok(i64::try_from(seconds).ok().map(|seconds| seconds * 1_000)),
        None => Err(TuningError::invalid(
            "expires_after[seconds]",
            format!(
                "'expires_after[seconds]' has to be a number of {SHORTEST_EXPIRY_S} to {LONGEST_EXPIRY_S}"
            ),
        )),
    }
}

/// What the body of a new upload says.
fn begun(body: Option<Value>) -> Result<Begun, TuningError> {
    let members = members(body, &["filename", "purpose", "bytes", "mime_type", "expires_after"])?;
    let text = |name: &str| match members.get(name) {
        None | Some(Value::Null) => Err(TuningError::missing(name)),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(TuningError::invalid(name, format!("'{name}' has to be a text"))),
    };
    let name = filename(text("filename")?).map_err(|why| TuningError::invalid("filename", why))?;
    let purpose = Purpose::of_upload(text("purpose")?).map_err(|why| TuningError::invalid("purpose", why))?;
    let bytes = match members.get("bytes") {
        None | Some(Value::Null) => return Err(TuningError::missing("bytes")),
        Some(bytes) => bytes
            .as_u64()
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| TuningError::invalid("bytes", "'bytes' has to be a whole number of 1 or more"))?,
    };
    let mime_type: String = text("mime_type")?.chars().take(128).collect();
    let expires_after_ms = match members.get("expires_after") {
        None | Some(Value::Null) => None,
        Some(expires) => expiry(Some(&expires["anchor"]), Some(&expires["seconds"]))?,
    };
    Ok(Begun { filename: name, purpose, bytes, mime_type, expires_after_ms })
}

/// What the body of a complete upload says.
fn completion(body: Option<Value>) -> Result<Completion, TuningError> {
    let members = members(body, &["part_ids", "md5"])?;
    let wrong =
        || TuningError::invalid("part_ids", "'part_ids' has to be a list of ids of parts, in their order");
    let ids = match members.get("part_ids") {
        None | Some(Value::Null) => return Err(TuningError::missing("part_ids")),
        Some(ids) => ids.as_array().filter(|ids| !ids.is_empty()).ok_or_else(wrong)?,
    };
    let part_ids = ids
        .iter()
        .map(|id| id.as_str().map(ToOwned::to_owned).ok_or_else(wrong))
        .collect::<Result<_, _>>()?;
    let md5 = match members.get("md5") {
        None | Some(Value::Null) => None,
        Some(md5) => {
            let sound = |text: &&str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let text = md5.as_str().filter(sound);
            Some(text.ok_or_else(|| TuningError::invalid("md5", "'md5' has to be 32 hex digits"))?.to_owned())
        }
    };
    Ok(Completion { part_ids, md5 })
}

/// The members of a body, all of which are known.
fn members(body: Option<Value>, known: &[&str]) -> Result<serde_json::Map<String, Value>, TuningError> {
    let Some(Value::Object(members)) = body else {
        return Err(TuningError::Invalid {
            message: "the body has to be a JSON object".to_owned(),
            param: None,
            code: "invalid_type",
        });
    };
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(members),
        Some(name) => {
            let name: String = name.chars().take(64).collect();
            Err(TuningError::invalid(&name, format!("Unrecognized request argument supplied: {name}")))
        }
    }
}

/// Which files the query asks for.
fn listing(exchange: &Exchange) -> Result<Listing, TuningError> {
    let mut listing = Listing { purpose: None, order: Order::Descending, after: None, limit: MOST_LISTED };
    let query = exchange.uri().query().unwrap_or_default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty())
    {
        match &*name {
            "purpose" => {
                let purpose = Purpose::of_upload(&value).ok().or_else(|| Purpose::from_name(&value));
                let wrong = || {
                    TuningError::invalid(
                        "purpose",
                        "no files with this purpose are kept here: 'fine-tune' and 'fine-tune-results' are",
                    )
                };
                listing.purpose = Some(purpose.ok_or_else(wrong)?);
            }
            "order" => {
                listing.order = match &*value {
                    "asc" => Order::Ascending,
                    "desc" => Order::Descending,
                    _ => return Err(TuningError::invalid("order", "'order' is 'asc' or 'desc'")),
                };
            }
            "after" => listing.after = Some(value.into_owned()),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MOST_LISTED).contains(limit));
                let wrong =
                    || TuningError::invalid("limit", format!("'limit' is a number of 1 to {MOST_LISTED}"));
                listing.limit = limit.ok_or_else(wrong)?;
            }
            // `api-version` is an Azure client's, `team` an operator's
            _ => {}
        }
    }
    Ok(listing)
}

fn list(listed: &Listed, shown: impl Fn(&TrainingFile) -> Value) -> Value {
    let id = |file: Option<&TrainingFile>| file.map(|file| file.id.clone());
    json!({
        "object": "list",
        "data": listed.files.iter().map(shown).collect::<Vec<_>>(),
        "first_id": id(listed.files.first()),
        "last_id": id(listed.files.last()),
        "has_more": listed.has_more,
    })
}

/// A file as OpenAI shows it.
pub(super) fn object(file: &TrainingFile) -> Value {
    json!({
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at_ms.div_euclid(1_000),
        "expires_at": file.expires_at_ms.map(|ms| ms.div_euclid(1_000)),
        "filename": file.filename,
        "purpose": file.purpose.name(),
        "status": file.status.shown(),
        "status_details": file.status_details,
    })
}

/// The same for operators: whose it is, and what is in it.
fn whole_object(file: &TrainingFile) -> Value {
    let mut shown = object(file);
    shown["tunegate"] = json!({
        "owner": file.owner.to_string(),
        "sha256": file.sha256,
        "system_prompt_sha256": file.system_prompt_sha256,
    });
    shown
}

fn upload_object(upload: &Upload, file: Option<&TrainingFile>) -> Value {
    json!({
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": upload.created_at_ms.div_euclid(1_000),
        "expires_at": upload.expires_at_ms.div_euclid(1_000),
        "filename": upload.filename,
        "purpose": upload.purpose.name(),
        "status": upload.status.name(),
        "file": file.map(object),
    })
}

fn part_object(part: &UploadPart) -> Value {
    json!({
        "id": part.id,
        "object": "upload.part",
        "created_at": part.created_at_ms.div_euclid(1_000),
        "upload_id": part.upload_id,
    })
}

/// What a file holds, to be sent as it is read.
#[derive(Debug)]
pub(in crate::http) struct Content {
    file: TrainingFile,
    content: File,
}

impl Content {
    /// Sends it. What can't be read to its end closes the connection: nobody takes the part for the whole.
    pub(super) async fn send(self, exchange: &mut Exchange) -> Done {
        match self.write(exchange).await {
            Ok(()) => Done::Reuse,
            Err(Unwritten) => Done::Close,
        }
    }

    async fn write(self, exchange: &mut Exchange) -> Result<(), Unwritten> {
        let headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (header::CONTENT_DISPOSITION, disposition(&self.file.filename)),
            (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
        ];
        exchange.begin_sized(StatusCode::OK, headers, self.file.bytes).await?;
        let (mut content, mut left) = (self.content, self.file.bytes);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(SLICE_BYTES);
            let read = tokio::task::spawn_blocking(move || {
                let mut slice = vec![0; most];
                content.read_exact(&mut slice).map(|()| (content, Bytes::from(slice)))
            });
            let slice = match read.await {
                Ok(Ok((rest, slice))) => {
                    content = rest;
                    slice
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, file = self.file.id, "a file's content breaks off");
                    return Err(Unwritten);
                }
                Err(_) => return Err(Unwritten),
            };
            left -= slice.len() as u64;
            exchange.write(slice).await?;
        }
        exchange.end_stream().await
    }
}

/// A file's name for whoever saves it.
fn disposition(name: &str) -> HeaderValue {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii() && !c.is_ascii_control() && !"\"\\".contains(c) { c } else { '_' })
        .collect();
    let escaped: String =
        url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20");
    let text = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{escaped}");
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_said_twice() {
        for (name, want) in [
            ("train.jsonl", "attachment; filename=\"train.jsonl\"; filename*=UTF-8''train.jsonl"),
            (
                "猫 \"1\".jsonl",
                "attachment; filename=\"_ _1_.jsonl\"; filename*=UTF-8''%E7%8C%AB%20%221%22.jsonl",
            ),
        ] {
            assert_eq!(disposition(name), want);
        }
    }

    #[test]
    fn an_expiry_has_an_anchor_and_a_bound() {
        let anchor = json!("created_at");
        assert_eq!(expiry(None, None), Ok(None));
        assert_eq!(expiry(Some(&anchor), Some(&json!(3_600))), Ok(Some(3_600_000)));
        for (anchor, seconds) in [
            (Some(json!("created_at")), None),
            (None, Some(json!(3_600))),
            (Some(json!("last_active_at")), Some(json!(3_600))),
            (Some(json!("created_at")), Some(json!(3_599))),
            (Some(json!("created_at")), Some(json!(2_592_001))),
            (Some(json!("created_at")), Some(json!("3600"))),
        ] {
            assert!(expiry(anchor.as_ref(), seconds.as_ref()).is_err(), "{anchor:?} {seconds:?}");
        }
    }

    #[test]
    fn bodies_of_uploads_are_read_whole() {
        let sound =
            json!({"filename": "a/b.jsonl", "purpose": "fine_tune", "bytes": 3, "mime_type": "text/jsonl"});
        let read = begun(Some(sound.clone())).expect("sound");
        assert_eq!((read.filename.as_str(), read.bytes, read.expires_after_ms), ("b.jsonl", 3, None));
        for (member, value) in [
            ("filename", Value::Null),
            ("purpose", json!("batch")),
            ("bytes", json!(0)),
            ("bytes", json!("3")),
            ("mime_type", json!(3)),
            ("expires_after", json!({"anchor": "created_at", "seconds": 1})),
            ("unknown", json!(1)),
        ] {
            let mut wrong = sound.clone();
            wrong[member] = value;
            let error = begun(Some(wrong)).expect_err(member);
            assert!(error.param().is_some_and(|param| param.starts_with(member)), "{error:?}");
        }
        assert!(begun(None).is_err() && begun(Some(json!([]))).is_err());
        let whole = json!({"part_ids": ["part_1", "part_2"], "md5": "900150983cd24fb0d6963f7d28e17f72"});
        assert_eq!(completion(Some(whole)).expect("sound").part_ids.len(), 2);
        for wrong in [
            json!({}),
            json!({"part_ids": []}),
            json!({"part_ids": [1]}),
            json!({"part_ids": ["a"], "md5": "x"}),
        ] {
            assert!(completion(Some(wrong.clone())).is_err(), "{wrong}");
        }
    }
}
