//! `prompt` of models and deployments, and what a deployment's model was trained with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::domain::catalog::{Deployment, Model};
use crate::domain::prompt::hash::taught_by;
use crate::domain::prompt::{Injection, NAME_RULE, PromptRef, TrainedWith};
use crate::domain::route::Route;

use super::file;
use super::problem::{Checker, Place};
use super::values::required;

/// Longest `model_version`, bytes.
const MAX_VERSION_BYTES: usize = 128;
/// Longest training file that is read, bytes: OpenAI takes no longer ones.
const MAX_TRAINING_BYTES: u64 = 512 << 20;

/// Why a deployment gets no prompt.
pub(super) const DROPPED: &str = "its words would be left out of responses again: `unsupported` names `instructions`, and \
                                  `on_unsupported` is `drop`; refuse them, or leave `/v1/responses` out of `endpoints`";

/// Checks `prompt`.
pub(super) fn injection(
    place: &Place,
    written: Option<&file::Injection>,
    checker: &mut Checker<'_>,
) -> Option<Arc<Injection>> {
    let written = written?;
    let place_of_name = place.key("name");
    let name = required(
        &place_of_name,
        written.name.as_ref(),
        "the prompt: NAME, NAME@LABEL or NAME@NUMBER",
        checker,
    )?;
    let prompt = reference(&place_of_name, &name, checker)?;
    let (mode, role) = (written.mode.unwrap_or_default(), written.role.unwrap_or_default());
    Some(Arc::new(Injection { prompt, mode, role }))
}

fn reference(place: &Place, text: &str, checker: &mut Checker<'_>) -> Option<PromptRef> {
    let found = PromptRef::parse(text);
    if found.is_none() {
        let what = format!(
            "{text} is no NAME, NAME@LABEL or NAME@NUMBER of a prompt; names and labels have {NAME_RULE}"
        );
        checker.wrong(place, what);
    }
    found
}

/// The prompts of a model.
pub(super) struct Prompts {
    own: Option<Arc<Injection>>,
    /// By the label that it is asked for with.
    of_labels: BTreeMap<String, Arc<Injection>>,
}

/// Checks `prompt` and `label_prompts` of a model.
pub(super) fn of_model(place: &Place, written: &file::Model, checker: &mut Checker<'_>) -> Prompts {
    let own = injection(&place.key("prompt"), written.prompt.as_ref(), checker);
    let mut of_labels = BTreeMap::new();
    for (label, prompt) in &written.label_prompts {
        let place = place.key("label_prompts").key(label);
        if !written.labels.contains_key(label) {
            checker.wrong(&place, format!("there is no label {label}; its plan stands in `labels`"));
        }
        of_labels.extend(injection(&place, Some(prompt), checker).map(|prompt| (label.clone(), prompt)));
    }
    Prompts { own, of_labels }
}

/// Has the routes of a model put its prompts in: that of a label wins where it is asked for by the label.
pub(super) fn give(place: &Place, prompts: &Prompts, model: &mut Model, checker: &mut Checker<'_>) {
    let mut give = |route: &mut Arc<Route>, prompt: Option<&Arc<Injection>>| {
        let Some(prompt) = prompt else { return };
        let drops =
            |deployment: &&Arc<Deployment>| deployment.prompt.is_none() && deployment.drops_instructions();
        if let Some(deployment) = route.deployments.iter().find(drops) {
            checker.wrong(&place.key("prompt"), format!("on the deployment {}, {DROPPED}", deployment.name));
        }
        Arc::make_mut(route).prompt = Some(Arc::clone(prompt));
    };
    let aside = model.longer_context.iter_mut().chain(&mut model.content_filtered);
    for route in std::iter::once(&mut model.route).chain(aside) {
        give(route, prompts.own.as_ref());
    }
    for (label, route) in &mut model.labels {
        give(route, prompts.of_labels.get(&**label).or(prompts.own.as_ref()));
    }
}

/// Checks `trained_with`; a training file is read.
pub(super) fn trained_with(
    place: &Place,
    written: Option<&file::TrainedWith>,
    checker: &mut Checker<'_>,
) -> Option<TrainedWith> {
    let written = written?;
    match (&written.sha256, &written.file, &written.prompt) {
        (Some(sha256), None, None) => {
            let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_hash {
                checker.wrong(&place.key("sha256"), "no SHA-256: 64 hex digits");
            }
            is_hash.then(|| TrainedWith::Words(sha256.to_ascii_lowercase().into()))
        }
        (None, Some(file), None) => match taught(file) {
            Ok(sha256) => Some(TrainedWith::Words(sha256.into())),
            Err(why) => {
                checker.wrong(&place.key("file"), format!("{}: {why}", file.display()));
                None
            }
        },
        (None, None, Some(prompt)) => {
            reference(&place.key("prompt"), prompt, checker).map(TrainedWith::Version)
        }
        _ => {
            checker.wrong(place, "exactly one of sha256, file and prompt says what it was trained with");
            None
        }
    }
}

fn taught(file: &Path) -> Result<String, String> {
    let length = fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > MAX_TRAINING_BYTES {
        return Err(format!("longer than {MAX_TRAINING_BYTES} bytes"));
    }
    let lines = fs::read_to_string(file).map_err(|error| error.to_string())?;
    taught_by(&lines).map_err(|why| why.to_string())
}

/// Checks `model_version`.
pub(super) fn model_version(
    place: &Place,
    written: Option<&str>,
    checker: &mut Checker<'_>,
) -> Option<Arc<str>> {
    let version = written?;
    if version.is_empty() || version.len() > MAX_VERSION_BYTES || version.chars().any(char::is_control) {
        checker.wrong(place, format!("a text of 1 to {MAX_VERSION_BYTES} bytes"));
    }
    Some(version.into())
}
