//! Why this deployment: what would become of a request, candidate by candidate, by the rules that requests themselves
//! are drawn by. Nothing is sent, held, booked or counted, and nothing is taken from any limit, quota or breaker.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::admit::Admitted;
use super::board::Lengths;
use super::candidates::Look;
use super::counts::Counts;
use super::forms::Form;
use super::inference::Gateway;
use super::means::Sources;
use super::prepare::{AllDrawn, Asked, Beside, Prepared};
use super::prompts::PromptWish;
use super::refusal::Refusal;
use super::routes::{DeploymentReport, PlanReport, Sights};
use crate::clock;
use crate::domain::catalog::Deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::money::Usd;
use crate::domain::priced::Priced;
use crate::domain::request::InferenceRequest;
use crate::domain::route::{Chosen, Drawn, Facts, Late, Out, Route, Seen, Sight, Told, draw};

/// What an operator asks.
pub struct Question {
    /// Whose request it would be.
    pub whose: Admitted,
    /// The request.
    pub request: InferenceRequest,
    /// Its end user, where the request does not say.
    pub end_user: Option<Arc<str>>,
    /// The tags that the application would put on it.
    pub tags: Vec<Arc<str>>,
    /// Its headers: name in lower case, value.
    pub headers: Vec<(Arc<str>, String)>,
    /// When, ms since 1970 UTC: shares, prices and days of retirement are those of that moment; breakers, queues and
    /// quotas those of now. None is now.
    pub at_ms: Option<i64>,
}

/// What would become of it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// `route_explanation`.
    pub object: &'static str,
    /// The name that was asked for.
    pub model: String,
    /// The model that it leads to: an alias leads to another, a pattern has many.
    pub entry: Arc<str>,
    /// The moment, ms since 1970 UTC.
    pub at_ms: i64,
    /// What conditions look at.
    pub facts: FactsReport,
    /// The plan, and which way the request goes there.
    #[serde(flatten)]
    pub plan: PlanReport,
    /// What is left to chance, or to what the request is known by.
    pub notes: Vec<String>,
    /// How long the model's answers have been, output tokens; none where none was seen.
    pub answers: Option<Lengths>,
    /// Who would be asked, in this order.
    pub order: Vec<Candidate>,
    /// Who would not, and why.
    pub out: Vec<Candidate>,
    /// Who would be asked where it is too long for one of them.
    pub longer_context: Vec<Arc<str>>,
    /// Who would be asked where a content filter stops it.
    pub content_filtered: Vec<Arc<str>>,
    /// What the client would be told, where nobody can be asked.
    #[serde(skip)]
    pub refusal: Option<Refusal>,
}

/// What conditions look at.
#[derive(Debug, Serialize)]
pub struct FactsReport {
    /// Where it would be sent.
    pub endpoint: Endpoint,
    /// The alias of the key; none for an operator.
    pub key: Option<Arc<str>>,
    /// The alias of the team.
    pub team: Option<Arc<str>>,
    /// The client's own user.
    pub end_user: Option<Arc<str>>,
    /// All its tags, those of key and team included.
    pub tags: Vec<Arc<str>>,
    /// Its headers.
    pub headers: BTreeMap<Arc<str>, String>,
    /// Whether it brings tools.
    pub tools: bool,
    /// Whether it brings images.
    pub images: bool,
    /// Whether it wants an answer by a schema.
    pub json_schema: bool,
    /// Whether it wants a stream.
    pub stream: bool,
    /// The tokens of its input, as the route's first deployment counts them.
    pub input_tokens: u64,
    /// The client's own cap on the output of each choice.
    pub output_cap: Option<u64>,
}

/// A reason.
#[derive(Debug, Serialize)]
pub struct Reason {
    /// In one word.
    pub code: &'static str,
    /// In words.
    pub why: String,
}

/// A deployment of the plan.
#[derive(Debug, Serialize)]
pub struct Candidate {
    /// How it stands.
    #[serde(flatten)]
    pub stands: DeploymentReport,
    /// Its place in the order, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Why it stands behind others.
    pub late: Option<Reason>,
    /// Why it is not in the order.
    #[serde(flatten)]
    pub out: Option<Reason>,
    /// What the request is expected to cost there.
    pub expected_cost_usd: Option<Usd>,
    /// What would be held for it.
    pub upper_bound_usd: Option<Usd>,
    /// Why nothing can be held: its cost has no bound, and a budget applies.
    pub unbounded: Option<String>,
    /// The version of the price.
    pub price: Option<Arc<str>>,
    /// Why there is none.
    pub unpriced: Option<String>,
    /// The least that is left of any budget that applies.
    pub budget_left_usd: Option<Usd>,
    /// The stored prompt that is put in.
    pub prompt: Option<PromptReport>,
    /// The tokens that the expected cost is made of; none where the deployment can't be given the request.
    pub expected: Option<ExpectedTokens>,
    /// When the first token is expected, ms.
    pub expected_first_token_ms: Option<u64>,
    /// When the answer's end is expected, ms.
    pub expected_total_ms: Option<u64>,
}

