//! Stored prompts: versions that never change, and labels that are moved from one to another. The data plane gets all of
//! them as one book, before an operator is told of a change.
//!
//! A folder of files may keep prompts, too: what it holds becomes versions at start and at each reload, and the labels it
//! names are its own: nobody else moves them.

mod cost;
mod diff;
mod draft;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::Mutex;

pub use self::cost::{CostQuery, CostReport, DayCost, Instead, VersionCost};
pub use self::draft::Draft;
use self::draft::Signed;
use super::audit::{self, Actor};
use super::form::{Form, Problem};
use super::random::NoRandom;
use super::reports::Reports;
use crate::domain::catalog::Catalog;
use crate::domain::prompt::hash::sha256_of;
use crate::domain::prompt::template::{RenderError, Template, Values};
use crate::domain::prompt::{
    MAX_VERSIONS, NAME_RULE, PRODUCTION, Pick, Prompt, PromptBook, PromptRef, PromptVersion, TrainedWith,
    name_is_good,
};
use crate::domain::tokens::TokenCounter;
use crate::store::audit::AuditRow;
use crate::store::prompts::{Change, LabelRow, Move, PromptRow, PromptRows};
use crate::store::{Store, StoreError};

/// How often another process may be faster before we give up.
const ATTEMPTS: usize = 16;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum PromptsError {
    /// The operator's mistakes, all of them.
    #[error("{} wrong in what was sent; nothing was changed", if .0.len() == 1 { "1 thing is".to_owned() } else { format!("{} things are", .0.len()) })]
    Invalid(Vec<Problem>),
    /// The operator's mistake.
    #[error("there is no prompt with the name {0}")]
    Unknown(String),
    /// The operator's mistake.
    #[error("there is no version {0}")]
    NoVersion(String),
    /// The operator's mistake.
    #[error("there is no label {0}")]
    NoLabel(String),
    /// Somebody was faster.
    #[error("the label {label} points at {}, not where it was expected: look at it, then try again", at.map_or_else(|| "nothing".to_owned(), |at| format!("version {at}")))]
    Moved {
        /// The prompt and its label.
        label: String,
        /// Where it points.
        at: Option<u32>,
    },
    /// The operator's mistake: a file says where the label points.
    #[error(
        "the label {label} is kept by the file {file} and is read-only here: change the file, then reload"
    )]
    InFile {
        /// The prompt and its label, or the prompt alone.
        label: String,
        /// The file.
        file: String,
    },
    /// The operator's mistake.
    #[error("{what} is in use: {}: take it out of the configuration first", by.join(", "))]
    InUse {
        /// The prompt or its label.
        what: String,
        /// What names it in the configuration.
        by: Vec<String>,
    },
    /// The operator's mistake.
    #[error("{0} has {MAX_VERSIONS} versions: begin another prompt")]
    Full(String),
    /// Others change prompts all the time.
    #[error("other processes changed the prompts meanwhile: try again")]
    Contended,
    /// The machine has no random bits for the audit log.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A prompt as operators see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its name and times.
    pub row: PromptRow,
    /// Its versions, and where its labels point.
    pub prompt: Prompt,
    /// Since when they do, and by whom, by label.
    pub labels: BTreeMap<Arc<str>, LabelRow>,
    /// Which file keeps a label, by label.
    pub files: BTreeMap<Arc<str>, String>,
}

impl Listed {
    /// The version that is meant: a number, or a label.
    pub fn find(&self, pick: &Pick) -> Option<&Arc<PromptVersion>> {
        let number = match pick {
            Pick::Version(number) => number,
            Pick::Label(label) => self.prompt.labels.get(label)?,
        };
        self.prompt.versions.get(number)
    }
}

/// A version that is there now.
#[derive(Debug, Clone, PartialEq)]
pub struct Put {
    /// The prompt's name.
    pub name: Arc<str>,
    /// The version's number.
    pub number: u32,
    /// Whether it was made just now; else it was there before.
    pub made: bool,
}

/// A version with values in it, as a model would get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Which version.
    pub number: u32,
    /// The words.
    pub words: Arc<str>,
    /// How many tokens they are, by deployment.
    pub tokens: BTreeMap<Arc<str>, u64>,
}

