//! A simulated world: deployments with prices, speeds and lengths of answers of their own, asked as the gateway asks them,
//! beside an oracle that knows all of that, though not how long the next answer is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::domain::catalog::tests::deployment;
use crate::domain::catalog::{Deployment, Model, Pricing};
use crate::domain::ids::ModelName;
use crate::domain::learned::Ended;
use crate::domain::price::book::PriceBook;
use crate::domain::price::{Price, read};
use crate::domain::route::{CHEAPEST_PROBES, Ceiling, Cheapest, Dice, Plan};
use crate::domain::route::{Share, StickyBy, Weighted, salt};
use crate::domain::service_tier::ServiceTier;
use crate::domain::speed::Observation;
use crate::domain::usage::TokenCounts;
use crate::gateway::board::Stay;
use crate::gateway::counts::Counts;
use crate::gateway::lab::{Lab, like};
use crate::gateway::prepare::Asked;

const REQUESTS: usize = 20_000;
/// The worst of the nine that were tried.
const SEED: u64 = 3;
/// One request each.
const EVERY: Duration = Duration::from_millis(100);
/// The oracle's and the plan's: an answer may be expected to take so long.
const CEILING_S: f64 = 8.0;
/// No answer is longer, tokens.
const LONGEST: f64 = 16_384.0;
/// Some requests ask for so many tokens at most.
const CAP: u64 = 150;
/// Requests have so many sizes, by so many kinds (with a cap or without).
const SIZES: usize = 48;

/// What is true of a deployment.
#[derive(Clone, Copy)]
struct Truth {
    name: &'static str,
    /// USD per 1M tokens: input, output.
    price: (&'static str, &'static str),
    /// Half of its answers are no longer, tokens.
    median: f64,
    /// The standard deviation of their logarithm.
    sigma: f64,
    /// To the first token, s.
    ttft_s: f64,
    /// Each further token, s.
    per_token_s: f64,
    /// Of so many requests most of the input comes from its cache.
    cached: f64,
    quality: u16,
    /// The mean of its answers' lengths, without a cap and with it, tokens.
    means: [f64; 2],
}

const fn truth(name: &'static str, input: &'static str, output: &'static str, median: f64) -> Truth {
    Truth {
        name,
        price: (input, output),
        median,
        sigma: 1.0,
        ttft_s: 0.5,
        per_token_s: 0.005,
        cached: 0.0,
        quality: 900,
        means: [0.0; 2],
    }
}

