//! Which call of the tuning API a request is.

use super::super::super::server::Request;
use super::super::endpoints::House;

/// The calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    UploadFile,
    ListFiles,
    GetFile,
    FileContent,
    DeleteFile,
    CreateUpload,
    AddPart,
    CompleteUpload,
    CancelUpload,
    CreateJob,
    ListJobs,
    GetJob,
    /// Azure's classic API alone has it.
    DeleteJob,
    CancelJob,
    PauseJob,
    ResumeJob,
    JobEvents,
    JobCheckpoints,
    GetModel,
    DeleteModel,
    PutDeployment,
    GetDeployment,
    ListDeployments,
    PatchDeployment,
    DeleteDeployment,
    /// What became of a long-running operation.
    GetOperation,
    /// Microsoft Entra ID's token endpoint.
    Token,
}

impl Route {
    /// Whether it asks how one thing stands: what is under way may move on then.
    pub(super) const fn is_poll(self) -> bool {
        matches!(self, Self::GetFile | Self::GetJob | Self::GetDeployment | Self::GetOperation)
    }

    /// Whether Azure's control plane answers it: with tokens of its own.
    pub(super) const fn is_control_plane(self) -> bool {
        matches!(
            self,
            Self::PutDeployment
                | Self::GetDeployment
                | Self::ListDeployments
                | Self::PatchDeployment
                | Self::DeleteDeployment
                | Self::GetOperation
        )
    }
}

/// A request that is one of them.
#[derive(Debug)]
pub(crate) struct TuningCall {
    pub(in super::super) house: House,
    pub(in super::super) route: Route,
    pub(in super::super) id: String,
}

impl TuningCall {
    /// Nothing for anything else.
    pub(in super::super) fn of(request: &Request) -> Option<Self> {
        let (house, operation) = taken_apart(request.path())?;
        let segments: Vec<String> = operation.split('/').map(decoded).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (route, id) = match house {
            None => control_plane(&request.method, &segments)?,
            Some(_) => data_plane(&request.method, &segments)?,
        };
        Some(Self { house: house.unwrap_or(House::AzureV1), route, id: id.to_owned() })
    }
}

/// The house, or none for the control plane, and what comes behind its base path.
fn taken_apart(path: &str) -> Option<(Option<House>, &str)> {
    if path.starts_with("/openai/deployments/") {
        return None;
    }
    let houses =
        [("/openai/v1/", House::AzureV1), ("/openai/", House::AzureClassic), ("/v1/", House::OpenAi)];
    let found = houses.iter().find_map(|(base, house)| Some((Some(*house), path.strip_prefix(base)?)));
    found.or_else(|| Some((None, path.strip_prefix('/')?)))
}

fn data_plane<'a>(method: &str, segments: &[&'a str]) -> Option<(Route, &'a str)> {
    Some(match (method, segments) {
        ("POST", ["files"]) => (Route::UploadFile, ""),
        ("GET", ["files"]) => (Route::ListFiles, ""),
        ("GET", ["files", id]) => (Route::GetFile, id),
        ("DELETE", ["files", id]) => (Route::DeleteFile, id),
        ("GET", ["files", id, "content"]) => (Route::FileContent, id),
        ("POST", ["uploads"]) => (Route::CreateUpload, ""),
        ("POST", ["uploads", id, "parts"]) => (Route::AddPart, id),
        ("POST", ["uploads", id, "complete"]) => (Route::CompleteUpload, id),
        ("POST", ["uploads", id, "cancel"]) => (Route::CancelUpload, id),
        ("POST", ["fine_tuning", "jobs"]) => (Route::CreateJob, ""),
        ("GET", ["fine_tuning", "jobs"]) => (Route::ListJobs, ""),
        ("GET", ["fine_tuning", "jobs", id]) => (Route::GetJob, id),
        ("DELETE", ["fine_tuning", "jobs", id]) => (Route::DeleteJob, id),
        ("POST", ["fine_tuning", "jobs", id, "cancel"]) => (Route::CancelJob, id),
        ("POST", ["fine_tuning", "jobs", id, "pause"]) => (Route::PauseJob, id),
        ("POST", ["fine_tuning", "jobs", id, "resume"]) => (Route::ResumeJob, id),
        ("GET", ["fine_tuning", "jobs", id, "events"]) => (Route::JobEvents, id),
        ("GET", ["fine_tuning", "jobs", id, "checkpoints"]) => (Route::JobCheckpoints, id),
        ("GET", ["models", id]) => (Route::GetModel, id),
        ("DELETE", ["models", id]) => (Route::DeleteModel, id),
        _ => return None,
    })
}

fn control_plane<'a>(method: &str, segments: &[&'a str]) -> Option<(Route, &'a str)> {
    Some(match (method, segments) {
        ("POST", [_, "oauth2", "v2.0", "token"]) => (Route::Token, ""),
        ("GET", ["subscriptions", .., "operationStatuses", id]) => (Route::GetOperation, id),
        ("GET", ["subscriptions", .., "deployments"]) => (Route::ListDeployments, ""),
        ("PUT", ["subscriptions", .., "deployments", name]) => (Route::PutDeployment, name),
        ("GET", ["subscriptions", .., "deployments", name]) => (Route::GetDeployment, name),
        ("PATCH", ["subscriptions", .., "deployments", name]) => (Route::PatchDeployment, name),
        ("DELETE", ["subscriptions", .., "deployments", name]) => (Route::DeleteDeployment, name),
        _ => return None,
    })
}

/// A segment of a path without its percent signs.
fn decoded(segment: &str) -> String {
    let plain = segment.replace('+', "%2B");
    let pair = format!("segment={plain}");
    url::form_urlencoded::parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}
