//! Moves of models onto routes and off them, and how they are undone.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::gate::{Demand, Onto};
use super::{ATTEMPTS, Registry, RegistryError, find, listed};
use crate::clock;
use crate::control::audit::{self, Actor};
use crate::control::form::Form;
use crate::control::random::NoRandom;
use crate::domain::ids::ModelName;
use crate::domain::registry::{CANDIDATE, MAX_PERCENT, Placement, Stage, can_be_route};
use crate::domain::route::Told;
use crate::store::audit::AuditRow;
use crate::store::registry::{Change, Everything, MoveKind, MoveRow};

/// Longest name of an author, characters.
const MAX_AUTHOR_CHARS: usize = 100;
/// Longest note, characters.
const MAX_NOTE_CHARS: usize = 1_000;

/// What a move has made of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// The row of its history.
    pub row: MoveRow,
    /// The route's plan as it is now, in words.
    pub plan: String,
    /// The name that the route's candidate is asked by, where it has one.
    pub candidate: Option<String>,
}

/// Who does something, and why.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    author: Arc<str>,
    note: Arc<str>,
}

impl Signed {
    /// Reads `author` and `note`.
    pub(super) fn read(form: &Form<'_>) -> Self {
        let text = |name: &str, most: usize| {
            let read = form.text(name).flatten();
            let is_sound = |text: &str| text.chars().count() <= most && !text.contains('\0');
            if read.is_some_and(|text| !is_sound(text)) {
                form.wrong(name, format!("longer than {most} characters, or with a zero character in it"));
            }
            read
        };
        let author = text("author", MAX_AUTHOR_CHARS).unwrap_or("admin").into();
        Self { author, note: text("note", MAX_NOTE_CHARS).unwrap_or_default().into() }
    }

    /// What goes because its model is deleted.
    pub(super) fn deleted() -> Self {
        Self { author: "gateway".into(), note: "the model was deleted".into() }
    }

    /// A detail of the audit log, signed.
    pub(super) fn on(&self, mut detail: Value) -> Value {
        detail["author"] = (*self.author).into();
        detail["note"] = (*self.note).into();
        detail
    }
}

/// Where a model is to go.
struct Wish {
    route: Arc<str>,
    to: Option<Stage>,
    percent: Option<u8>,
    demand: Demand,
    signed: Signed,
}

impl Wish {
    fn read(body: &Value) -> Result<Self, RegistryError> {
        let form = Form::new(body);
        let route = route_of(&form, "the model of the configuration that it is to stand behind");
        let to = form.read("to", |value| {
            let stage = value.as_str().and_then(Stage::from_name).filter(|stage| *stage != Stage::Retired);
            stage.ok_or("one of candidate, canary, production stands here")
        });
        let percent = form.number("percent", 1..=u64::from(MAX_PERCENT)).flatten();
        let to = to.flatten();
        if percent.is_some() && !matches!(to, None | Some(Stage::Canary)) {
            form.wrong("percent", "only a canary has a part of the route");
        }
        let wish = Self {
            route: route.into(),
            to,
            percent: percent.and_then(|percent| u8::try_from(percent).ok()),
            demand: Demand::read(&form),
            signed: Signed::read(&form),
        };
        form.finish(wish).map_err(RegistryError::Invalid)
    }
}

/// The route that a body names; where it names none, that is noted.
fn route_of<'b>(form: &Form<'b>, what: &str) -> &'b str {
    let route = form.text("route");
    if !form.has("route") || matches!(route, Some(None | Some(""))) {
        form.wrong("route", format!("missing: {what}"));
    }
    route.flatten().unwrap_or_default()
}

/// Reads a body with nothing but who and why.
pub(super) fn signed(body: &Value) -> Result<Signed, RegistryError> {
    let form = Form::new(body);
    let signed = Signed::read(&form);
    form.finish(signed).map_err(RegistryError::Invalid)
}

/// Changes of routes that are written together.
pub(super) struct Steps {
    now_ms: i64,
    pub(super) changes: Vec<Change>,
    pub(super) told: Vec<AuditRow>,
    rows: Vec<MoveRow>,
    /// What a gate said of it.
    gate: Option<Value>,
}

impl Steps {
    pub(super) const fn new(now_ms: i64) -> Self {
        Self { now_ms, changes: Vec::new(), told: Vec::new(), rows: Vec::new(), gate: None }
    }

