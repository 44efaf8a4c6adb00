//! The quote: one data set priced on every target that could train it, what a month of serving would cost there, and what
//! it is worth beside the base model with a longer prompt.
//!
//! Nothing is looked up here: figures, prices and traffic are handed in, so that the command line quotes like the gateway.

mod ask;
mod offer;
mod study;
#[cfg(test)]
mod tests;
mod traffic;

use serde::Serialize;

pub use self::ask::{Ask, Data, targets};
pub use self::offer::{Offer, Standing};
pub use self::study::Book;
pub use self::traffic::from_ms;
use crate::domain::catalog::{Catalog, ProviderKind};
use crate::domain::economics::{
    BreakEven, Lesson, Load, MONTH_DAYS, Month, School, Server, Tuition, break_even, hosting_month, share,
    tuition,
};
use crate::domain::money::Usd;
use crate::domain::price::Price;
use crate::domain::price::book::{Found, PriceBook};
use crate::domain::price::read::moment_text;
use crate::domain::tuning::target::Target;

/// Examples that are put in front of a request where there is no fine-tuned model, unless somebody says otherwise.
pub const FEW_SHOT: u64 = 5;
/// Tokens of passages that retrieval puts into a request, unless somebody says otherwise.
pub const RETRIEVED: u64 = 1_500;
/// Months that training is spread over, unless somebody says otherwise.
pub const MONTHS: u64 = 12;
/// The kind of deployment that serves at Azure, unless somebody says otherwise.
pub const SKU: &str = "Standard";

/// What is known of a data set, as one base model counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Studied {
    /// Rows.
    pub examples: u64,
    /// What is trained.
    #[serde(flatten)]
    pub lesson: Lesson,
    /// Tokens of all rows.
    pub tokens: u64,
    /// Tokens of all that the assistant says in them.
    pub assistant_tokens: u64,
    /// Tokens of the system prompt that most rows have.
    pub system_prompt_tokens: u64,
}

impl Studied {
    /// The same with so many passes, where somebody says so.
    #[must_use]
    pub fn with_epochs(self, epochs: Option<u32>) -> Self {
        let epochs = epochs.map_or(self.lesson.epochs, u64::from);
        Self { lesson: Lesson { epochs, ..self.lesson }, ..self }
    }
}

/// Where the traffic comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What a route had in the last 30 days.
    Ledger,
    /// Somebody says so.
    Given,
    /// Nobody knows: the rows of the data set stand for it, and a month's figures are left open.
    Dataset,
}

/// The traffic that is quoted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Where it comes from.
    pub source: Source,
    /// The route, where one was asked for.
    pub route: Option<String>,
    /// A month of it; none where only the data set tells what requests are like.
    #[serde(flatten)]
    pub load: Option<Load>,
    /// What should be known of it.
    pub note: String,
}

/// Whose prompts the traffic's requests have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompts {
    /// Those of a fine-tuned model: without examples.
    #[default]
    Short,
    /// Those of the base model, examples included: a fine-tuned one's would be shorter.
    Long,
}

/// What is taken for granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// Months that training is spread over.
    pub months: u64,
    /// Examples in the prompt of a base model.
    pub few_shot: u64,
    /// How many tokens longer that makes it; none: as many as so many rows have.
    pub prompt_tokens: Option<u64>,
    /// Tokens of passages that retrieval puts into a request.
    pub retrieval_tokens: u64,
    /// Whose prompts the traffic has.
    pub traffic_prompts: Prompts,
    /// How long training takes where it is billed by the hour, seconds.
    pub training_seconds: Option<u64>,
    /// The kind of deployment that serves at Azure.
    pub sku: String,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            months: MONTHS,
            few_shot: FEW_SHOT,
            prompt_tokens: None,
            retrieval_tokens: RETRIEVED,
            traffic_prompts: Prompts::Short,
            training_seconds: None,
            sku: SKU.to_owned(),
        }
    }
}

/// A figure, or what is missing and how it is set. It is never taken for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Figure<T> {
    /// It is known.
    Known(T),
    /// It is not.
    Unknown {
        /// What is missing and how it is set.
        unknown: String,
    },
}

impl<T> Figure<T> {
    /// What is known.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Unknown { .. } => None,
        }
    }

    fn missing(words: impl Into<String>) -> Self {
        Self::Unknown { unknown: words.into() }
    }
}

/// What training costs at a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Training {
    /// In all, and how long.
    #[serde(flatten)]
    pub tuition: Tuition,
    /// What it goes by, in words.
    pub by: String,
    /// The row of the price book.
    pub row: String,
    /// Whether the figures were found where the row says; else they are from memory.
    pub verified: bool,
}

