//! The words that a model was trained with, as a stored prompt that all its requests get.

use std::sync::Arc;

use serde_json::{Value, json};

use super::moves::Steps;
use super::{ATTEMPTS, Listed, Registry, RegistryError, find, listed};
use crate::clock;
use crate::control::audit::Actor;
use crate::control::form::Form;
use crate::domain::prompt::{Injection, Mode, NAME_RULE, Pick, PromptRef, Role, name_is_good};
use crate::domain::registry::Registered;
use crate::store::registry::Change;

impl Registry {
    /// Stores a model's words as a version of a prompt and has all its requests get them, as a body says: the prompt's
    /// `name`, and the `mode`.
    pub async fn bind(&self, name: &str, body: &Value) -> Result<Listed, RegistryError> {
        let form = Form::new(body);
        let prompt = form.read("name", |value| {
            value.as_str().filter(|name| name_is_good(name)).ok_or(format!("a name has {NAME_RULE}"))
        });
        let mode = form.read("mode", |value| serde_json::from_value::<Mode>(value.clone()));
        let asked = (prompt.flatten(), mode.flatten().unwrap_or_default());
        let (prompt, mode) = form.finish(asked).map_err(RegistryError::Invalid)?;
        let model = self.get(name).await?.model;
        let Some(words) = model.system_prompt.as_ref().filter(|words| !words.text.trim().is_empty()) else {
            let words = format!(
                "the rows of {name}'s training file share no system message: there is nothing to bind"
            );
            return Err(RegistryError::Refused(words));
        };
        let prompt = prompt.map_or_else(|| usual_name(&model), str::to_owned);
        let note = format!("what {} was trained with", model.name);
        let draft = json!({"name": prompt, "text": &*words.text, "note": note, "author": "registry"});
        let put = self.prompts.create(&draft, clock::unix_ms()).await?;
        let prompt = PromptRef { name: put.name, pick: Pick::Version(put.number) };
        self.set_bound(&model.name, Some(Arc::new(Injection { prompt, mode, role: Role::Auto }))).await
    }

    /// Has a model's requests get no stored prompt of its own.
    pub async fn unbind(&self, name: &str) -> Result<Listed, RegistryError> {
        let model = self.get(name).await?.model;
        self.set_bound(&model.name, None).await
    }

    async fn set_bound(
        &self,
        name: &Arc<str>,
        bound: Option<Arc<Injection>>,
    ) -> Result<Listed, RegistryError> {
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let mut steps = Steps::new(clock::unix_ms());
            let prompt = bound.as_ref().map(|bound| bound.prompt.to_string());
            steps.tell(Actor::Admin, "model.bind_prompt", name, &json!({"prompt": prompt}))?;
            let change = Change::Bind { name: Arc::clone(name), bound: bound.clone() };
            let is_written = self.write(vec![change], &steps.told).await?;
            let known = self.read().await?;
            let model = find(&known, name)?;
            if is_written {
                return Ok(listed(model, &known));
            }
        }
        Err(RegistryError::Contended)
    }
}

/// How a model's prompt is called where nobody says: what the trainer called the model, else its job.
fn usual_name(model: &Registered) -> String {
    let suffix = model.suffix().filter(|suffix| name_is_good(suffix));
    suffix.unwrap_or(&model.job_id).to_owned()
}
