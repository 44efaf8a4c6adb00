//! Money through the door: no request is served unpaid for, no budget is exceeded, no cent is lost or invented,
//! whatever clients, upstreams, crashes and databases do. Every `TestGateway` compares its ledger with the provider's own
//! bill when it is dropped; the tests here make that hard.
//!
//! Each way in which gateways like this one have lost or invented money has a test that is named after it, `pain_NN_…`:
//!
//! | pain | what went wrong elsewhere | tests |
//! |------|---------------------------|-------|
//! | 01 | many at once pass the same check | `races`, `pains` (the first requests of an unknown end user) |
//! | 02 | holds that are never given back | `crashes` (`kill -9`, on both databases) |
//! | 03 | counters drift from the database | `pains` (a restart), and the audit of every test |
//! | 04 | a failing store opens or empties budgets | `pains` |
//! | 05 | a stream that its client cut is free, or billed in full | `streams` |
//! | 06 | a free model with a paid fallback | `pains` |
//! | 07 | routes that skip the budget | `pains` |
//! | 08 | several gateways leak past a ceiling | `crashes` (three on one ledger, on both databases) |
//! | 09 | thresholds that fire at the wrong figure | `pains` |
//! | 10 | no cost in advance | `pains` |
//! | 11 | fine-tuned models at no price or the wrong one | `pains`, and the rule in `domain::price` |
//! | 12 | unknown models are free | `pains`, and the rule in `domain::price` |
//! | 13 | a broken price file | `pains`, and the rule in `domain::price` |
//! | 14 | prices in another unit | `pains`, and the rule in `domain::price` |
//! | 15 | cached tokens at the price of fresh ones | `pains`, and the rule in `domain::price` |
//! | 16 | hours of a deployment | `hosting`, and the rule in `domain::hosting` |
//! | 21 | the log of spending eats the database | `pains`, and clean-up in `store::spend` |
//! | 24 | a database that hangs takes everything down | `database` |

mod compute;
mod crashes;
mod database;
mod gauges;
mod hosting;
mod load;
mod pains;
mod races;
mod streams;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::journal::{Journal, Session};
use crate::support::postgres::Server;
use crate::support::provider::Exchange;
use crate::support::{Answer, Setup, SimulatedProvider, TestGateway, eventually};

const CHAT: &str = "/v1/chat/completions";
/// What `paid` is at the provider.
const PAID_MODEL: &str = "acme-writer";
/// What a token of its output costs: 1,000 USD for a million. Its input costs nothing, so that a hold is known exactly.
const TOKEN_NANOS: i64 = 1_000_000;
/// Tokens of the provider's usual answer.
const ANSWER_TOKENS: i64 = 6;
/// What the usual answer costs.
const ANSWER_NANOS: i64 = ANSWER_TOKENS * TOKEN_NANOS;

/// A gateway with one model, `paid`, whose output alone costs something.
fn paid(provider: &SimulatedProvider) -> Setup {
    provider.charges(PAID_MODEL, 0, TOKEN_NANOS.unsigned_abs());
    let deployment = format!(
        "model = \"{PAID_MODEL}\"\nprice = {{ input_per_1m_usd = \"0\", output_per_1m_usd = \"1000\" }}"
    );
    Setup::bare()
        .file("upstream.key", crate::support::provider::UPSTREAM_KEY)
        .model_as("paid", &format!("{}/v1", provider.url()), KEY, &deployment)
        .watched(provider)
}

/// A provider's credential in the configuration.
const KEY: &str = "api_key = { file = \"upstream.key\" }";

/// A budget for everything.
fn budget(name: &str, limit_nanos: i64, more: &str) -> String {
    format!("\n[budgets.{name}]\nlimit_usd = \"{}\"\nwindow = \"total\"\n{more}\n", usd(limit_nanos))
}

/// A question whose answer has at most so many tokens.
fn capped(model: &str, cap: i64) -> Value {
    json!({"model": model, "max_tokens": cap, "messages": [{"role": "user", "content": "hi"}]})
}

