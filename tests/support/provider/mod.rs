//! A provider on a real socket: it answers like OpenAI and Azure, goes wrong the way a test asks, and writes a bill
//! from its own count, which need not agree with what it told the gateway.
//!
//! One word is one token. Tokens that were made stay on the bill, whether or not anybody read them.

mod answers;
mod endpoints;
mod errors;
mod play;
mod prices;
mod reply;
pub(crate) mod tuning;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

pub(crate) use errors::Trouble;
pub(crate) use prices::Price;
pub(crate) use reply::{Gate, Reply};

use super::ports::free_port;
use super::server::{After, Handler, Request, Server, Wire};
use super::wait::eventually;
use endpoints::Asked;
use tuning::{Tuning, TuningCall, Workshop};

/// The key that a provider knows unless told otherwise.
pub(crate) const UPSTREAM_KEY: &str = "upstream-key";

/// How an exchange stands or ended, as the provider saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not yet at an end.
    Running,
    /// Sent as planned, faults included.
    Answered,
    /// The gateway closed the connection before the end.
    PeerGone,
}

/// What one request costs, in tokens made by the provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bill {
    pub(crate) prompt: u64,
    /// Reasoning included.
    pub(crate) completion: u64,
    pub(crate) reasoning: u64,
}

/// One request and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) request: Request,
    pub(crate) fate: Fate,
    /// Nothing when no work was done for it.
    pub(crate) bill: Option<Bill>,
    /// Whether the gateway was told the usage: only then can its books agree to the token.
    pub(crate) usage_sent: bool,
    /// What it charges; nothing for a model that is not on its list, and where the test wrote the answer.
    pub(crate) price: Option<Price>,
}

impl Exchange {
    /// What it owes the provider, nano-dollars; nothing where no price is known.
    pub(crate) fn owed_nanos(&self) -> Option<u64> {
        let bill = self.bill?;
        Some(self.price?.of(bill.prompt, bill.completion))
    }

    /// The end user that the request named.
    pub(crate) fn end_user(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.request.body).ok()?;
        body["user"].as_str().map(str::to_owned)
    }
}

/// What a model says to the last message of a conversation; nothing for the usual words.
type Wit = dyn Fn(&str, &str) -> Option<String> + Send + Sync;

/// A provider that answers by what is asked.
#[derive(Clone)]
struct Knowledge(Arc<Wit>);

impl std::fmt::Debug for Knowledge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Knowledge")
    }
}

/// How usual answers look.
#[derive(Debug, Clone)]
struct Manner {
    words: String,
    knowledge: Option<Knowledge>,
    reasoning: u64,
    /// How long it says that it computed, microseconds: our worker's word, whoever uses it.
    compute_us: Option<u64>,
    credential: Vec<String>,
    models: Vec<String>,
    /// Words that moderation does not like.
    flagged: Vec<String>,
    /// Prices that a test has set.
    prices: BTreeMap<String, Price>,
}

impl Manner {
    /// What a model charges: by a price that a test has set, for the name or, where that ends with a colon or a dot, for
    /// all that begin so; else by the list.
    fn price(&self, model: &str) -> Option<Price> {
        let begins = |name: &str| name.ends_with([':', '.']) && model.starts_with(name);
        let own = self.prices.iter().find(|(name, _)| *name == model || begins(name));
        own.map(|(_, price)| *price).or_else(|| prices::listed(model))
    }
}

#[derive(Debug)]
struct Memory {
    manner: Manner,
    replies: VecDeque<Reply>,
    /// What a request gets when nothing is queued.
    otherwise: Reply,
    exchanges: Vec<Exchange>,
    responses: BTreeMap<String, Value>,
    /// What it answers to each question for its models; 404 otherwise, as servers do that have no list.
    model_list: Option<Reply>,
    tuning: Workshop,
}

struct Office(Mutex<Memory>);

/// A provider on a real socket. Clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct SimulatedProvider {
    office: Arc<Office>,
    port: u16,
    /// Nothing while nobody listens.
    server: Arc<Mutex<Option<Server>>>,
}