/// A prompt that a file keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDraft {
    /// The file's name, without its folder.
    pub file: String,
    /// What it says.
    pub draft: Draft,
}

/// What there is at a moment, archived prompts too.
#[derive(Debug, Default)]
struct Known(BTreeMap<Arc<str>, Stored>);

/// A prompt with its rows.
#[derive(Debug, Clone)]
struct Stored {
    row: PromptRow,
    prompt: Prompt,
    labels: BTreeMap<Arc<str>, LabelRow>,
}

impl Known {
    fn live(&self, name: &str) -> Result<&Stored, PromptsError> {
        let found = self.0.get(name).filter(|stored| stored.row.archived_at_ms.is_none());
        found.ok_or_else(|| PromptsError::Unknown(name.to_owned()))
    }

    fn book(&self) -> PromptBook {
        let live = self.0.iter().filter(|(_, stored)| stored.row.archived_at_ms.is_none());
        let prompts = live.map(|(name, stored)| (Arc::clone(name), stored.prompt.clone())).collect();
        PromptBook { prompts }
    }
}

/// What the files say.
#[derive(Debug, Default)]
struct Kept {
    drafts: Vec<FileDraft>,
    /// Whether it is still to be carried out.
    is_due: bool,
}

/// All prompts.
pub struct Prompts {
    rows: PromptRows,
    reports: Arc<Reports>,
    known: ArcSwap<Known>,
    kept: parking_lot::Mutex<Kept>,
    /// Held while rows and what is known change together.
    changing: Mutex<()>,
    publish: Box<dyn Fn(PromptBook) + Send + Sync>,
}