    /// Notes what is done.
    pub(super) fn tell(
        &mut self,
        actor: Actor,
        action: &str,
        subject: &str,
        detail: &Value,
    ) -> Result<(), NoRandom> {
        self.told.push(audit::row(actor, action, subject, detail, self.now_ms)?);
        Ok(())
    }

    /// Puts another placement onto a route.
    fn place(
        &mut self,
        known: &Everything,
        route: &Arc<str>,
        to: (MoveKind, &Arc<str>, Placement, Option<i64>),
        signed: &Signed,
    ) -> Result<(), NoRandom> {
        let (kind, model, after, undoes) = to;
        let (last, before) = known.placed.get(route).cloned().unwrap_or_default();
        let row = MoveRow {
            route: Arc::clone(route),
            number: last + 1,
            kind,
            model: Arc::clone(model),
            before,
            after,
            undoes,
            at_ms: self.now_ms,
            author: Arc::clone(&signed.author),
            note: Arc::clone(&signed.note),
        };
        let mut detail = signed.on(json!({"model": &**model, "before": row.before, "after": row.after}));
        if let Some(gate) = &self.gate {
            detail["gate"] = gate.clone();
        }
        self.tell(Actor::Admin, &format!("model.{}", kind.name()), route, &detail)?;
        self.changes.push(Change::Place(Box::new(row.clone())));
        self.rows.push(row);
        Ok(())
    }

    /// Takes a model out of all routes.
    pub(super) fn clear(
        &mut self,
        known: &Everything,
        names: &[Arc<str>],
        signed: &Signed,
    ) -> Result<(), NoRandom> {
        for (route, (_, placement)) in &known.placed {
            let after = names.iter().fold(placement.clone(), |placement, name| placement.without(name));
            if after != *placement {
                let name = names.first().map_or_else(|| Arc::from(""), Arc::clone);
                self.place(known, route, (MoveKind::Retire, &name, after, None), signed)?;
            }
        }
        Ok(())
    }

    /// The registry as it would be.
    fn then(&self, known: &Everything) -> Everything {
        let mut then = known.clone();
        for row in &self.rows {
            then.placed.insert(Arc::clone(&row.route), (row.number, row.after.clone()));
        }
        then
    }
}