/// One way to answer the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The base model with examples in its prompt.
    Prompt,
    /// The base model with passages that were looked up.
    Retrieval,
    /// The fine-tuned model.
    FineTune,
}

impl Way {
    const ALL: [Self; 3] = [Self::Prompt, Self::Retrieval, Self::FineTune];

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Prompt => "a longer prompt",
            Self::Retrieval => "retrieval",
            Self::FineTune => "fine-tuning",
        }
    }
}

/// A month of one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Which way.
    pub way: Way,
    /// What the traffic's month costs.
    pub month: Figure<Bill>,
    /// Of a longer prompt that is always the same: what it costs at the least, where the provider's cache has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_usd: Option<Usd>,
}

/// A month's figures and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bill {
    #[serde(flatten)]
    /// The parts.
    pub month: Month,
    /// All of it.
    pub total_usd: Usd,
}

/// From which traffic on one of two is cheaper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Meeting {
    /// One of them.
    pub first: String,
    /// The other.
    pub second: String,
    /// Tokens a month at which both cost the same; none where one is always cheaper.
    pub tokens_a_month: Option<u64>,
    /// As many requests, of the traffic's usual length.
    pub requests_a_month: Option<u64>,
    /// In words.
    pub words: String,
}

/// What one target asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetQuote {
    /// The name that a job is created with.
    pub target: String,
    /// Whose it is.
    pub provider: String,
    /// The base model.
    pub base: String,
    /// Whether one can train there.
    pub standing: Standing,
    /// What should be known.
    pub notes: Vec<String>,
    /// The data set, as this model counts it.
    pub dataset: Figure<Studied>,
    /// What training costs, once.
    pub training: Figure<Training>,
    /// What a month of the deployment costs, used or not.
    pub hosting_month_usd: Figure<Usd>,
    /// Each way to answer the traffic.
    pub ways: Vec<Served>,
    /// The fine-tuned model beside the two other ways.
    pub break_even: Vec<Meeting>,
    /// The cheapest way at this traffic; none where nobody knows.
    pub cheapest: Option<Way>,
}

/// The whole quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quote {
    /// What this is.
    pub object: &'static str,
    /// For which moment.
    pub at: String,
    /// The version of the price book.
    pub price_version: String,
    /// Days of a month.
    pub month_days: u64,
    /// The traffic.
    pub traffic: Traffic,
    /// What is taken for granted.
    pub terms: Terms,
    /// Each target, the cheapest to fine-tune first.
    pub targets: Vec<TargetQuote>,
    /// The cheapest fine-tuned target beside each of the others.
    pub break_even: Vec<Meeting>,
    /// Prompt, retrieval or fine-tune: in words.
    pub answer: String,
}

/// Counts a data set as a target does; the words are for people.
pub type Study<'a> = &'a mut dyn FnMut(&Target) -> Result<Studied, String>;

/// What is quoted with.
#[derive(Debug, Clone, Copy)]
pub struct Market<'a> {
    /// Which deployments there are.
    pub catalog: &'a Catalog,
    /// What they cost.
    pub book: &'a PriceBook,
    /// For which moment, ms since 1970 UTC.
    pub at_ms: i64,
}

/// A quote of some targets, with what is needed to compare it with others.
struct Drawn {
    quote: TargetQuote,
    tuned: Option<Lined>,
}

/// What a month costs without traffic and at which price, where both are known.
#[derive(Clone)]
struct Lined {
    fixed: Usd,
    price: Price,
    load: Load,
    measure: Load,
}

impl Lined {
    fn server(&self) -> Server<'_> {
        Server { fixed: self.fixed, price: &self.price, load: self.load }
    }
}

/// Prices a data set on targets.
pub fn quote(
    targets: &[Target],
    market: &Market<'_>,
    traffic: Traffic,
    terms: Terms,
    study: Study<'_>,
) -> Quote {
    let mut drawn: Vec<Drawn> =
        targets.iter().map(|target| drawn(target, market, &traffic, &terms, study)).collect();
    drawn.sort_by_key(|drawn| {
        let total = drawn.quote.bill(Way::FineTune).map(|bill| bill.total_usd);
        let training = drawn.quote.training.known().map(|training| training.tuition.cost);
        // known before unknown; then by the month, where there is traffic, then by the training
        (drawn.quote.standing == Standing::Closed, total.is_none(), total, training.is_none(), training)
    });
    let meetings = beside_the_first(&drawn);
    let targets: Vec<TargetQuote> = drawn.into_iter().map(|drawn| drawn.quote).collect();
    Quote {
        object: "tuning.quote",
        at: moment_text(market.at_ms),
        price_version: market.book.version().to_string(),
        month_days: MONTH_DAYS,
        answer: answer(&targets, &traffic),
        traffic,
        terms,
        targets,
        break_even: meetings,
    }
}