/// A standard normal number of two rolls (Box and Muller).
fn normal(dice: &mut Dice) -> f64 {
    let (a, b) = (even(dice), even(dice));
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// A number from 0 to 1.
fn even(dice: &mut Dice) -> f64 {
    (dice.roll() >> 11) as f64 / (1_u64 << 53) as f64
}

/// What a request meets, the same wherever it goes: so two who choose alike pay alike.
#[derive(Clone, Copy)]
struct Luck {
    length: f64,
    speed: f64,
    cache: f64,
}

/// An answer as it comes.
struct Answer {
    tokens: TokenCounts,
    end: Ended,
    ttft_s: f64,
    total_s: f64,
}

impl Truth {
    fn price(&self) -> Price {
        let (input, output) = self.price;
        let cached = input.parse::<f64>().expect("a number") / 10.0;
        let written = json!({"input_per_1m_usd": input, "output_per_1m_usd": output,
            "cached_input_per_1m_usd": cached.to_string()});
        read::alone(&written).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn answer(&self, prompt: u64, cap: Option<u64>, luck: Luck) -> Answer {
        let length = (self.median * (self.sigma * luck.length).exp()).clamp(1.0, LONGEST) as u64;
        let completion = cap.map_or(length, |cap| length.min(cap));
        let cached = if luck.cache < self.cached { prompt * 9 / 10 } else { 0 };
        let slower = (0.3 * luck.speed - 0.045).exp();
        let ttft_s = self.ttft_s * slower;
        let total_s = ttft_s + self.per_token_s * slower * (completion - 1) as f64;
        let end = if cap.is_some_and(|cap| length >= cap) { Ended::AtItsCap } else { Ended::ByItself };
        Answer {
            tokens: TokenCounts { prompt, cached, completion, ..TokenCounts::default() },
            end,
            ttft_s,
            total_s,
        }
    }

    /// With the means of its distribution, by the normal law's density.
    fn with_means(self) -> Self {
        Self { means: [LONGEST, CAP as f64].map(|most| self.mean(most)), ..self }
    }

    fn mean(&self, most: f64) -> f64 {
        let steps: Vec<f64> = (-600..=600).map(|step| f64::from(step) / 100.0).collect();
        let weight = |z: f64| (-z * z / 2.0).exp();
        let all: f64 = steps.iter().map(|z| weight(*z)).sum();
        let sum: f64 =
            steps.iter().map(|z| weight(*z) * (self.median * (self.sigma * z).exp()).min(most)).sum();
        sum / all
    }

    /// What an answer is expected to take, s.
    fn expected_s(&self, capped: bool) -> f64 {
        self.ttft_s + self.per_token_s * (self.means[usize::from(capped)] - 1.0)
    }
}

/// Deployments, and what is true of them.
struct World {
    truths: Vec<Truth>,
    prices: Vec<Price>,
    lab: Lab,
    /// By size; with a cap and without.
    requests: Vec<[Asked; 2]>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Result {
    paid: i64,
    /// Answers of deployments that were expected to be too slow at that time.
    too_slow: usize,
    /// How often each was asked, in each tenth of the time.
    asked: Vec<BTreeMap<&'static str, usize>>,
}

impl World {
    async fn of(truths: &[Truth], middle_bytes: f64) -> Self {
        let prices: Vec<Price> = truths.iter().map(Truth::price).collect();
        let one = |(truth, price): (&Truth, &Price)| {
            Plan::To(like(&deployment(truth.name, truth.name), |one| {
                one.pricing = Pricing::Explicit { price: Arc::new(price.clone()), version: "v".into() };
                one.quality = Some(truth.quality);
            }))
        };
        let plan = Plan::Cheapest(Cheapest {
            among: truths.iter().zip(&prices).map(one).collect(),
            min_quality: Some(800),
            ceiling: Ceiling { first_token: None, whole: Some(Duration::from_secs_f64(CEILING_S)) },
            probe_per_mille: CHEAPEST_PROBES,
        });
        let name = ModelName::parse("support-bot").expect("a name");
        let lab = Lab::new(vec![Model::plain(name, plan)], PriceBook::default()).await;
        let sizes = (0..SIZES).map(|size| {
            let z = (size as f64 + 0.5) / SIZES as f64 * 4.0 - 2.0;
            let content = "x".repeat((middle_bytes * z.exp()) as usize);
            let ask = |members: &str| lab.asked(Lab::request("support-bot", &content, members), &[]);
            [ask(""), ask(&format!(r#","max_tokens":{CAP}"#))]
        });
        let requests = sizes.collect();
        Self { truths: truths.iter().map(|truth| truth.with_means()).collect(), prices, lab, requests }
    }

    /// Asks, once as the gateway does and once as the oracle would. `now` says what is true at that time.
    fn run(&self, seed: u64, now: impl Fn(Duration, Truth) -> Truth) -> [Result; 2] {
        let mut dice = Dice::new(seed);
        let mut pending: BTreeMap<(Duration, usize), (Stay, Arc<Deployment>, Answer)> = BTreeMap::new();
        let mut results = [Result::default(), Result::default()];
        for number in 0..REQUESTS {
            let at = EVERY * u32::try_from(number).expect("few");
            while let Some(first) = pending.first_entry().filter(|first| first.key().0 <= at) {
                let ((ended, _), (stay, deployment, answer)) = first.remove_entry();
                self.learn(stay, &deployment, &answer, ended);
            }
            let capped = dice.roll().is_multiple_of(5);
            let size = (dice.roll() % SIZES as u64) as usize;
            let asked = &self.requests[size][usize::from(capped)];
            let luck = Luck { length: normal(&mut dice), speed: normal(&mut dice), cache: even(&mut dice) };
            let counts = Counts::in_bytes(&asked.forms);
            let (prompt, cap) = (asked.forms.asked().body().len() as u64, capped.then_some(CAP));
            let truths: Vec<Truth> = self.truths.iter().map(|truth| now(at, *truth)).collect();
            let drawn = asked.draw(&asked.resolved.route, &counts, self.lab.sources(at, dice.roll()));
            let first = &drawn.order[0].deployment;
            let chosen = truths.iter().position(|truth| *truth.name == *first.name).expect("known");
            for (result, chosen) in results.iter_mut().zip([chosen, self.oracle(&truths, prompt, capped)]) {
                let truth = truths[chosen];
                let answer = truth.answer(prompt, cap, luck);
                result.paid += self.prices[chosen].cost(&answer.tokens, ServiceTier::Default).nanos();
                result.too_slow += usize::from(truth.expected_s(capped) > CEILING_S);
                result.asked.resize(number * 10 / REQUESTS + 1, BTreeMap::new());
                *result.asked.last_mut().expect("one").entry(truth.name).or_default() += 1;
            }
            let stay = self.lab.board.try_enter(first, prompt, self.lab.at(at)).expect("a place");
            let answer = truths[chosen].answer(prompt, cap, luck);
            let ended = at + Duration::from_secs_f64(answer.total_s);
            pending.insert((ended, number), (stay, Arc::clone(first), answer));
        }
        results
    }

    /// What the gateway hears at an answer's end.
    fn learn(&self, stay: Stay, deployment: &Arc<Deployment>, answer: &Answer, ended: Duration) {
        self.lab.board.note_usage("support-bot", &deployment.name, &answer.tokens, answer.end);
        let micros = |seconds: f64| (seconds * 1e6) as u64;
        let (ttft_us, total_us) = (micros(answer.ttft_s), micros(answer.total_s));
        let observation = Observation::Stream { ttft_us, total_us, tokens: answer.tokens.completion };
        stay.succeeded(Some(observation), self.lab.at(ended));
    }

    /// Who is cheapest by what is true, among those that are good and fast enough.
    fn oracle(&self, truths: &[Truth], prompt: u64, capped: bool) -> usize {
        let cost = |at: usize| {
            let truth = truths[at];
            let cached = (truth.cached * 0.9 * prompt as f64) as u64;
            let completion = truth.means[usize::from(capped)] as u64;
            let tokens = TokenCounts { prompt, cached, completion, ..TokenCounts::default() };
            self.prices[at].cost(&tokens, ServiceTier::Default)
        };
        let may = |at: &usize| truths[*at].quality >= 800 && truths[*at].expected_s(capped) <= CEILING_S;
        let best = (0..truths.len()).filter(may).min_by_key(|at| cost(*at).nanos());
        best.expect("one is good and fast enough")
    }
}

/// Prices cross over with the input's size: `reader` has cheap input, `writer` cheap output.
const CROSSING: [Truth; 3] =
    [truth("reader", "0.5", "8", 300.0), truth("writer", "2", "2", 300.0), truth("dear", "5", "15", 250.0)];
/// The one whose tokens are cheapest says three times as much.
const VERBOSE: [Truth; 3] = [
    truth("verbose", "0.4", "1.2", 700.0),
    truth("terse", "0.5", "2", 220.0),
    truth("dear", "2", "8", 220.0),
];
/// The cheapest is too slow, the next is not good enough.
const CEILINGS: [Truth; 4] = [
    Truth { per_token_s: 0.04, ..truth("slow", "0.1", "0.4", 300.0) },
    Truth { quality: 500, ..truth("bad", "0.15", "0.6", 300.0) },
    Truth { per_token_s: 0.01, ..truth("good", "0.4", "1.6", 300.0) },
    Truth { per_token_s: 0.01, ..truth("better", "0.6", "2.0", 200.0) },
];
/// With its cache, the dearer input is the cheaper one.
const CACHED: [Truth; 3] = [
    truth("cold", "1.5", "4", 150.0),
    Truth { cached: 0.8, ..truth("warm", "2.5", "4", 150.0) },
    truth("dear", "3", "12", 150.0),
];

#[tokio::test]
async fn the_cheapest_is_within_a_hundredth_of_an_oracle() {
    for (name, truths, middle_bytes) in [
        ("crossing", &CROSSING[..], 1_000.0),
        ("verbose", &VERBOSE, 800.0),
        ("ceilings", &CEILINGS, 800.0),
        ("cached", &CACHED, 3_000.0),
    ] {
        let world = World::of(truths, middle_bytes).await;
        let [gateway, oracle] = world.run(SEED, |_, truth| truth);
        let ratio = gateway.paid as f64 / oracle.paid as f64;
        println!("{name}: {ratio:.4} of what the oracle pays, {} too slow", gateway.too_slow);
        assert!(ratio <= 1.01, "{name}: {ratio}\n{gateway:?}\n{oracle:?}");
        assert_eq!(oracle.too_slow, 0, "{name}");
        assert!(gateway.too_slow <= REQUESTS / 100, "{name}: {gateway:?}");
    }
}

#[tokio::test]
async fn one_that_becomes_slow_is_left_and_comes_back() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let truths = [truth("cheap", "0.4", "1.6", 300.0), truth("dear", "0.8", "3.2", 300.0)];
    let world = World::of(&truths, 800.0).await;
    let [gateway, oracle] = world.run(2, |at, truth| match truth.name {
        "cheap" if (minutes(6)..minutes(10)).contains(&at) => Truth { ttft_s: 20.0, ..truth },
        _ => truth,
    });
    println!("{} of 2,400 went to it while it was slow", gateway.too_slow);
    assert_eq!(oracle.too_slow, 0);
    // 4 minutes are 2,400 requests
    assert!(gateway.too_slow < 400, "{} went to it while it was slow", gateway.too_slow);
    let share = |result: &Result, tenth: usize| result.asked[tenth].get("cheap").copied().unwrap_or(0);
    assert!(share(&gateway, 9) > 1_700, "it is back: {:?}", gateway.asked);
}

#[tokio::test]
async fn a_canary_gets_its_tenth_and_conversations_stay() {
    let share =
        |weight, name: &str| (Share { weight, ramp: None, id: salt(name) }, Plan::To(deployment(name, name)));
    let sticky = vec![StickyBy::Header("x-conversation-id".into())];
    let plan = Plan::Weighted(Weighted { choices: vec![share(90, "stable"), share(10, "canary")], sticky });
    let name = ModelName::parse("support-bot").expect("a name");
    let lab = Lab::new(vec![Model::plain(name, plan)], PriceBook::default()).await;
    let draw = |asked: &Asked, number: u32, random: u64| {
        let counts = Counts::in_bytes(&asked.forms);
        let sources = lab.sources(EVERY * number, random);
        let drawn = asked.draw(&asked.resolved.route, &counts, sources);
        assert_eq!(drawn.order.len(), 2, "the other is its fallback");
        *drawn.order[0].deployment.name == *"canary"
    };
    let mut dice = Dice::new(3);
    let loose = lab.asked(Lab::request("support-bot", "Hi", ""), &[]);
    let canaries = (0..20_000).filter(|number| draw(&loose, *number, dice.roll())).count();
    // of 20,000 at 10 %: three standard deviations are 127
    assert!(canaries.abs_diff(2_000) <= 127, "{canaries}");
    let mut stay = 0;
    for conversation in 0..2_000 {
        let id = format!("conversation-{conversation}");
        let asked = lab.asked(Lab::request("support-bot", "Hi", ""), &[("x-conversation-id", &id)]);
        let canary = draw(&asked, 0, dice.roll());
        stay += usize::from(canary);
        for turn in 1..6 {
            assert_eq!(draw(&asked, turn, dice.roll()), canary, "{id} flips at turn {turn}");
        }
    }
    // of 2,000: three are 40
    assert!(stay.abs_diff(200) <= 40, "{stay}");
}

#[tokio::test]
async fn a_breaker_opens_within_ten_failures_and_closes_with_two_probes() {
    let (ill, well) = (deployment("ill", "m"), deployment("well", "m"));
    let plan = Plan::Ordered(vec![Plan::To(Arc::clone(&ill)), Plan::To(Arc::clone(&well))]);
    let name = ModelName::parse("support-bot").expect("a name");
    let lab = Lab::new(vec![Model::plain(name, plan)], PriceBook::default()).await;
    let asked = lab.asked(Lab::request("support-bot", "Hi", ""), &[]);
    let counts = Counts::in_bytes(&asked.forms);
    let order = |at: Duration| -> Vec<Arc<Deployment>> {
        let drawn = asked.draw(&asked.resolved.route, &counts, lab.sources(at, 4));
        drawn.order.into_iter().map(|chosen| chosen.deployment).collect()
    };
    let enter = |at| lab.board.try_enter(&ill, 1, lab.at(at)).expect("it may be asked");
    // every second answer goes wrong: never many in a row
    let mut failures = 0;
    let mut at = Duration::ZERO;
    while order(at)[0].name == ill.name {
        assert!(failures < 10, "it is still asked");
        enter(at).succeeded(None, lab.at(at));
        enter(at).failed("transient", lab.at(at));
        failures += 1;
        at += EVERY;
    }
    assert_eq!(order(at), [Arc::clone(&well)], "after {failures} failures");
    at += Duration::from_secs(5);
    for probe in 0..2 {
        assert_eq!(order(at)[0].name, ill.name, "probe {probe} goes first");
        let stay = enter(at);
        assert!(stay.is_probe());
        assert_eq!(order(at), [Arc::clone(&well)], "one at a time");
        stay.succeeded(None, lab.at(at));
    }
    let stay = enter(at);
    assert!(!stay.is_probe(), "closed");
    assert_eq!(order(at).len(), 2);
}