impl Registry {
    /// Moves a model onto a route, as a body says: `route`, and `to` or the stage above, a canary's `percent`; past the gate
    /// only with `force`.
    pub async fn promote(&self, name: &str, body: &Value) -> Result<Moved, RegistryError> {
        let wish = Wish::read(body)?;
        let route = self.route(&wish.route)?;
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let known = self.read().await?;
            let model = find(&known, name)?;
            let name: Arc<str> = name.into();
            let placement =
                known.placed.get(&route).map(|(_, placement)| placement.clone()).unwrap_or_default();
            let to = wish.to.unwrap_or_else(|| match wish.percent {
                Some(_) => Stage::Canary,
                None => Stage::next(placement.stage_of(&name)),
            });
            let percent = wish.percent.unwrap_or_else(|| self.laid.lock().canary_percent);
            let after = placement.moved(&name, to, percent)?;
            let mut steps = Steps::new(clock::unix_ms());
            let onto = Onto { known: &known, route: &route, placement: &placement, to };
            steps.gate = self.gated(model, &name, &onto, &wish.demand, steps.now_ms).await?;
            steps.place(&known, &route, (MoveKind::Promote, &name, after, None), &wish.signed)?;
            if model.retired_at_ms.is_some() {
                steps.changes.push(Change::Retire { name: Arc::clone(&model.name), at_ms: None });
            }
            if let Some(moved) = self.carry_out(&known, steps).await? {
                self.metrics.models.moved(to.name());
                return Ok(moved);
            }
        }
        Err(RegistryError::Contended)
    }

    /// Puts back what stood on a route before its last move that is not undone.
    pub async fn rollback(&self, body: &Value) -> Result<Moved, RegistryError> {
        let form = Form::new(body);
        let route = route_of(&form, "the model of the configuration whose last move is to be undone");
        let signed = Signed::read(&form);
        let route = form.finish(route).map_err(RegistryError::Invalid)?;
        let route = self.route(route)?;
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let known = self.read().await?;
            let moves = self.rows.moves(Some(&route)).await?;
            let Some(last) = last_to_undo(&moves) else {
                return Err(RegistryError::NothingToUndo(route.to_string()));
            };
            let mut steps = Steps::new(clock::unix_ms());
            let back = (MoveKind::Rollback, &last.model, last.before.clone(), Some(last.number));
            steps.place(&known, &route, back, &signed)?;
            for model in &known.models {
                let stands =
                    last.before.models().into_iter().any(|name| model.names().any(|known| known == name));
                if stands && model.retired_at_ms.is_some() {
                    steps.changes.push(Change::Retire { name: Arc::clone(&model.name), at_ms: None });
                }
            }
            let to = last.before.stage_of(&last.model);
            if let Some(moved) = self.carry_out(&known, steps).await? {
                if let Some(stage) = to {
                    self.metrics.models.moved(stage.name());
                }
                return Ok(moved);
            }
        }
        Err(RegistryError::Contended)
    }

    /// Takes a model and its checkpoints out of all routes for good; whoever stood there before stands there again.
    pub async fn retire(&self, name: &str, body: &Value) -> Result<super::Listed, RegistryError> {
        let signed = signed(body)?;
        let _only_one = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            let known = self.read().await?;
            let model = find(&known, name)?;
            if *model.name != *name {
                let words = format!("{name} is a checkpoint: retire its model, {}", model.name);
                return Err(RegistryError::Refused(words));
            }
            if model.retired_at_ms.is_some() {
                return Ok(listed(model, &known));
            }
            let now_ms = clock::unix_ms();
            let (mut steps, names) = (Steps::new(now_ms), model.names().cloned().collect::<Vec<_>>());
            steps.clear(&known, &names, &signed)?;
            if steps.rows.is_empty() {
                steps.tell(Actor::Admin, "model.retire", name, &signed.on(json!({})))?;
            }
            steps.changes.push(Change::Retire { name: name.into(), at_ms: Some(now_ms) });
            if self.write(steps.changes, &steps.told).await? {
                self.metrics.models.moved(Stage::Retired.name());
                let known = self.read().await?;
                return find(&known, name).map(|model| listed(model, &known));
            }
        }
        Err(RegistryError::Contended)
    }

    /// The own name of a route: a model of the configuration, by its name or an alias.
    pub(super) fn route(&self, name: &str) -> Result<Arc<str>, RegistryError> {
        let laid = self.laid.lock();
        let asked = ModelName::parse(name).ok().filter(|asked| laid.base.has_exactly(asked));
        let found = asked.and_then(|asked| laid.base.resolve(&asked));
        let no_route = |why| RegistryError::NoRoute { route: name.chars().take(200).collect(), why };
        let Some(found) = found else {
            // what was moved there is still to be seen and undone
            return match laid.known.placed.contains_key(name) {
                true => Ok(name.into()),
                false => Err(no_route("the configuration has no [models] of that name, and no alias")),
            };
        };
        if !Arc::ptr_eq(&found.route, &found.model.route) {
            return Err(no_route("it is a label: name the model alone"));
        }
        can_be_route(&found.model).map_err(no_route)?;
        Ok(found.model.name.as_str().into())
    }

    /// Writes a move, unless the configuration has no place for it; nothing where another process was first.
    async fn carry_out(&self, known: &Everything, steps: Steps) -> Result<Option<Moved>, RegistryError> {
        for row in &steps.rows {
            let mut asked = row.after.models();
            asked.retain(|name| row.after.stage_of(name) >= Some(Stage::Canary));
            self.stays(known, &asked)?;
        }
        let troubles = self.new_troubles(&steps.then(known));
        if !troubles.is_empty() {
            let words: Vec<String> = troubles.iter().map(ToString::to_string).collect();
            return Err(RegistryError::Refused(words.join("; ")));
        }
        if !self.write(steps.changes, &steps.told).await? {
            return Ok(None);
        }
        self.read().await?;
        Ok(steps.rows.into_iter().next().map(|row| self.told(row)))
    }

    fn told(&self, row: MoveRow) -> Moved {
        let catalog = {
            let laid = self.laid.lock();
            crate::domain::registry::overlay(&laid.base, &laid.known.models, &laid.known.assignments())
                .catalog
        };
        let found = ModelName::parse(&row.route).ok().and_then(|route| catalog.resolve(&route));
        let plan =
            found.map(|found| Told::of(&found.route.plan, None, row.at_ms).to_string()).unwrap_or_default();
        let candidate = row.after.candidate.as_ref().map(|_| format!("{}@{CANDIDATE}", row.route));
        Moved { row, plan, candidate }
    }
}

/// The last move that no rollback has undone.
fn last_to_undo(moves: &[MoveRow]) -> Option<&MoveRow> {
    let undone: BTreeSet<i64> = moves.iter().filter_map(|row| row.undoes).collect();
    moves.iter().find(|row| row.kind != MoveKind::Rollback && !undone.contains(&row.number))
}