/// A stored prompt that a deployment gets.
#[derive(Debug, Clone, Serialize)]
pub struct PromptReport {
    /// Which version: `support@3`.
    pub version: Arc<str>,
    /// How many tokens it is there.
    pub tokens: u64,
}

/// What a request is expected to use.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ExpectedTokens {
    /// All of the input.
    pub input: u64,
    /// The part of it that the provider has in its cache.
    pub cached: u64,
    /// The output, all choices together.
    pub output: u64,
    /// How many answers of this deployment that rests on, the older ones counting less.
    pub samples: u32,
}

/// A look by which nobody is sent elsewhere to learn: an operator is shown what usually happens.
struct Shown<'a>(Look<'a>);

impl Sight for Shown<'_> {
    fn see(&mut self, deployment: &Arc<Deployment>) -> Seen {
        self.0.see(deployment)
    }

    fn random(&mut self) -> u64 {
        self.0.random()
    }

    fn probes(&self) -> bool {
        false
    }
}

/// A candidate whose upper bound is still to be counted.
struct Row {
    deployment: Arc<Deployment>,
    candidate: Candidate,
    paid: Option<(Form, Priced)>,
}

impl Gateway {
    /// Explains what would become of a request.
    ///
    /// # Errors
    ///
    /// When its model is not there for who asks, or it names what is stored and not theirs.
    pub async fn explain(&self, question: Question) -> Result<Explanation, Refusal> {
        let Question { whose, request, end_user, tags, headers, at_ms } = question;
        let (request, consumed) = request.consume()?;
        let bound = self.pins.bound_to(&request, &whose).await?;
        let header =
            |wanted: &str| headers.iter().find(|(name, _)| &**name == wanted).map(|(_, value)| value.clone());
        let variables = header("x-tunegate-variables");
        let prompt = PromptWish::read(header("x-tunegate-prompt"), variables.as_deref(), consumed.variables)?;
        let beside = Beside { route_headers: headers, tags, prompt, ..Beside::default() };
        let mut asked = Asked::new(whose, self.catalog.load(), self.prompts.load(), request, beside, bound)?;
        let on = &mut asked.attribution;
        on.end_user = on.end_user.take().or(end_user);
        let counts = asked.count(true).await;
        let now_ms = at_ms.unwrap_or_else(clock::unix_ms);
        let sources = self.means().sources(now_ms, clock::monotonic());
        let all = asked.draw_all(|route| shown(&asked, route, &counts, sources));
        let (mut explanation, rows) = described(&asked, &counts, &all, sources);
        let prepared = asked.prepared(counts, all);
        for row in rows {
            let candidate = self.bounded(row, &prepared, now_ms).await;
            match candidate.out {
                None => explanation.order.push(candidate),
                Some(_) => explanation.out.push(candidate),
            }
        }
        Ok(explanation)
    }

    /// Adds what would be held.
    async fn bounded(&self, row: Row, prepared: &Prepared, now_ms: i64) -> Candidate {
        let Row { deployment, mut candidate, paid } = row;
        if let Some((form, priced)) = paid {
            let upstream_model = Arc::clone(&candidate.stands.upstream_model);
            let wanted = prepared.wanted(&form, &deployment, &upstream_model);
            candidate.budget_left_usd = self.money.ledger.left_for(&wanted.attribution(), now_ms);
            match self.money.most(wanted, &priced, now_ms).await {
                Ok(most) => candidate.upper_bound_usd = Some(most),
                Err(refusal) => candidate.unbounded = Some(refusal.to_string()),
            }
        }
        candidate
    }
}

/// Draws a route as a request's is drawn, but for what is sent elsewhere to learn.
fn shown(asked: &Asked, route: &Route, counts: &Counts, sources: Sources<'_>) -> Drawn {
    let look = asked.look(counts, sources, route.needs.costs);
    draw(&route.plan, &asked.facts(counts, true), sources.now_ms, &mut Shown(look))
}

fn described(
    asked: &Asked,
    counts: &Counts,
    all: &AllDrawn,
    sources: Sources<'_>,
) -> (Explanation, Vec<Row>) {
    let facts = asked.facts(counts, true);
    let plan = Told::of(&asked.resolved.route.plan, Some(&facts), sources.now_ms);
    let names = |order: &[Chosen]| order.iter().map(|chosen| Arc::clone(&chosen.deployment.name)).collect();
    let explanation = Explanation {
        object: "route_explanation",
        model: asked.forms.asked().model.as_str().to_owned(),
        entry: Arc::clone(&asked.attribution.model),
        at_ms: sources.now_ms,
        facts: reported(asked, &facts),
        notes: plan.chances(),
        plan: plan.into(),
        answers: sources.board.lengths(&asked.attribution.model),
        order: Vec::new(),
        out: Vec::new(),
        longer_context: names(&all.longer),
        content_filtered: names(&all.filtered),
        refusal: all.drawn.order.is_empty().then(|| asked.nobody(all.drawn.out.clone())),
    };
    (explanation, rows(asked, counts, &all.drawn, sources))
}

