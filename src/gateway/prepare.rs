//! Which deployments may answer, in which order: the request's whole order is drawn here, once. All that comes after
//! uses it.

use std::cell::OnceCell;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::admit::Admitted;
use super::candidates::Look;
use super::catalog::Live;
use super::counts::Counts;
use super::forms::{Form, Forms};
use super::means::Sources;
use super::prompts::{Asking, PromptWish, Shelf};
use super::refusal::Refusal;
use super::reserve::Wanted;
use crate::domain::cache::Directives;
use crate::domain::catalog::{Deployment, Resolved};
use crate::domain::ledger::{Attribution, Purpose};
use crate::domain::request::InferenceRequest;
use crate::domain::route::{Chosen, Dice, Drawn, Facts, Out, Route, Sight, draw};

/// Who wants an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Asker {
    /// An application.
    #[default]
    Application,
    /// The gateway itself, which measures: what it asks is nobody's traffic, so nothing of it is kept to train on, and no
    /// budget changes what is asked, or of whom.
    Ourselves,
}

/// A request with everything that is decided before any upstream is asked.
pub(super) struct Prepared {
    /// Whose it is.
    pub admitted: Admitted,
    /// Who wants its answer.
    pub asker: Asker,
    /// The catalog it was decided on.
    pub live: Arc<Live>,
    /// What the asked name leads to.
    pub resolved: Resolved,
    /// The request, in all its forms.
    pub forms: Forms,
    /// The stored prompts it was decided on.
    pub shelf: Arc<Shelf>,
    /// What was counted of it.
    pub counts: Counts,
    /// The whole order of deployments; at least one where it is to be sent.
    pub order: Vec<Chosen>,
    /// Who is asked where it is too long for one of them.
    pub longer: Vec<Chosen>,
    /// Who is asked where a content filter refuses it.
    pub filtered: Vec<Chosen>,
    /// Headers of the client's that travel on.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whom it is booked on; the deployment is added where one is asked.
    pub attribution: Attribution,
    /// The tokens that limits take it for.
    pub tokens: u64,
    /// What it says about the response cache.
    pub wish: Directives,
    /// Whether several may share its answer: then that passes as it came.
    pub shared: bool,
}

/// What came with a request beside its body.
#[derive(Default)]
pub(super) struct Beside {
    /// Headers of the client's that travel on.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers that routes look at.
    pub route_headers: Vec<(Arc<str>, String)>,
    /// The application's tags.
    pub tags: Vec<Arc<str>>,
    /// What it says about the response cache.
    pub wish: Directives,
    /// What it says about stored prompts.
    pub prompt: PromptWish,
    /// Who wants its answer.
    pub asker: Asker,
}

/// A request with its route, of which nothing is drawn yet.
pub(super) struct Asked {
    pub admitted: Admitted,
    pub live: Arc<Live>,
    pub resolved: Resolved,
    pub shelf: Arc<Shelf>,
    pub forms: Forms,
    pub attribution: Attribution,
    pub beside: Beside,
    /// The deployment that made what the request names.
    pub bound: Option<String>,
    pub tokens: u64,
}

/// All routes of a request, drawn.
pub(super) struct AllDrawn {
    /// Its own; where all of that is too short for it, the one for long requests.
    pub drawn: Drawn,
    /// Who is asked where it is too long for one of them.
    pub longer: Vec<Chosen>,
    /// Who is asked where a content filter refuses it.
    pub filtered: Vec<Chosen>,
}

impl Asked {
    /// Finds out where a request leads.
    pub(super) fn new(
        admitted: Admitted,
        live: Arc<Live>,
        shelf: Arc<Shelf>,
        request: InferenceRequest,
        mut beside: Beside,
        bound: Option<String>,
    ) -> Result<Self, Refusal> {
        let unknown = || Refusal::UnknownModel(request.model.as_str().to_owned());
        let resolved = live.catalog.resolve(&request.model).ok_or_else(unknown)?;
        if !resolved.is_for(&request.model, &admitted.key) {
            return Err(unknown());
        }
        let attribution = attribution(&admitted, &resolved, &request, std::mem::take(&mut beside.tags));
        let asking = Asking { terms: &admitted.key.terms, resolved: &resolved, wish: &beside.prompt };
        let forms = Forms::new(request, &shelf, asking)?;
        let tokens = estimated_tokens(&forms);
        Ok(Self { admitted, live, resolved, shelf, forms, attribution, beside, bound, tokens })
    }