impl TargetQuote {
    /// What a month of one way costs.
    pub fn bill(&self, way: Way) -> Option<&Bill> {
        self.ways.iter().find(|served| served.way == way)?.month.known()
    }
}

fn drawn(target: &Target, market: &Market<'_>, traffic: &Traffic, terms: &Terms, study: Study<'_>) -> Drawn {
    let offer = Offer::of(target, market.catalog, market.book, market.at_ms);
    let (standing, mut notes) = offer.standing(target, market.at_ms);
    let dataset = study(target);
    let training = training(target, &offer, dataset.as_ref(), terms, market.at_ms);
    let azure = target.provider.dialect.kind() == ProviderKind::Azure;
    let sku = azure.then_some(terms.sku.as_str());
    let hosting = hosting(target, &offer, sku);
    notes.extend(notes_of(&offer, sku));
    let share = training.known().map(|training| share(training.tuition.cost, terms.months));
    let loads = dataset.as_ref().ok().map(|studied| Loads::of(traffic, studied, terms));
    let lines = Lines::of(&offer, share, hosting.known().copied(), loads.as_ref());
    let ways = ways(&lines, &offer, &training, &hosting, dataset.as_ref().err(), traffic);
    let cheapest = cheapest(&ways);
    let meetings = lines.meetings();
    let quote = TargetQuote {
        target: target.to_string(),
        provider: target.provider.name.to_string(),
        base: target.model.to_string(),
        standing,
        notes,
        dataset: dataset.map_or_else(Figure::missing, Figure::Known),
        training,
        hosting_month_usd: hosting,
        ways,
        break_even: meetings,
        cheapest,
    };
    Drawn { quote, tuned: lines.tuned.map(|(lined, _)| lined) }
}

fn training(
    target: &Target,
    offer: &Offer,
    dataset: Result<&Studied, &String>,
    terms: &Terms,
    at_ms: i64,
) -> Figure<Training> {
    let (studied, found) = match (dataset, &offer.tuned) {
        (Err(why), _) => return Figure::missing(why),
        (_, Err(why)) => return Figure::missing(why),
        (Ok(studied), Ok(found)) => (studied, found),
    };
    let trainer = target.provider.training.as_ref();
    let school = School {
        price: &found.price,
        kind: trainer.and_then(|training| training.training_type).map(|kind| kind.name()),
        tokens_per_second: trainer.and_then(|training| training.tokens_per_second),
        seconds: terms.training_seconds,
        used_today: 0,
    };
    match tuition(studied.lesson, &school, at_ms) {
        None => Figure::missing(offer::set_it(
            target,
            &match school.kind {
                Some(kind) => format!("as `{kind}` has no price"),
                None => "has no price".to_owned(),
            },
        )),
        Some(tuition) => Figure::Known(Training {
            by: rate_words(&found.price, school.kind),
            row: found.row.to_string(),
            verified: found.price.terms.verified,
            tuition,
        }),
    }
}

/// What training goes by.
fn rate_words(price: &Price, kind: Option<&str>) -> String {
    let terms = &price.terms;
    match (terms.training_of(kind), terms.training_hour) {
        (Some(price), _) => format!("{} USD per 1M trained tokens", price.per_million()),
        (None, Some(hour)) => {
            format!("{} USD an hour, in steps of {} s", hour.per_hour, hour.increment_seconds)
        }
        (None, None) => String::new(),
    }
}

fn hosting(target: &Target, offer: &Offer, sku: Option<&str>) -> Figure<Usd> {
    match &offer.tuned {
        Err(why) => Figure::missing(why),
        Ok(found) => hosting_month(&found.price, sku).map_or_else(
            || Figure::missing(offer::set_it(target, "has no price by the hour for this kind of deployment")),
            Figure::Known,
        ),
    }
}

/// What should be known of the prices.
fn notes_of(offer: &Offer, sku: Option<&str>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Ok(found) = &offer.tuned {
        if !found.price.terms.verified {
            notes.push(format!(
                "the price of {} is from memory ({}): check it before you bill by it",
                found.row, found.price.terms.source
            ));
        }
        if found.price.terms.free_training.is_some() {
            notes.push("free training tokens are counted as if nothing else was trained today".to_owned());
        }
    }
    if sku.is_some_and(|sku| sku.eq_ignore_ascii_case("DeveloperTier")) {
        notes.push(
            "a DeveloperTier deployment ends after 24 hours: it is for trying, not for serving".to_owned(),
        );
    }
    notes
}