impl Prompts {
    /// Reads all prompts, carries out what the files say and publishes them.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn open(
        store: &Store,
        reports: Arc<Reports>,
        files: Vec<FileDraft>,
        publish: impl Fn(PromptBook) + Send + Sync + 'static,
        now_ms: i64,
    ) -> Result<Self, PromptsError> {
        let prompts = Self {
            rows: PromptRows::new(store),
            reports,
            known: ArcSwap::default(),
            kept: parking_lot::Mutex::new(Kept { drafts: files, is_due: true }),
            changing: Mutex::default(),
            publish: Box::new(publish),
        };
        (prompts.publish)(PromptBook::default());
        prompts.refresh(now_ms).await?;
        Ok(prompts)
    }

    /// Takes over what the files of a new configuration say. It is carried out at the next refresh.
    pub fn declare(&self, files: Vec<FileDraft>) {
        *self.kept.lock() = Kept { drafts: files, is_due: true };
    }

    /// Carries out what files say, if that is due, and reads all again, for what other processes have changed.
    pub async fn refresh(&self, now_ms: i64) -> Result<(), PromptsError> {
        let _only_one = self.changing.lock().await;
        let due: Option<Vec<FileDraft>> = {
            let kept = self.kept.lock();
            kept.is_due.then(|| kept.drafts.clone())
        };
        let Some(files) = due else { return self.read().await.map(drop) };
        let drafts: Vec<Draft> = files.iter().map(|file| file.draft.clone()).collect();
        self.put_in_place(Actor::Gateway, &drafts, now_ms).await?;
        let mut kept = self.kept.lock();
        // unless another configuration came meanwhile
        if kept.drafts == files {
            kept.is_due = false;
        }
        Ok(())
    }

    /// All prompts that are not archived, by name.
    pub async fn list(&self) -> Result<Vec<Listed>, PromptsError> {
        let known = self.read_alone().await?;
        let live = known.0.values().filter(|stored| stored.row.archived_at_ms.is_none());
        Ok(live.map(|stored| self.listed(stored)).collect())
    }

    /// A prompt that is not archived.
    pub async fn get(&self, name: &str) -> Result<Listed, PromptsError> {
        let known = self.read_alone().await?;
        known.live(name).map(|stored| self.listed(stored))
    }

    /// Makes a version as a body says, or finds the one that says the same; moves a label there where the body names one.
    pub async fn create(&self, body: &Value, now_ms: i64) -> Result<Put, PromptsError> {
        let draft = Draft::read(body).map_err(PromptsError::Invalid)?;
        let _only_one = self.changing.lock().await;
        let mut put = self.put(Actor::Admin, &[draft], now_ms).await?;
        put.pop().ok_or(PromptsError::Contended)
    }

    /// Makes all versions of a body that are not there, and moves its labels: everything or nothing.
    pub async fn put_all(&self, body: &Value, now_ms: i64) -> Result<Vec<Put>, PromptsError> {
        let drafts = Draft::read_all(body).map_err(PromptsError::Invalid)?;
        let _only_one = self.changing.lock().await;
        self.put(Actor::Admin, &drafts, now_ms).await
    }

    /// Points a label at a version, as a body says: `version`, and where it has to point before, `expected`.
    pub async fn move_label(
        &self,
        name: &str,
        label: &str,
        body: &Value,
        now_ms: i64,
    ) -> Result<Listed, PromptsError> {
        let form = Form::new(body);
        let version = form.number("version", 1..=u64::from(MAX_VERSIONS)).flatten();
        if version.is_none() && (!form.has("version") || body["version"].is_null()) {
            form.wrong("version", "missing: the number that the label is to point at");
        }
        let expected = form.number("expected", 1..=u64::from(MAX_VERSIONS));
        let signed = Signed::read(&form);
        if !name_is_good(label) {
            form.wrong("", format!("a label has {NAME_RULE}"));
        }
        let to = form.finish(version).map_err(PromptsError::Invalid)?;
        let to = to.and_then(|to| u32::try_from(to).ok()).unwrap_or(0);
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let known = self.read().await?;
            let stored = known.live(name)?;
            if !stored.prompt.versions.contains_key(&to) {
                return Err(PromptsError::NoVersion(format!("{name}@{to}")));
            }
            let from = stored.prompt.labels.get(label).copied();
            if expected.is_some_and(|expected| expected != from.map(u64::from)) {
                return Err(PromptsError::Moved { label: format!("{name}@{label}"), at: from });
            }
            if from == Some(to) {
                return Ok(self.listed(stored));
            }
            self.may_move(name, label)?;
            let mut steps = Steps::new(Actor::Admin, now_ms);
            steps.move_label(name, label, from, Some(to), &signed)?;
            if self.write(steps).await? {
                return self.read().await?.live(name).map(|stored| self.listed(stored));
            }
        }
        Err(PromptsError::Contended)
    }

    /// Takes a label away, unless the configuration names it.
    pub async fn remove_label(
        &self,
        name: &str,
        label: &str,
        catalog: &Catalog,
        now_ms: i64,
    ) -> Result<Listed, PromptsError> {
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let known = self.read().await?;
            let stored = known.live(name)?;
            let shown = format!("{name}@{label}");
            let Some(from) = stored.prompt.labels.get(label).copied() else {
                return Err(PromptsError::NoLabel(shown));
            };
            self.may_move(name, label)?;
            let by = named_by(catalog, |wanted| {
                *wanted.name == *name && matches!(&wanted.pick, Pick::Label(named) if **named == *label)
            });
            if !by.is_empty() {
                return Err(PromptsError::InUse { what: shown, by });
            }
            let mut steps = Steps::new(Actor::Admin, now_ms);
            steps.move_label(name, label, Some(from), None, &Signed::nobody())?;
            if self.write(steps).await? {
                return self.read().await?.live(name).map(|stored| self.listed(stored));
            }
        }
        Err(PromptsError::Contended)
    }

    /// Archives a prompt: nobody gets it any more, and its labels are gone. Its versions stay; a new one brings it back.
    pub async fn archive(&self, name: &str, catalog: &Catalog, now_ms: i64) -> Result<(), PromptsError> {
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let known = self.read().await?;
            let stored = known.live(name)?;
            if let Some(file) = self.files_of(name).into_values().next() {
                return Err(PromptsError::InFile { label: name.to_owned(), file });
            }
            let by = named_by(catalog, |wanted| *wanted.name == *name);
            if !by.is_empty() {
                return Err(PromptsError::InUse { what: format!("the prompt {name}"), by });
            }
            let mut steps = Steps::new(Actor::Admin, now_ms);
            for (label, from) in &stored.prompt.labels {
                steps.move_label(name, label, Some(*from), None, &Signed::nobody())?;
            }
            steps.tell("prompt.archive", name, &json!({}))?;
            steps.changes.push(Change::Archive { name: name.to_owned(), at_ms: now_ms });
            if self.write(steps).await? {
                self.read().await?;
                return Ok(());
            }
        }
        Err(PromptsError::Contended)
    }

    /// Where a prompt's labels have pointed, the latest move first.
    pub async fn moves(&self, name: &str) -> Result<Vec<Move>, PromptsError> {
        Ok(self.rows.moves(name).await?)
    }

    /// What changed from one version of a prompt to another: numbers or labels.
    pub async fn diff(&self, name: &str, from: &str, to: &str) -> Result<String, PromptsError> {
        let listed = self.get(name).await?;
        Ok(diff::unified(version_of(&listed, from)?, version_of(&listed, to)?))
    }

    /// Puts values into a version, as a body says, and counts its tokens for each deployment.
    pub async fn render(
        &self,
        name: &str,
        body: &Value,
        catalog: &Catalog,
    ) -> Result<Rendered, PromptsError> {
        let form = Form::new(body);
        let number = form.number("version", 1..=u64::from(MAX_VERSIONS)).flatten();
        let label = form.text("label").flatten();
        if number.is_some() && label.is_some() {
            form.wrong("label", "give `version` or `label`, not both");
        }
        let variables = form.read("variables", |value| value.as_object().ok_or("not an object"));
        let (number, label, variables) =
            form.finish((number, label, variables.flatten())).map_err(PromptsError::Invalid)?;
        let meant =
            number.map_or_else(|| label.unwrap_or(PRODUCTION).to_owned(), |number| number.to_string());
        let listed = self.get(name).await?;
        let version = version_of(&listed, &meant)?;
        let wrong = |path: String, message: String| PromptsError::Invalid(vec![Problem { path, message }]);
        let template = Template::compile(&version.text, &version.variables)
            .map_err(|error| wrong("version".to_owned(), error.to_string()))?;
        let given = variables.into_iter().flatten().map(|(name, value)| (name.as_str(), value.clone()));
        let words = template.render(&Values::default().or(given)).map_err(|error: RenderError| {
            let path = error.variable().map_or_else(String::new, |variable| format!(".{variable}"));
            wrong(format!("variables{path}"), error.to_string())
        })?;
        let mut counted: Vec<(TokenCounter, u64)> = Vec::new();
        let tokens = catalog.deployments.values().map(|deployment| {
            let counter = TokenCounter::expecting(deployment, &deployment.upstream_model);
            let known = counted.iter().find(|(other, _)| *other == counter).map(|(_, tokens)| *tokens);
            let tokens = known.unwrap_or_else(|| {
                let tokens = counter.count_text(&words);
                counted.push((counter, tokens));
                tokens
            });
            (Arc::clone(&deployment.name), tokens)
        });
        let tokens = tokens.collect();
        Ok(Rendered { number: version.number, words, tokens })
    }

    /// What a prompt's versions cost, and what others would have cost on the same traffic. An archived one's, too.
    pub async fn cost(
        &self,
        name: &str,
        query: CostQuery,
        catalog: &Catalog,
    ) -> Result<CostReport, PromptsError> {
        let known = self.read_alone().await?;
        let stored = known.0.get(name).ok_or_else(|| PromptsError::Unknown(name.to_owned()))?;
        if let Some(number) = query.compare.filter(|number| !stored.prompt.versions.contains_key(number)) {
            return Err(PromptsError::NoVersion(format!("{name}@{number}")));
        }
        let days = self.reports.prompt_days(name, query.from_day, query.to_day).await?;
        Ok(cost::report(name, &stored.prompt, query, &days, catalog))
    }

    /// Carries drafts out, with the rights of an operator.
    async fn put(&self, actor: Actor, drafts: &[Draft], now_ms: i64) -> Result<Vec<Put>, PromptsError> {
        let known = self.read().await?;
        for draft in drafts {
            let Some(label) = &draft.label else { continue };
            let stored = known.0.get(&draft.name);
            let points_there = stored.is_some_and(|stored| {
                let at = stored.prompt.labels.get(label);
                at.and_then(|at| stored.prompt.versions.get(at)).is_some_and(|version| draft.is(version))
            });
            if !points_there {
                self.may_move(&draft.name, label)?;
            }
        }
        self.put_in_place(actor, drafts, now_ms).await
    }

    /// Carries drafts out: all of them, in one transaction.
    async fn put_in_place(
        &self,
        actor: Actor,
        drafts: &[Draft],
        now_ms: i64,
    ) -> Result<Vec<Put>, PromptsError> {
        for _ in 0..ATTEMPTS {
            let known = self.read().await?;
            let mut steps = Steps::new(actor, now_ms);
            let put: Vec<Put> =
                drafts.iter().map(|draft| steps.put(draft, &known)).collect::<Result<_, _>>()?;
            if steps.changes.is_empty() {
                return Ok(put);
            }
            if self.write(steps).await? {
                self.read().await?;
                return Ok(put);
            }
        }
        Err(PromptsError::Contended)
    }

    /// Whether the steps were written; not where another process was first.
    async fn write(&self, steps: Steps) -> Result<bool, PromptsError> {
        match self.rows.write(steps.changes, &steps.told).await {
            Ok(()) => Ok(true),
            Err(StoreError::Taken) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn read_alone(&self) -> Result<Arc<Known>, PromptsError> {
        let _only_one = self.changing.lock().await;
        self.read().await
    }

    /// Reads what is new and publishes it. Versions never change: each is read once.
    async fn read(&self) -> Result<Arc<Known>, PromptsError> {
        let before = self.known.load_full();
        // labels first: what they point at is there by then
        let labels = self.rows.labels().await?;
        let prompts = self.rows.prompts().await?;
        let last: BTreeMap<String, u32> = self.rows.last_versions().await?.into_iter().collect();
        let mut now = Known::default();
        for row in prompts {
            let mut versions =
                before.0.get(&*row.name).map(|stored| stored.prompt.versions.clone()).unwrap_or_default();
            let known = versions.keys().next_back().copied().unwrap_or(0);
            if last.get(&row.name).is_some_and(|last| *last > known) {
                for version in self.rows.versions_after(&row.name, known).await? {
                    versions.insert(version.number, Arc::new(version));
                }
            }
            let prompt = Prompt { versions, labels: BTreeMap::new() };
            now.0.insert(row.name.as_str().into(), Stored { row, prompt, labels: BTreeMap::new() });
        }
        for label in labels {
            // made between the two reads
            let Some(stored) = now.0.get_mut(&*label.prompt) else { continue };
            let name: Arc<str> = label.label.as_str().into();
            stored.prompt.labels.insert(Arc::clone(&name), label.version);
            stored.labels.insert(name, label);
        }
        let (now, old) = (Arc::new(now), before.book());
        let book = now.book();
        self.known.store(Arc::clone(&now));
        if book != old {
            (self.publish)(book);
        }
        Ok(now)
    }

    fn listed(&self, stored: &Stored) -> Listed {
        let Stored { row, prompt, labels } = stored.clone();
        let files = self.files_of(&row.name);
        Listed { row, prompt, labels, files }
    }

    /// Which of a prompt's labels are kept by files.
    fn files_of(&self, name: &str) -> BTreeMap<Arc<str>, String> {
        let kept = self.kept.lock();
        let of_it = kept.drafts.iter().filter(|file| *file.draft.name == *name);
        of_it.filter_map(|file| Some((file.draft.label.clone()?, file.file.clone()))).collect()
    }

    /// Refuses to move a label that a file keeps.
    fn may_move(&self, name: &str, label: &str) -> Result<(), PromptsError> {
        match self.files_of(name).remove(label) {
            Some(file) => Err(PromptsError::InFile { label: format!("{name}@{label}"), file }),
            None => Ok(()),
        }
    }
}

/// The version that a number or a label names.
fn version_of<'l>(listed: &'l Listed, meant: &str) -> Result<&'l Arc<PromptVersion>, PromptsError> {
    let shown = format!("{}@{meant}", listed.row.name);
    let found = PromptRef::parse(&shown).and_then(|wanted| listed.find(&wanted.pick));
    found.ok_or(PromptsError::NoVersion(shown))
}

