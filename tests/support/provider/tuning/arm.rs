//! Azure's control plane: deployments, what becomes of them by themselves, and the tokens that open it.

use serde_json::{Value, json};

use super::super::super::server::Request;
use super::super::errors::Trouble;
use super::time::{Beat, Pace, rfc3339};
use super::{Answered, Asked, Route, Served, Workshop};

/// DeveloperTier's life.
const DEVELOPER_MS: i64 = 24 * 3_600_000;
/// How long a deployment of a fine-tune may stand unused.
const IDLE_MS: i64 = 15 * 24 * 3_600_000;

/// How a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provisioning {
    Creating,
    Succeeded,
    Failed,
    Deleting,
    /// Deleted, by whomever.
    Gone,
}

impl Provisioning {
    const fn word(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Deleting | Self::Gone => "Deleting",
        }
    }

    const fn is_under_way(self) -> bool {
        matches!(self, Self::Creating | Self::Deleting)
    }
}

/// A deployment, also one that is gone.
#[derive(Debug, Clone)]
pub(crate) struct Deployment {
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) sku: String,
    pub(crate) capacity: u64,
    pub(crate) state: Provisioning,
    /// ms since 1970 UTC, by the provider's clock.
    pub(crate) created_ms: i64,
    pub(crate) gone_ms: Option<i64>,
    /// Whether it ever stood: what failed costs nothing.
    pub(super) stood: bool,
    /// The account's path, with the name.
    path: String,
    used_ms: i64,
    /// Requests that still find nothing.
    lag: u32,
    fails: bool,
    beat: Beat,
}

impl Deployment {
    const fn exists(&self) -> bool {
        !matches!(self.state, Provisioning::Gone)
    }

    fn step(&mut self, now_ms: i64) {
        match self.state {
            Provisioning::Creating if self.fails => self.state = Provisioning::Failed,
            Provisioning::Creating => {
                self.state = Provisioning::Succeeded;
                self.stood = true;
            }
            Provisioning::Deleting => self.ends(now_ms),
            Provisioning::Succeeded | Provisioning::Failed | Provisioning::Gone => {}
        }
    }

    const fn ends(&mut self, at_ms: i64) {
        self.state = Provisioning::Gone;
        self.gone_ms = Some(at_ms);
    }

    /// When it goes by itself, if nobody uses it any more.
    fn runs_out_ms(&self) -> i64 {
        match self.sku.eq_ignore_ascii_case("DeveloperTier") {
            true => self.created_ms + DEVELOPER_MS,
            false => self.used_ms + IDLE_MS,
        }
    }

    fn shown(&self) -> Value {
        json!({"id": self.path, "type": "Microsoft.CognitiveServices/accounts/deployments", "name": self.name,
            "sku": {"name": self.sku, "capacity": self.capacity}, "etag": "\"sim\"",
            "properties": {"provisioningState": self.state.word(),
                "model": {"format": "OpenAI", "name": self.model, "version": "1"},
                "versionUpgradeOption": "OnceNewDefaultVersionAvailable",
                "capabilities": {"chatCompletion": "true"}, "raiPolicyName": "Microsoft.Default",
                "rateLimits": [{"key": "request", "renewalPeriod": 10, "count": self.capacity},
                    {"key": "token", "renewalPeriod": 60, "count": self.capacity * 1_000}]},
            "systemData": {"createdBy": "tunegate", "createdByType": "Application",
                "createdAt": rfc3339(self.created_ms)}})
    }
}

/// The control plane of one account.
#[derive(Debug)]
pub(super) struct Arm {
    /// Oldest first.
    pub(super) deployments: Vec<Deployment>,
    pub(super) lag: u32,
    pub(super) per_page: usize,
    pub(super) next_fails: bool,
    tokens: u64,
}

impl Arm {
    pub(super) const fn new() -> Self {
        Self { deployments: Vec::new(), lag: 0, per_page: 100, next_fails: false, tokens: 0 }
    }

    pub(super) fn move_on(&mut self, pace: Pace, now_ms: i64, polled: Option<&str>) {
        for deployment in self.deployments.iter_mut().filter(|deployment| deployment.exists()) {
            if deployment.state.is_under_way() {
                for _ in 0..deployment.beat.steps(pace, now_ms, polled == Some(deployment.name.as_str())) {
                    deployment.step(now_ms);
                }
            }
            if deployment.exists() && deployment.runs_out_ms() <= now_ms {
                deployment.ends(deployment.runs_out_ms());
            }
        }
    }

    pub(super) fn step(&mut self, now_ms: i64) {
        self.deployments.iter_mut().for_each(|deployment| deployment.step(now_ms));
    }

    fn find(&mut self, name: &str) -> Option<&mut Deployment> {
        self.deployments.iter_mut().rev().find(|deployment| deployment.exists() && deployment.name == name)
    }