/// The traffic as each way has it.
struct Loads {
    /// Without a longer prompt: tokens a month are counted in it.
    tuned: Load,
    prompted: Load,
    /// The same where the provider's cache has what is longer.
    cached: Load,
    retrieved: Load,
}

impl Loads {
    fn of(traffic: &Traffic, studied: &Studied, terms: &Terms) -> Self {
        let rows = studied.examples.max(1);
        // a system prompt is there anyway: examples are what a row has beside it
        let row = (studied.tokens / rows).saturating_sub(studied.system_prompt_tokens);
        let longer = terms.prompt_tokens.unwrap_or_else(|| row.saturating_mul(terms.few_shot));
        let load = traffic.load.unwrap_or_else(|| like_the_rows(studied));
        let tuned = match terms.traffic_prompts {
            Prompts::Short => load,
            Prompts::Long => load.shorter(longer),
        };
        let (prompted, cached) = match terms.traffic_prompts {
            Prompts::Short => (load.longer(longer), load.longer_cached(longer)),
            Prompts::Long => (load, load),
        };
        Self { tuned, prompted, cached, retrieved: tuned.longer(terms.retrieval_tokens) }
    }
}

/// Requests like the rows of the data set.
fn like_the_rows(studied: &Studied) -> Load {
    let mut load = Load { requests: studied.examples, ..Load::default() };
    load.tokens.completion = studied.assistant_tokens.min(studied.tokens);
    load.tokens.prompt = studied.tokens - load.tokens.completion;
    load
}

/// The lines of cost over traffic, of each way whose figures are known.
struct Lines {
    tuned: Option<(Lined, Month)>,
    prompted: Option<Lined>,
    cached: Option<Lined>,
    retrieved: Option<Lined>,
}

impl Lines {
    fn of(offer: &Offer, share: Option<Usd>, hosting: Option<Usd>, loads: Option<&Loads>) -> Self {
        let lined = |found: &Result<Found, String>, fixed: Usd, load: Load, loads: &Loads| {
            let price = Price::clone(&found.as_ref().ok()?.price);
            Some(Lined { fixed, price, load, measure: loads.tuned })
        };
        let base = |load: fn(&Loads) -> Load| {
            let loads = loads?;
            lined(&offer.base, Usd::ZERO, load(loads), loads)
        };
        let tuned = || {
            let (loads, training_share, hosting) = (loads?, share?, hosting?);
            let month = Month { tokens: Usd::ZERO, hosting, training_share };
            Some((lined(&offer.tuned, month.fixed(), loads.tuned, loads)?, month))
        };
        Self {
            tuned: tuned(),
            prompted: base(|loads| loads.prompted),
            cached: base(|loads| loads.cached),
            retrieved: base(|loads| loads.retrieved),
        }
    }

    /// The fine-tuned model beside the two other ways.
    fn meetings(&self) -> Vec<Meeting> {
        let Some((tuned, _)) = &self.tuned else { return Vec::new() };
        let others = [(&self.prompted, Way::Prompt), (&self.retrieved, Way::Retrieval)];
        let meet = |(other, way): (&Option<Lined>, Way)| {
            Some(meeting(Way::FineTune.words(), tuned, way.words(), other.as_ref()?))
        };
        others.into_iter().filter_map(meet).collect()
    }
}

fn ways(
    lines: &Lines,
    offer: &Offer,
    training: &Figure<Training>,
    hosting: &Figure<Usd>,
    unread: Option<&String>,
    traffic: &Traffic,
) -> Vec<Served> {
    let why_not = |way: Way| {
        let why_tuned = match (training, hosting) {
            (Figure::Unknown { unknown }, _) | (_, Figure::Unknown { unknown }) => Some(unknown),
            _ => None,
        };
        let why = unread.or(match way {
            Way::FineTune => why_tuned.or(offer.tuned.as_ref().err()),
            Way::Prompt | Way::Retrieval => offer.base.as_ref().err(),
        });
        why.cloned().unwrap_or_else(|| "no traffic is known: name a route with traffic, or say it".to_owned())
    };
    let served = |way: Way| {
        let (lined, month) = match way {
            Way::FineTune => {
                (lines.tuned.as_ref().map(|(lined, _)| lined), lines.tuned.as_ref().map(|(_, month)| *month))
            }
            Way::Prompt => (lines.prompted.as_ref(), Some(Month::default())),
            Way::Retrieval => (lines.retrieved.as_ref(), Some(Month::default())),
        };
        let bill = traffic.load.and(lined).zip(month).map(|(lined, month)| {
            let month = Month { tokens: lined.load.cost(&lined.price), ..month };
            Bill { month, total_usd: month.total() }
        });
        let cached = || lines.cached.as_ref().map(|lined| lined.load.cost(&lined.price));
        Served {
            way,
            cached_usd: (way == Way::Prompt && bill.is_some()).then(cached).flatten(),
            month: bill.map_or_else(|| Figure::missing(why_not(way)), Figure::Known),
        }
    };
    Way::ALL.map(served).into()
}