    /// Counts what its routes need to know. `costs` counts for prices, whatever they need.
    pub(super) async fn count(&self, costs: bool) -> Counts {
        let model = &self.resolved.model;
        let set_aside = model.longer_context.iter().chain(&model.content_filtered);
        let routes: Vec<&Route> =
            std::iter::once(&self.resolved.route).chain(set_aside).map(|route| &**route).collect();
        let wanted = costs || routes.iter().any(|route| route.needs.tokens || route.needs.costs);
        Counts::of(&self.live, &self.forms, &self.resolved, &routes, wanted).await
    }

    /// What is known of its deployments at this moment.
    pub(super) fn look<'a>(&'a self, counts: &'a Counts, sources: Sources<'a>, costs: bool) -> Look<'a> {
        Look {
            board: sources.board,
            money: sources.money,
            retirements: sources.retirements,
            prices: sources.money.prices.load_full(),
            live: &self.live,
            resolved: &self.resolved,
            forms: &self.forms,
            counts,
            attribution: &self.attribution,
            bound: self.bound.as_deref(),
            costs,
            needs: OnceCell::new(),
            tokens: self.tokens,
            now_ms: sources.now_ms,
            now: sources.now,
            dice: Dice::new(sources.random),
            budgets: OnceCell::new(),
        }
    }

    /// The facts that conditions look at.
    pub(super) fn facts<'a>(&'a self, counts: &Counts, look_for_images: bool) -> Facts<'a> {
        let request = self.forms.asked();
        Facts {
            endpoint: request.endpoint,
            key: &self.admitted.key.alias,
            team: self.admitted.team.as_ref().map(|team| &*team.alias),
            end_user: self.attribution.end_user.as_deref(),
            tags: &self.attribution.tags,
            headers: &self.beside.route_headers,
            tools: request.has_tools(),
            images: look_for_images && request.has_images(),
            json_schema: request.wants_json_schema(),
            stream: request.stream,
            input_tokens: counts.for_conditions(),
        }
    }

    /// Draws one of its routes.
    pub(super) fn draw(&self, route: &Route, counts: &Counts, sources: Sources<'_>) -> Drawn {
        let mut look = self.look(counts, sources, route.needs.costs);
        draw(&route.plan, &self.facts(counts, route.needs.images), sources.now_ms, &mut look)
    }

    /// Draws all its routes, each as the caller does.
    pub(super) fn draw_all(&self, draw: impl Fn(&Route) -> Drawn) -> AllDrawn {
        let model = &self.resolved.model;
        // what names stored state stays where that is
        let stays = self.bound.is_some() || self.forms.asked().names_stored_state();
        let set_aside = |route: &Option<Arc<Route>>| match route {
            Some(route) if !stays => draw(route),
            _ => Drawn::default(),
        };
        let (mut drawn, mut longer) = (draw(&self.resolved.route), set_aside(&model.longer_context));
        if drawn.order.is_empty()
            && drawn.out.iter().any(|(_, out, _)| matches!(out, Out::ContextWindow { .. }))
        {
            // too long for all of its route, as was seen without asking any
            drawn.order = std::mem::take(&mut longer.order);
            drawn.out.extend(longer.out);
        }
        if stays && drawn.order.len() > 1 {
            let others = drawn.order.split_off(1).into_iter();
            drawn.out.extend(others.map(|other| (other.deployment, Out::Bound, other.seen)));
        }
        AllDrawn { drawn, longer: longer.order, filtered: set_aside(&model.content_filtered).order }
    }

    /// Decides whom to ask.
    ///
    /// # Errors
    ///
    /// When no deployment can serve it, with the reason for each.
    pub(super) async fn prepare(self, sources: Sources<'_>) -> Result<Prepared, Refusal> {
        let counts = self.count(false).await;
        let all = self.draw_all(|route| self.draw(route, &counts, sources));
        match all.drawn.order.is_empty() {
            true => Err(self.nobody(all.drawn.out)),
            false => Ok(self.prepared(counts, all)),
        }
    }

    /// With what was counted, and whom to ask.
    pub(super) fn prepared(self, counts: Counts, all: AllDrawn) -> Prepared {
        let Self { admitted, live, resolved, shelf, forms, attribution, beside, tokens, .. } = self;
        let AllDrawn { drawn, longer, filtered } = all;
        let (order, Beside { headers, wish, asker, .. }) = (drawn.order, beside);
        Prepared {
            admitted,
            asker,
            live,
            resolved,
            shelf,
            forms,
            counts,
            order,
            longer,
            filtered,
            headers,
            attribution,
            tokens,
            wish,
            shared: false,
        }
    }

    /// Why nobody can serve it.
    pub(super) fn nobody(&self, out: Vec<(Arc<Deployment>, Out, crate::domain::route::Seen)>) -> Refusal {
        let asked = self.forms.asked();
        let model = asked.model.as_str();
        if !out.is_empty() && out.iter().all(|(_, out, _)| matches!(out, Out::Endpoint(_))) {
            return Refusal::endpoint_not_served(model, asked.endpoint);
        }
        let out = out.into_iter().map(|(deployment, out, _)| (Arc::clone(&deployment.name), out)).collect();
        Refusal::NoCandidate { model: model.to_owned(), out }
    }
}