    /// A deployment that somebody has made in the portal, and that stands.
    pub(super) fn put(&mut self, name: &str, model: &str, sku: &str, created_ms: i64) {
        self.deployments.push(Deployment {
            name: name.to_owned(),
            model: model.to_owned(),
            sku: sku.to_owned(),
            capacity: 1,
            state: Provisioning::Succeeded,
            created_ms,
            gone_ms: None,
            stood: true,
            path: format!("/the-portal/deployments/{name}"),
            used_ms: created_ms,
            lag: 0,
            fails: false,
            beat: Beat::since(created_ms),
        });
    }

    /// Somebody has taken a deployment away in the portal.
    pub(super) fn take(&mut self, name: &str, at_ms: i64) {
        self.find(name).unwrap_or_else(|| panic!("no deployment {name}")).ends(at_ms);
    }

    /// The model behind a deployment that there is.
    pub(super) fn model_of(&mut self, name: &str) -> Option<String> {
        self.find(name).map(|deployment| deployment.model.clone())
    }

    /// Whether a model has a deployment.
    pub(super) fn serves(&self, model: &str) -> bool {
        self.deployments.iter().any(|deployment| deployment.exists() && deployment.model == model)
    }

    /// Why a deployment cannot answer: it is not there yet, or not any more. Names that nobody ever deployed here are
    /// not its business.
    pub(super) fn refuses(&mut self, name: &str, now_ms: i64) -> Option<Trouble> {
        let is_known = self.deployments.iter().any(|deployment| deployment.name == name);
        let found = self.find(name).filter(|deployment| deployment.state == Provisioning::Succeeded);
        let Some(deployment) = found else { return is_known.then(Trouble::azure_deployment_not_found) };
        if deployment.lag > 0 {
            deployment.lag -= 1;
            return Some(Trouble::azure_deployment_not_found());
        }
        deployment.used_ms = now_ms;
        None
    }

    /// Only tokens that were made for the control plane open it: never a key.
    pub(super) fn refuses_credential(&self, request: &Request) -> Option<Trouble> {
        let shown = request.header("authorization").and_then(|value| value.strip_prefix("Bearer arm-token-"));
        let number: Option<u64> = shown.and_then(|number| number.parse().ok());
        let is_good = number.is_some_and(|number| number <= self.tokens);
        (!is_good).then(|| {
            Trouble::azure(
                401,
                "InvalidAuthenticationToken",
                "The access token is missing or was made for another audience.",
            )
        })
    }

    fn token(&mut self, request: &Request) -> Served {
        let form: Vec<(String, String)> = url::form_urlencoded::parse(&request.body).into_owned().collect();
        let member = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let is_known = member("client_secret").is_some() || member("client_assertion").is_some();
        if !is_known || member("grant_type") != Some("client_credentials") {
            let error = json!({"error": "invalid_client", "error_description": "AADSTS7000215"});
            return Served::json(401, &error);
        }
        self.tokens += 1;
        let kind = match member("scope") {
            Some("https://management.azure.com/.default") => "arm",
            _ => "data",
        };
        Served::ok(&json!({"access_token": format!("{kind}-token-{}", self.tokens), "expires_in": 3_600,
            "token_type": "Bearer"}))
    }
}

impl Workshop {
    pub(super) fn serve_arm(&mut self, asked: &Asked<'_>) -> Answered {
        if asked.route == Route::Token {
            return Ok(self.arm.token(asked.request));
        }
        if asked.parameter("api-version").is_none_or(|version| version.as_str() < "2023-05-01") {
            let message = "The api-version query parameter (?api-version=) is required for all requests.";
            return Err(Trouble::azure(400, "MissingApiVersionParameter", message));
        }
        let now_ms = self.now_ms();
        match asked.route {
            Route::ListDeployments => Ok(self.list_deployments(asked)),
            Route::GetOperation => Ok(self.operation(asked)),
            Route::PutDeployment => self.put_deployment(asked, now_ms),
            Route::DeleteDeployment => self.delete_deployment(asked),
            Route::PatchDeployment => {
                let body = asked.json()?;
                self.must_be_idle()?;
                let deployment = self.arm.find(&asked.id).ok_or_else(|| no_resource(asked))?;
                if let Some(capacity) = body["sku"]["capacity"].as_u64() {
                    deployment.capacity = capacity;
                }
                Ok(Served::ok(&deployment.shown()))
            }
            _ => {
                let deployment = self.arm.find(&asked.id).ok_or_else(|| no_resource(asked))?;
                Ok(Served::ok(&deployment.shown()))
            }
        }
    }