impl SimulatedProvider {
    /// Opens for business: every key but [`UPSTREAM_KEY`] is refused, every model is known.
    pub(crate) fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The same at an address of the caller's choice.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let mut provider = Self::closed_at(0);
        let server = Server::start_at(address, provider.handler());
        provider.port = server.address().port();
        *provider.server.lock() = Some(server);
        provider
    }

    /// The same, but nobody listens before it [opens](Self::opens): connections are refused.
    pub(crate) fn closed() -> Self {
        Self::closed_at(free_port())
    }

    /// Begins to listen.
    pub(crate) fn opens(&self) {
        *self.server.lock() = Some(Server::start_on(self.port, self.handler()));
    }

    fn handler(&self) -> Arc<dyn Handler> {
        Arc::<Office>::clone(&self.office)
    }

    fn closed_at(port: u16) -> Self {
        let manner = Manner {
            words: "Four crates fit on the pallet.".to_owned(),
            knowledge: None,
            reasoning: 0,
            compute_us: None,
            credential: vec![UPSTREAM_KEY.to_owned()],
            models: Vec::new(),
            flagged: Vec::new(),
            prices: BTreeMap::new(),
        };
        let memory = Memory {
            manner,
            replies: VecDeque::new(),
            otherwise: Reply::usual(),
            exchanges: Vec::new(),
            responses: BTreeMap::new(),
            model_list: None,
            tuning: Workshop::new(),
        };
        Self { office: Arc::new(Office(Mutex::new(memory))), port, server: Arc::default() }
    }

    /// `http://127.0.0.1:PORT`, without a path.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What usual answers say; one token for each word.
    pub(crate) fn says(&self, words: &str) -> &Self {
        words.clone_into(&mut self.office.0.lock().manner.words);
        self
    }

    /// Usual answers of chats are what this says of the model and the last message's words; nothing for the usual words.
    pub(crate) fn knows(&self, says: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static) -> &Self {
        self.office.0.lock().manner.knowledge = Some(Knowledge(Arc::new(says)));
        self
    }

    /// Says with each usual answer how long it computed, microseconds, as only our worker does.
    pub(crate) fn computes(&self, compute_us: Option<u64>) -> &Self {
        self.office.0.lock().manner.compute_us = compute_us;
        self
    }

    /// Makes so many hidden tokens before each usual answer.
    pub(crate) fn thinks(&self, reasoning: u64) -> &Self {
        self.office.0.lock().manner.reasoning = reasoning;
        self
    }

    /// The only credentials that are good from now on.
    pub(crate) fn knows_only(&self, credentials: &[&str]) -> &Self {
        self.office.0.lock().manner.credential = credentials.iter().map(|&key| key.to_owned()).collect();
        self
    }

    /// The only models that exist from now on.
    pub(crate) fn serves_only(&self, models: &[&str]) -> &Self {
        self.office.0.lock().manner.models = models.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Moderation flags whatever has this word in it.
    pub(crate) fn flags(&self, word: &str) -> &Self {
        self.office.0.lock().manner.flagged.push(word.to_owned());
        self
    }

    /// Charges so many nano-dollars for each token of a model, from now on.
    pub(crate) fn charges(&self, model: &str, input_nanos: u64, output_nanos: u64) -> &Self {
        let price = Price { input_nanos, output_nanos };
        self.office.0.lock().manner.prices.insert(model.to_owned(), price);
        self
    }

    /// What every question for its list of models gets from now on.
    pub(crate) fn lists(&self, reply: Reply) -> &Self {
        self.office.0.lock().model_list = Some(reply);
        self
    }

    /// What every request gets from now on, when nothing is queued.
    pub(crate) fn always(&self, reply: Reply) -> &Self {
        self.office.0.lock().otherwise = reply;
        self
    }

    /// Queues what the next request gets. Without one it gets the usual answer.
    pub(crate) fn replies(&self, reply: Reply) -> &Self {
        self.office.0.lock().replies.push_back(reply);
        self
    }

    /// Queues an error.
    pub(crate) fn fails(&self, trouble: Trouble) -> &Self {
        self.replies(Reply::trouble(trouble))
    }

    /// Every request so far, in order of arrival.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.office.0.lock().exchanges.iter().map(|exchange| exchange.request.clone()).collect()
    }

    /// The newest request; fails when none came.
    pub(crate) fn last_request(&self) -> Request {
        self.requests().pop().expect("the provider was asked nothing")
    }

    /// Waits until so many requests have arrived.
    pub(crate) fn await_requests(&self, count: usize) {
        eventually(&format!("{count} requests at the provider"), || {
            (self.office.0.lock().exchanges.len() >= count).then_some(())
        });
    }

    /// Waits until the newest exchange is at its end.
    pub(crate) fn await_fate(&self) -> Fate {
        eventually("an end of the newest exchange", || {
            let memory = self.office.0.lock();
            memory.exchanges.last().map(|exchange| exchange.fate).filter(|fate| *fate != Fate::Running)
        })
    }

    /// Every exchange so far.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.office.0.lock().exchanges.clone()
    }

    /// Its fine-tuning: files, jobs, models and deployments.
    pub(crate) fn tuning(&self) -> Tuning {
        Tuning::new(Arc::clone(&self.office))
    }

    /// What the requests cost, those that cost nothing left out.
    pub(crate) fn bill(&self) -> Vec<Bill> {
        self.office.0.lock().exchanges.iter().filter_map(|exchange| exchange.bill).collect()
    }
}

#[async_trait]
impl Handler for Office {
    async fn answer(&self, request: Request, wire: &mut Wire) -> After {
        if let Some(call) = TuningCall::of(&request) {
            return self.tune(call, &request, wire).await;
        }
        let (number, performance) = {
            let memory = &mut *self.0.lock();
            let number = memory.exchanges.len();
            let asked = Asked::from(&request);
            let reply = match asked.is_inference() {
                true => memory.replies.pop_front().unwrap_or_else(|| memory.otherwise.clone()),
                false if asked.operation == "models" => {
                    memory.model_list.clone().unwrap_or_else(Reply::usual)
                }
                false => Reply::usual(),
            };
            let named = asked.model(&request);
            let (model, refusal) = match &named {
                Some(name) => (memory.tuning.model_behind(name), memory.tuning.refuses(name, asked.house)),
                None => (String::new(), None),
            };
            let content = match refusal {
                Some(trouble) => answers::Content::trouble(trouble),
                None => {
                    answers::usual(&asked, &request, &model, number, &memory.manner, &mut memory.responses)
                }
            };
            let price = memory.manner.price(&model).filter(|_| !reply.is_written_out());
            memory.exchanges.push(Exchange {
                request,
                fate: Fate::Running,
                bill: None,
                usage_sent: false,
                price,
            });
            (number, reply.rehearse(content))
        };
        let (fate, after) = play::play(performance, wire, |change| {
            change(&mut self.0.lock().exchanges[number]);
        })
        .await;
        self.0.lock().exchanges[number].fate = fate;
        after
    }
}