impl Prepared {
    /// What is to be paid for on one of the deployments.
    pub(super) const fn wanted<'a>(
        &'a self,
        form: &'a Form,
        deployment: &'a Arc<Deployment>,
        upstream_model: &'a str,
    ) -> Wanted<'a> {
        let Self { admitted, asker, attribution, counts, .. } = self;
        Wanted { admitted, asker: *asker, attribution, counts, form, deployment, upstream_model }
    }

    /// What a deployment is expected to cost, for an order by price when a budget asks for a cheaper one.
    pub(super) fn by_cost(&self, order: &[Chosen], sources: Sources<'_>) -> Vec<Chosen> {
        let mut look = Look {
            board: sources.board,
            money: sources.money,
            retirements: sources.retirements,
            prices: sources.money.prices.load_full(),
            live: &self.live,
            resolved: &self.resolved,
            forms: &self.forms,
            counts: &self.counts,
            attribution: &self.attribution,
            bound: None,
            costs: true,
            needs: OnceCell::new(),
            tokens: self.tokens,
            now_ms: sources.now_ms,
            now: sources.now,
            dice: Dice::new(sources.random),
            budgets: OnceCell::new(),
        };
        let mut priced: Vec<(i64, Chosen)> = order
            .iter()
            .map(|chosen| {
                let cost = look.see(&chosen.deployment).cost;
                (cost.map_or(i64::MAX, crate::domain::money::Usd::nanos), chosen.clone())
            })
            .collect();
        priced.sort_by_key(|(cost, _)| *cost);
        priced.into_iter().map(|(_, chosen)| chosen).collect()
    }
}

/// The tokens that limits take a request for until its true number is known: four bytes a token, and the output that it
/// asks for at most.
fn estimated_tokens(forms: &Forms) -> u64 {
    let request = forms.asked();
    let output = request.output_cap().unwrap_or(0).saturating_mul(request.choices());
    forms.most_bytes().div_ceil(4).saturating_add(output)
}

fn attribution(
    admitted: &Admitted,
    resolved: &Resolved,
    request: &InferenceRequest,
    mut tags: Vec<Arc<str>>,
) -> Attribution {
    tags.extend(admitted.key.terms.tags.iter().cloned());
    tags.extend(admitted.team.iter().flat_map(|team| team.tags.iter().cloned()));
    tags.sort();
    tags.dedup();
    Attribution {
        key_id: Arc::clone(&admitted.key.id),
        key: Arc::clone(&admitted.key.alias),
        team: admitted.team.as_ref().map(|team| Arc::clone(&team.alias)),
        end_user: request.end_user().map(Arc::from),
        tags,
        model: resolved.model.name.as_str().into(),
        purpose: Purpose::Inference,
        ..Attribution::default()
    }
}

#[cfg(test)]
mod tests;