/// What names a prompt in the configuration.
fn named_by(catalog: &Catalog, is_meant: impl Fn(&PromptRef) -> bool) -> Vec<String> {
    let mut by = Vec::new();
    for model in catalog.models() {
        let routes = model.labels.iter().map(|(label, route)| (format!("@{label}"), route));
        for (label, route) in std::iter::once((String::new(), &model.route)).chain(routes) {
            if route.prompt.as_ref().is_some_and(|injection| is_meant(&injection.prompt)) {
                by.push(format!("the model {}{label}", model.name.as_str()));
            }
        }
    }
    for (name, deployment) in &catalog.deployments {
        let injected = deployment.prompt.as_ref().map(|injection| &injection.prompt);
        let trained = match &deployment.trained_with {
            Some(TrainedWith::Version(wanted)) => Some(wanted),
            _ => None,
        };
        if injected.into_iter().chain(trained).any(&is_meant) {
            by.push(format!("the deployment {name}"));
        }
    }
    by
}

/// Changes that are written together, with their rows of the audit log.
struct Steps {
    actor: Actor,
    now_ms: i64,
    changes: Vec<Change>,
    told: Vec<AuditRow>,
}

impl Steps {
    const fn new(actor: Actor, now_ms: i64) -> Self {
        Self { actor, now_ms, changes: Vec::new(), told: Vec::new() }
    }