/// An amount as an operator writes it.
fn usd(nanos: i64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// A JSON number of dollars in nano-dollars. Exact: these have few digits.
fn nanos(dollars: &Value) -> i64 {
    let text = dollars.as_number().unwrap_or_else(|| panic!("no amount: {dollars}")).to_string();
    nanos_of(&text)
}

/// A text of dollars in nano-dollars.
fn nanos_of(text: &str) -> i64 {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let dollars: f64 = digits.parse().unwrap_or_else(|_| panic!("no amount: {text}"));
    #[expect(clippy::cast_possible_truncation, reason = "small amounts in a test")]
    let nanos = (dollars * 1e9).round() as i64;
    sign * nanos
}

/// What one request was booked at, and what the provider wants for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    /// The end user that it named: each request of a test has another.
    user: String,
    /// How its tokens are known; `corrected` where the ledger took its process for dead too early.
    source: String,
    booked: i64,
    owed: i64,
}

/// Pairs what was booked with what was billed by the end user. Nothing that was billed may be missing or be there
/// twice; what was reported must agree to the nano-dollar. By how much the rest is off is printed.
#[track_caller]
fn pairs(gateway: &TestGateway) -> Vec<Pair> {
    let billed: Vec<Exchange> =
        gateway.exchanges().into_iter().filter(|exchange| exchange.bill.is_some()).collect();
    let is_booked = |journal: &Journal, exchange: &Exchange| {
        journal.usages().iter().any(|usage| Some(&usage.end_user) == exchange.end_user().as_ref())
    };
    let journal =
        gateway.settled_journal(|journal| billed.iter().all(|exchange| is_booked(journal, exchange)));
    journal.check();
    let mut owed: BTreeMap<String, i64> = BTreeMap::new();
    for exchange in &billed {
        let amount = exchange.owed_nanos().expect("a price");
        let user = exchange.end_user().expect("a user");
        *owed.entry(user).or_default() += i64::try_from(amount).expect("a small amount");
    }
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for usage in journal.usages() {
        let user = usage.end_user.clone();
        let pair = Pair { user: user.clone(), source: usage.source, booked: usage.cost, owed: 0 };
        let before = pairs.insert(user, pair);
        assert_eq!(before, None, "booked twice");
    }
    for (user, amount) in owed {
        let pair = pairs.get_mut(&user).unwrap_or_else(|| panic!("billed for {user}, and not booked"));
        pair.owed = amount;
    }
    let pairs: Vec<Pair> = pairs.into_values().collect();
    for pair in &pairs {
        match pair.source.as_str() {
            "reported" | "corrected" => assert_eq!(pair.booked, pair.owed, "{pair:#?}"),
            _ => println!("{}: {} off by {} nano-dollars", pair.user, pair.source, pair.booked - pair.owed),
        }
    }
    pairs
}

/// Whether the ledger was too slow to decide: on a busy machine that says nothing of money.
fn is_undecided(answer: &Answer) -> bool {
    answer.status == 503 && answer.json()["error"]["code"] == "ledger_unavailable"
}

/// The answer to a question, as soon as the ledger decides on it.
#[track_caller]
fn decided(ask: impl Fn() -> Answer) -> Answer {
    eventually("an answer that the ledger has decided on", || {
        Some(ask()).filter(|answer| !is_undecided(answer))
    })
}

/// The answers to questions that were asked at once; those that the ledger has not decided on are asked again. By then
/// nothing is held: what was held for one that got its no meanwhile has been given back.
#[track_caller]
fn all_decided(gateway: &TestGateway, answers: Vec<Answer>, ask: impl Fn() -> Answer) -> Vec<Answer> {
    if answers.iter().any(is_undecided) {
        gateway.settled_journal(|_| true);
    }
    let again = |answer: Answer| if is_undecided(&answer) { decided(&ask) } else { answer };
    answers.into_iter().map(again).collect()
}

/// The same body for an end user of its own.
fn of_user(mut body: Value, user: &str) -> Value {
    body["user"] = user.into();
    body
}

/// A new database on the server that all tests share; nothing, with the reason said, where there is no PostgreSQL.
pub(crate) fn postgres() -> Option<(&'static Server, String)> {
    static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
    match SHARED.get_or_init(Server::start) {
        Ok(server) => Some((server, new_database(server))),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// Makes a database, and says its name.
fn new_database(server: &Server) -> String {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let name = format!("money_{}", MADE.fetch_add(1, Ordering::Relaxed));
    Session::on(&server.url("postgres")).run(&format!("CREATE DATABASE {name}"));
    name
}