    /// One operation at a time on an account.
    fn must_be_idle(&self) -> Result<(), Trouble> {
        match self.arm.deployments.iter().any(|deployment| deployment.state.is_under_way()) {
            true => Err(Trouble::azure(
                409,
                "RequestConflict",
                "Another operation is being performed on the parent resource. Please try again later.",
            )),
            false => Ok(()),
        }
    }

    fn put_deployment(&mut self, asked: &Asked<'_>, now_ms: i64) -> Answered {
        let body = asked.json()?;
        self.must_be_idle()?;
        let (model, sku) = (&body["properties"]["model"], &body["sku"]);
        let (Some(name), Some(tier)) = (model["name"].as_str(), sku["name"].as_str()) else {
            return Err(Trouble::azure(400, "InvalidResourceProperties", "The model or the sku is missing."));
        };
        let is_tuned = name.contains(".ft-");
        let is_made = self.jobs.models.iter().any(|tuned| tuned.name == name && !tuned.is_deleted);
        if model["format"] != "OpenAI" || (is_tuned && (!is_made || model["version"] != "1")) {
            let message = format!(
                "The model 'Format: {}, Name: {name}' of this deployment is not supported.",
                model["format"]
            );
            return Err(Trouble::azure(400, "DeploymentModelNotSupported", &message));
        }
        let capacity = sku["capacity"].as_u64().unwrap_or(1);
        if let Some(deployment) = self.arm.find(&asked.id) {
            name.clone_into(&mut deployment.model);
            tier.clone_into(&mut deployment.sku);
            deployment.capacity = capacity;
            return Ok(Served::ok(&deployment.shown()));
        }
        let deployment = Deployment {
            name: asked.id.clone(),
            model: name.to_owned(),
            sku: tier.to_owned(),
            capacity,
            state: Provisioning::Creating,
            created_ms: now_ms,
            gone_ms: None,
            stood: false,
            path: asked.request.path().to_owned(),
            used_ms: now_ms,
            lag: self.arm.lag,
            fails: std::mem::take(&mut self.arm.next_fails),
            beat: Beat::since(now_ms),
        };
        let shown = deployment.shown();
        self.arm.deployments.push(deployment);
        Ok(Served::json(201, &shown).with_header("azure-asyncoperation", &operation_url(asked)))
    }

    fn delete_deployment(&mut self, asked: &Asked<'_>) -> Answered {
        if self.arm.find(&asked.id).is_none() {
            return Ok(Served::empty(204));
        }
        self.must_be_idle()?;
        let deployment = self.arm.find(&asked.id).ok_or_else(|| no_resource(asked))?;
        deployment.state = Provisioning::Deleting;
        Ok(Served::json(202, &json!({})).with_header("location", &operation_url(asked)))
    }

    fn list_deployments(&self, asked: &Asked<'_>) -> Served {
        let from: usize = asked.parameter("$skipToken").and_then(|text| text.parse().ok()).unwrap_or(0);
        let all: Vec<&Deployment> =
            self.arm.deployments.iter().filter(|deployment| deployment.exists()).collect();
        let shown: Vec<Value> =
            all.iter().skip(from).take(self.arm.per_page).map(|deployment| deployment.shown()).collect();
        let mut answer = json!({"value": shown});
        let next = from + self.arm.per_page;
        if next < all.len() {
            let (host, version) = (asked.request.header("host"), asked.parameter("api-version"));
            answer["nextLink"] = format!(
                "http://{}{}?api-version={}&$skipToken={next}",
                host.unwrap_or_default(),
                asked.request.path(),
                version.unwrap_or_default()
            )
            .into();
        }
        Served::ok(&answer)
    }

    /// What became of the last operation on a deployment; polling it moves that on.
    fn operation(&mut self, asked: &Asked<'_>) -> Served {
        let state = self.arm.deployments.iter().rev().find(|deployment| deployment.name == asked.id);
        let status = match state.map(|deployment| deployment.state) {
            Some(Provisioning::Creating | Provisioning::Deleting) => "InProgress",
            Some(Provisioning::Failed) => "Failed",
            Some(Provisioning::Succeeded | Provisioning::Gone) | None => "Succeeded",
        };
        Served::ok(&json!({"id": asked.request.path(), "name": asked.id, "status": status}))
    }
}

fn no_resource(asked: &Asked<'_>) -> Trouble {
    let message = format!("The Resource '{}' was not found.", asked.request.path());
    Trouble::azure(404, "ResourceNotFound", &message)
}

/// Where the state of an operation is read: under the deployment's name.
fn operation_url(asked: &Asked<'_>) -> String {
    let subscription = asked.request.path().split('/').nth(2).unwrap_or_default();
    format!(
        "http://{}/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/locations/sim/\
         operationStatuses/{}?api-version=2025-09-01",
        asked.request.header("host").unwrap_or_default(),
        asked.id
    )
}