    /// Notes what is done; returns the id of the note.
    fn tell(&mut self, action: &str, subject: &str, detail: &Value) -> Result<String, NoRandom> {
        let row = audit::row(self.actor, action, subject, detail, self.now_ms)?;
        let id = row.id.clone();
        self.told.push(row);
        Ok(id)
    }

    /// What a draft needs that is not there.
    fn put(&mut self, draft: &Draft, known: &Known) -> Result<Put, PromptsError> {
        let stored = known.0.get(&draft.name);
        let versions = stored.map(|stored| &stored.prompt.versions);
        let same = versions.and_then(|versions| versions.values().rev().find(|version| draft.is(version)));
        let number = match same {
            Some(version) => {
                if stored.is_some_and(|stored| stored.row.archived_at_ms.is_some()) {
                    self.tell("prompt.restore", &draft.name, &json!({}))?;
                    self.changes.push(Change::Restore(draft.name.to_string()));
                }
                version.number
            }
            None => {
                let last = versions.and_then(|versions| versions.keys().next_back().copied()).unwrap_or(0);
                if last >= MAX_VERSIONS {
                    return Err(PromptsError::Full(draft.name.to_string()));
                }
                self.make(draft, last + 1)?
            }
        };
        let signed = Signed { author: Arc::clone(&draft.author), note: Arc::clone(&draft.note) };
        if let Some(label) = &draft.label {
            let from = stored.and_then(|stored| stored.prompt.labels.get(label).copied());
            if from != Some(number) {
                self.move_label(&draft.name, label, from, Some(number), &signed)?;
            }
        }
        Ok(Put { name: Arc::clone(&draft.name), number, made: same.is_none() })
    }