/// The cheapest way, where a longer prompt costs the least that it can; none unless all are known.
fn cheapest(ways: &[Served]) -> Option<Way> {
    let cost = |served: &Served| {
        let total = served.month.known()?.total_usd;
        Some(served.cached_usd.map_or(total, |cached| total.min(cached)))
    };
    let all: Option<Vec<(Usd, Way)>> = ways.iter().map(|served| Some((cost(served)?, served.way))).collect();
    all?.into_iter().min_by_key(|(cost, _)| *cost).map(|(_, way)| way)
}

/// The first whose month is known, and where one can train, beside each of the others.
fn beside_the_first(drawn: &[Drawn]) -> Vec<Meeting> {
    let mut known = drawn
        .iter()
        .filter(|drawn| drawn.quote.standing != Standing::Closed)
        .filter_map(|drawn| Some((&drawn.quote.target, drawn.tuned.as_ref()?)));
    let Some((first, line)) = known.next() else { return Vec::new() };
    known.map(|(second, other)| meeting(first, line, second, other)).collect()
}

fn meeting(first: &str, one: &Lined, second: &str, other: &Lined) -> Meeting {
    let found = break_even(&one.server(), &other.server(), &one.measure);
    let requests = |tokens: u64| {
        let mean = one.measure.total() / one.measure.requests.max(1);
        tokens.checked_div(mean)
    };
    let (tokens, words) = match found {
        BreakEven::FirstUpTo(tokens) => (
            Some(tokens),
            format!("{first} is cheaper up to {} tokens a month, then {second}", grouped(tokens)),
        ),
        BreakEven::SecondUpTo(tokens) => (
            Some(tokens),
            format!("{second} is cheaper up to {} tokens a month, then {first}", grouped(tokens)),
        ),
        BreakEven::First => (None, format!("{first} is cheaper than {second} at any traffic")),
        BreakEven::Second => (None, format!("{second} is cheaper than {first} at any traffic")),
        BreakEven::Same => (None, format!("{first} and {second} cost the same")),
    };
    Meeting {
        first: first.to_owned(),
        second: second.to_owned(),
        tokens_a_month: tokens,
        requests_a_month: tokens.and_then(requests),
        words,
    }
}

/// Prompt, retrieval or fine-tune.
fn answer(targets: &[TargetQuote], traffic: &Traffic) -> String {
    let open = || targets.iter().filter(|target| target.standing != Standing::Closed);
    let Some(best) = open().find(|target| target.training.known().is_some()) else {
        return "nobody here can train this data set at a known price: see each target".to_owned();
    };
    let trained = best.training.known().map(|training| training.tuition.cost).unwrap_or_default();
    let meetings: Vec<&str> = best.break_even.iter().map(|meeting| meeting.words.as_str()).collect();
    let meetings = meetings.join("; ");
    let Some((cheapest, bill)) = best.cheapest.zip(best.bill(Way::FineTune)) else {
        let why = if traffic.load.is_none() { traffic.note.as_str() } else { "not all figures are known" };
        return format!("{}: training costs {trained} USD; {meetings} ({why})", best.target);
    };
    let of =
        |way: Way| best.bill(way).map_or_else(|| "unknown".to_owned(), |bill| bill.total_usd.to_string());
    format!(
        "{} at {} is the cheapest way for this traffic: a month costs {} USD with a longer prompt, {} USD with retrieval, {} \
         USD fine-tuned (of it {} USD hosting and {} USD of {trained} USD of training); {meetings}. What each is worth in \
         quality no price says: measure it",
        cheapest.words(),
        best.target,
        of(Way::Prompt),
        of(Way::Retrieval),
        of(Way::FineTune),
        bill.month.hosting,
        bill.month.training_share,
    )
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