fn reported(asked: &Asked, facts: &Facts<'_>) -> FactsReport {
    let key = Some(&asked.admitted.key.alias).filter(|alias| !alias.is_empty());
    FactsReport {
        endpoint: facts.endpoint,
        key: key.cloned(),
        team: facts.team.map(Arc::from),
        end_user: facts.end_user.map(Arc::from),
        tags: facts.tags.to_vec(),
        headers: facts.headers.iter().cloned().collect(),
        tools: facts.tools,
        images: facts.images,
        json_schema: facts.json_schema,
        stream: facts.stream,
        input_tokens: facts.input_tokens,
        output_cap: asked.forms.asked().output_cap(),
    }
}

/// All deployments of the route: those in the order, those that are out, and those that no condition leads to.
fn rows(asked: &Asked, counts: &Counts, drawn: &Drawn, sources: Sources<'_>) -> Vec<Row> {
    let mut look = asked.look(counts, sources, true);
    let mut rows: Vec<Row> = Vec::new();
    for (at, Chosen { deployment, seen, late }) in drawn.order.iter().enumerate() {
        let mut row = row(asked, &look, deployment, seen, sources);
        row.candidate.position = Some(at + 1);
        row.candidate.late = late.map(reason_to_wait);
        rows.push(row);
    }
    let is_new =
        |rows: &[Row], deployment: &Deployment| rows.iter().all(|row| row.deployment.name != deployment.name);
    for (deployment, out, seen) in &drawn.out {
        if is_new(&rows, deployment) {
            let mut row = row(asked, &look, deployment, seen, sources);
            row.candidate.out = Some(reason_against(out));
            rows.push(row);
        }
    }
    for deployment in &asked.resolved.route.deployments {
        if is_new(&rows, deployment) {
            let seen = look.see(deployment);
            let mut row = row(asked, &look, deployment, &seen, sources);
            let why = "the case of the plan that leads to it does not hold for this request".to_owned();
            row.candidate.out = Some(Reason { code: "condition", why });
            rows.push(row);
        }
    }
    rows
}

fn reason_to_wait(late: Late) -> Reason {
    Reason { code: late.code(), why: late.to_string() }
}

fn reason_against(out: &Out) -> Reason {
    Reason { code: out.code(), why: out.to_string() }
}

/// The figures of one deployment, also where the plan does not ask for them.
fn row(
    asked: &Asked,
    look: &Look<'_>,
    deployment: &Arc<Deployment>,
    seen: &Seen,
    sources: Sources<'_>,
) -> Row {
    let sights = Sights { board: sources.board, retirements: sources.retirements, now: sources.now };
    let form = asked.forms.of(deployment).ok();
    let candidate = look.candidate(deployment);
    let expected = form.as_ref().map(|form| look.expected_tokens(&candidate, &form.request));
    let priced = form.as_ref().map(|form| look.priced(&candidate, &form.request));
    let unpriced = priced.as_ref().and_then(|priced| priced.as_ref().err()).map(ToString::to_string);
    let priced = priced.and_then(Result::ok);
    let cost = priced.as_ref().zip(expected).map(|(priced, expected)| priced.cost(&expected, None));
    let candidate = Candidate {
        stands: sights.deployment(deployment, &asked.resolved, asked.tokens),
        position: None,
        late: None,
        out: None,
        expected_cost_usd: seen.cost.or(cost),
        upper_bound_usd: None,
        unbounded: None,
        price: priced.as_ref().map(|priced| Arc::clone(&priced.version)),
        unpriced,
        budget_left_usd: None,
        prompt: form.as_ref().and_then(|form| form.put.as_ref()).map(|put| PromptReport {
            version: Arc::clone(put.words.prompt()),
            tokens: put
                .count_here(asked.live.counter(deployment, &asked.resolved.upstream_model(deployment)))
                .tokens,
        }),
        expected: expected.map(|tokens| ExpectedTokens {
            input: tokens.prompt,
            cached: tokens.cached,
            output: tokens.completion,
            samples: seen.samples,
        }),
        expected_first_token_ms: seen.first_token_us.map(in_ms),
        expected_total_ms: seen.whole_us.map(in_ms),
    };
    Row { deployment: Arc::clone(deployment), candidate, paid: form.zip(priced) }
}

const fn in_ms(us: u64) -> u64 {
    us.div_ceil(1_000)
}