    /// A version of a number.
    fn make(&mut self, draft: &Draft, number: u32) -> Result<u32, PromptsError> {
        let sha256: Arc<str> = sha256_of(&draft.text).into();
        let detail = json!({"sha256": &*sha256, "author": &*draft.author, "note": &*draft.note});
        self.tell("prompt.create_version", &format!("{}@{number}", draft.name), &detail)?;
        self.changes.push(Change::Version(PromptVersion {
            prompt: Arc::clone(&draft.name),
            number,
            text: Arc::clone(&draft.text),
            variables: draft.variables.clone(),
            sha256,
            author: Arc::clone(&draft.author),
            note: Arc::clone(&draft.note),
            created_at_ms: self.now_ms,
        }));
        Ok(number)
    }

    /// A label's way from one version to another.
    fn move_label(
        &mut self,
        name: &str,
        label: &str,
        from: Option<u32>,
        to: Option<u32>,
        signed: &Signed,
    ) -> Result<(), NoRandom> {
        let Signed { author, note } = signed;
        let detail = json!({"from": from, "to": to, "author": &**author, "note": &**note});
        let action = if to.is_some() { "prompt.move_label" } else { "prompt.remove_label" };
        let id = self.tell(action, &format!("{name}@{label}"), &detail)?;
        self.changes.push(Change::Label(Move {
            id,
            prompt: name.to_owned(),
            label: label.to_owned(),
            from,
            to,
            at_ms: self.now_ms,
            author: author.to_string(),
            note: note.to_string(),
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
