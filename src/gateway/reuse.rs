//! The response cache in the line: an answer that is kept, a call under way that is joined, or a call that others may
//! join.
//!
//! What is kept is found by the final request of the first deployment of the order drawn: another deployment's answer,
//! or that of other words, is never found. Who joins was admitted, limited and let to the model as everybody is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use super::answers::{Kept, KeptBody};
use super::dispatch;
use super::flights::{Asked, Begun, Boarding, Follower, Head, Joiner, Landed, LeaderEnd, Pilot, Worth};
use super::inference::Gateway;
use super::joiners::{Aboard, book};
use super::ledger::Reservation;
use super::meter::{self, Answer, AnswerBody, Next};
use super::prepare::Prepared;
use super::presence::{Client, Presence};
use super::record::{Record, Refused};
use super::refusal::Refusal;
use super::reply::{Body, NoAnswer, Reply, Streamed};
use super::semantic::Compared;
use super::shared::Shared;
use crate::clock;
use crate::domain::cache::keep::NotKept;
use crate::domain::cache::key::{CacheKey, KeyedOn, Tenant, cache_key, semantic_key};
use crate::domain::cache::{Bypass, CacheResult, Cached, Joiners, Policy, Scope, eligible, keep, replay};
use crate::domain::catalog::Deployment;
use crate::domain::endpoint::Endpoint;
use crate::domain::ledger::{Attribution, Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::outcome::Ending;
use crate::domain::request::InferenceRequest;
use crate::domain::stream::StreamReader;

/// So often a request tries anew whose flight came to nothing, before it goes alone.
const MOST_FAILED_FLIGHTS: u32 = 2;

static BETA: HeaderName = HeaderName::from_static("openai-beta");
static CACHE: HeaderName = HeaderName::from_static("x-tunegate-cache");
static REASON: HeaderName = HeaderName::from_static("x-tunegate-cache-reason");
static KEY: HeaderName = HeaderName::from_static("x-tunegate-cache-key");
static SIMILARITY: HeaderName = HeaderName::from_static("x-tunegate-cache-similarity");
static SAVED: HeaderName = HeaderName::from_static("x-tunegate-saved-usd");

/// The headers of an answer that belong to it, whoever gets it; all others are its first client's.
static SHARED_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    HeaderName::from_static("x-tunegate-deployment"),
    HeaderName::from_static("x-tunegate-prompt"),
    HeaderName::from_static("openai-version"),
    HeaderName::from_static("openai-model"),
    HeaderName::from_static("openai-processing-ms"),
];

/// A request that the cache may serve.
#[derive(Clone)]
struct Keyed {
    key: CacheKey,
    policy: Arc<Policy>,
    /// Whether no kept answer will do.
    fresh: bool,
    /// Whether its answer is kept.
    keeps: bool,
    /// Whether it asked for that, and not its key's terms.
    no_store: bool,
    max_age: Option<Duration>,
    ttl: Duration,
    endpoint: Endpoint,
    stream: bool,
    usage_asked: bool,
    model: Arc<str>,
}

/// How joining went.
enum Joined {
    Reply(Reply),
    No(NoAnswer),
    /// The flight came to nothing: it is tried anew.
    Again(Box<Record>),
    /// It can't pay its share: it is asked alone.
    Alone(Box<Record>),
}

impl Gateway {
    /// Answers from the cache, from a call under way, or by asking.
    pub(super) async fn answered<C: Client>(
        self: &Arc<Self>,
        mut prepared: Prepared,
        presence: &mut Presence<'_, C>,
        mut record: Box<Record>,
    ) -> Result<Reply, NoAnswer> {
        let keyed = match self.keyed(&prepared) {
            Ok(keyed) => keyed,
            Err(why) => return self.alone(&prepared, presence, record, CacheResult::Bypass(why)).await,
        };
        let mut failed = 0;
        loop {
            let find = || if keyed.fresh { None } else { self.kept(&keyed) };
            let boarding = match find() {
                Some(kept) => Err(kept),
                None if !keyed.keeps => {
                    let why =
                        if keyed.no_store { CacheResult::Bypass(Bypass::NoStore) } else { CacheResult::Miss };
                    return self.alone(&prepared, presence, record, why).await;
                }
                None if failed > MOST_FAILED_FLIGHTS => {
                    let why = CacheResult::Bypass(Bypass::FlightFailed);
                    return self.alone(&prepared, presence, record, why).await;
                }
                None if keyed.fresh => {
                    let (pilot, follower) = self.flights.alone(keyed.stream);
                    Ok(Boarding::Leads(pilot, follower))
                }
                None => self.flights.board(keyed.key, keyed.stream, find),
            };
            match boarding {
                Err(kept) => {
                    let Some((body, kind)) = body_for(&keyed, &kept, Usd::ZERO) else {
                        return self.alone(&prepared, presence, record, CacheResult::Miss).await;
                    };
                    let whole = Whole { body, kind, result: CacheResult::Hit, similarity: None };
                    return Ok(self.hit(&keyed, &prepared.attribution, &kept, whole, record));
                }
                Ok(Boarding::Leads(pilot, follower)) => {
                    prepared.shared = true;
                    let asks = keyed.clone();
                    let attribution = prepared.attribution.clone();
                    let gateway = Arc::clone(self);
                    let flight = gateway.flies(prepared, keyed, pilot, record);
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "its Record is in flight, which the warden waits for; the deployment's time bounds it"
                    )]
                    tokio::spawn(flight);
                    return self.leads(&asks, &attribution, follower, presence).await;
                }
                Ok(Boarding::Joins(follower)) => {
                    match self.joins(&keyed, &prepared, follower, presence, record).await {
                        Joined::Reply(reply) => return Ok(reply),
                        Joined::No(no) => return Err(no),
                        Joined::Alone(record) => {
                            return self.alone(&prepared, presence, record, CacheResult::Miss).await;
                        }
                        Joined::Again(again) => {
                            record = again;
                            failed += 1;
                        }
                    }
                }
            }
        }
    }

    /// What a request's answer is kept under; or why the cache leaves it alone.
    fn keyed(&self, prepared: &Prepared) -> Result<Keyed, Bypass> {
        let policy = prepared.resolved.route.cache.as_ref();
        let (request, wish) = (prepared.forms.asked(), &prepared.wish);
        let used = prepared.admitted.key.terms.cache;
        let access = eligible::check(request, policy.map(AsRef::as_ref), used, wish)?;
        let (Some(policy), Some(first)) = (policy, prepared.order.first()) else { return Err(Bypass::Off) };
        let Some(key) = self.key_on(prepared, &first.deployment) else { return Err(Bypass::Off) };
        Ok(Keyed {
            key,
            policy: Arc::clone(policy),
            fresh: !access.find,
            keeps: access.keep,
            no_store: wish.no_store,
            max_age: wish.max_age,
            ttl: wish.ttl.map_or(policy.ttl, |ttl| ttl.min(policy.ttl)),
            endpoint: request.endpoint,
            stream: request.stream,
            usage_asked: request.usage_asked,
            model: Arc::clone(&prepared.attribution.model),
        })
    }

    /// What the answer of a deployment is kept under.
    fn key_on(&self, prepared: &Prepared, deployment: &Arc<Deployment>) -> Option<CacheKey> {
        self.on(prepared, deployment, cache_key)
    }

    /// What is found out about a request and all that its answer by a deployment depends on.
    fn on<T>(
        &self,
        prepared: &Prepared,
        deployment: &Arc<Deployment>,
        find: impl FnOnce(&InferenceRequest, &KeyedOn<'_>) -> T,
    ) -> Option<T> {
        let policy = prepared.resolved.route.cache.as_ref()?;
        let form = prepared.forms.of(deployment).ok()?;
        let upstream_model = prepared.resolved.upstream_model(deployment);
        let wanted = prepared.wanted(&form, deployment, &upstream_model);
        let on = KeyedOn {
            asked: prepared.forms.asked(),
            tenant: tenant(policy.scope, prepared),
            namespace: prepared.wish.namespace.as_deref(),
            deployment,
            upstream_model: &upstream_model,
            prompt: form.put.as_ref().map(|put| &**put.words.prompt()),
            default_cap: self.money.default_cap(wanted, clock::unix_ms()),
            beta: prepared.headers.iter().find(|(name, _)| *name == BETA).map(|(_, value)| value.as_bytes()),
            model: &prepared.attribution.model,
        };
        Some(find(&form.request, &on))
    }

    fn kept(&self, keyed: &Keyed) -> Option<Arc<Kept>> {
        self.answers.find(&keyed.key, clock::unix_ms(), keyed.oldest())
    }

    /// Asks for this request alone; nothing is kept.
    async fn alone<C: Client>(
        &self,
        prepared: &Prepared,
        presence: &mut Presence<'_, C>,
        mut record: Box<Record>,
        result: CacheResult,
    ) -> Result<Reply, NoAnswer> {
        record.cached(Cached { result, saved: None }, Usd::ZERO);
        let mut answer = dispatch::ask(self.means(), prepared, presence, record).await?;
        answer.headers.push((CACHE.clone(), HeaderValue::from_static(result.name())));
        if let CacheResult::Bypass(why) = result {
            answer.headers.push((REASON.clone(), HeaderValue::from_static(why.name())));
        }
        Ok((*answer).into())
    }

    /// An answer that is kept.
    fn hit(
        &self,
        keyed: &Keyed,
        attribution: &Attribution,
        kept: &Kept,
        whole: Whole,
        mut record: Box<Record>,
    ) -> Reply {
        let now_ms = clock::unix_ms();
        let age = Duration::from_millis(u64::try_from(now_ms - kept.kept_at_ms).unwrap_or(0));
        self.answers.metrics().cache.served_at_age(age);
        record.cached(Cached { result: whole.result, saved: Some(kept.cost) }, Usd::ZERO);
        record.note(|outcome| {
            outcome.deployment = Some(Arc::clone(&kept.deployment));
            outcome.prompt.clone_from(&kept.prompt);
        });
        let on = Arc::new(Attribution {
            deployment: Arc::clone(&kept.deployment),
            provider: Arc::clone(&kept.provider),
            ..attribution.clone()
        });
        let entry = Entry::drafted(EntryKind::CacheHit, now_ms, record.request_id(), on);
        self.money.ledger.book_loose(Entry {
            tokens: kept.usage.tokens,
            source: Some(kept.usage.source),
            saved: kept.cost,
            price: Arc::clone(&kept.price),
            ..entry
        });
        let mut headers = kept.headers.clone();
        content_type(&mut headers, whole.kind);
        told(&mut headers, keyed, whole.result);
        headers.push((header::AGE, HeaderValue::from(age.as_secs())));
        paid(&mut headers, Usd::ZERO, kept.cost);
        if let Some(similarity) = whole.similarity
            && let Ok(similarity) = HeaderValue::from_str(&format!("{similarity:.4}"))
        {
            headers.push((SIMILARITY.clone(), similarity));
        }
        let body = Body::Whole { body: whole.body, record, ending: Ending::Served };
        Reply { status: 200, headers, body }
    }

    /// Waits for the call that it leads, as one of its clients.
    async fn leads<C: Client>(
        &self,
        keyed: &Keyed,
        attribution: &Attribution,
        mut follower: Follower,
        presence: &mut Presence<'_, C>,
    ) -> Result<Reply, NoAnswer> {
        let begun = tokio::select! {
            biased;
            begun = follower.begun() => begun,
            () = presence.left() => return Err(NoAnswer::Gone),
        };
        let result = if keyed.fresh { CacheResult::Bypass(Bypass::NoCache) } else { CacheResult::Miss };
        let head = match begun {
            Begun::Stream(head) => head,
            Begun::Landed(Landed::Asked(asked)) if keyed.stream && !asked.whole => asked.head,
            Begun::Landed(Landed::Asked(asked)) => match (follower.leaders_end(), asked.answer) {
                (Some(LeaderEnd::Answered(record, ending)), Some(kept)) => {
                    let mut headers = asked.head.leads.clone();
                    told(&mut headers, keyed, result);
                    let body = Body::Whole { body: kept.body.bytes().clone(), record, ending };
                    return Ok(Reply { status: asked.head.status, headers, body });
                }
                _ => return Err(NoAnswer::Gone),
            },
            Begun::Landed(Landed::Found(kept, similarity)) => match follower.leaders_end() {
                Some(LeaderEnd::Found(record)) => {
                    let Some((body, kind)) = body_for(keyed, &kept, Usd::ZERO) else {
                        return Err(NoAnswer::Gone);
                    };
                    let similarity = Some(similarity);
                    let whole = Whole { body, kind, result: CacheResult::Semantic, similarity };
                    return Ok(self.hit(keyed, attribution, &kept, whole, record));
                }
                _ => return Err(NoAnswer::Gone),
            },
            Begun::Failed => {
                return match follower.leaders_end() {
                    Some(LeaderEnd::Refused(refused)) => Err(NoAnswer::Refused(refused)),
                    Some(LeaderEnd::Told(mut answer)) => {
                        told(&mut answer.headers, keyed, result);
                        Ok((*answer).into())
                    }
                    _ => Err(NoAnswer::Gone),
                };
            }
        };
        let mut headers = head.leads.clone();
        told(&mut headers, keyed, result);
        let reader = StreamReader::new(keyed.endpoint, keyed.withholds_usage()).priced(head.priced.clone());
        let shared = Shared::led(follower, reader);
        let body = Body::Stream(Streamed::shared(shared));
        Ok(Reply { status: head.status, headers, body })
    }

    /// Joins a call under way.
    async fn joins<C: Client>(
        &self,
        keyed: &Keyed,
        prepared: &Prepared,
        mut follower: Follower,
        presence: &mut Presence<'_, C>,
        mut record: Box<Record>,
    ) -> Joined {
        let reservation = match keyed.policy.joiners {
            Joiners::Free => None,
            Joiners::Share => match self.holds_share(prepared, &follower, &record).await {
                Ok(reservation) => reservation,
                // alone it may be capped, or asked of a cheaper one
                Err(Refusal::Budget { .. }) => return Joined::Alone(record),
                Err(refusal) => return Joined::No(NoAnswer::Refused(Refused::new(refusal, record))),
            },
        };
        let Some(first) = prepared.order.first() else { return Joined::Again(record) };
        let as_it_comes = follower.is_stream() == keyed.stream;
        let aboard = Aboard::new(&self.money.ledger, reservation.is_some());
        let joiner = Joiner {
            as_it_comes,
            request_id: record.request_id(),
            attribution: Arc::new(Attribution {
                deployment: Arc::clone(&first.deployment.name),
                provider: Arc::clone(&first.deployment.provider.name),
                ..prepared.attribution.clone()
            }),
            at_ms: clock::unix_ms(),
            reservation,
        };
        let unbooked = follower.is_booked(joiner);
        record.waits();
        let begun = async {
            match as_it_comes {
                true => follower.begun().await,
                false => follower.landed().await.map_or(Begun::Failed, Begun::Landed),
            }
        };
        let begun = tokio::select! {
            biased;
            begun = begun => begun,
            () = presence.left() => return Joined::No(NoAnswer::Refused(Refused::new(Refusal::ClientGone, record))),
        };
        record.goes_on();
        let head = match begun {
            Begun::Failed => return Joined::Again(record),
            Begun::Stream(head) => head,
            Begun::Landed(Landed::Asked(asked)) if as_it_comes && keyed.stream && !asked.whole => asked.head,
            Begun::Landed(landed) => {
                return match self.joins_landed(
                    keyed,
                    &prepared.attribution,
                    &landed,
                    &aboard,
                    unbooked,
                    record,
                ) {
                    Ok(reply) => Joined::Reply(reply),
                    Err(record) => Joined::Again(record),
                };
            }
        };
        record.first_byte();
        record.cached(Cached { result: CacheResult::Joined, saved: None }, Usd::ZERO);
        let mut headers = head.joins.clone();
        told(&mut headers, keyed, CacheResult::Joined);
        let reader = StreamReader::new(keyed.endpoint, keyed.withholds_usage());
        let reader = match keyed.policy.joiners {
            Joiners::Free => reader.paid(Usd::ZERO),
            // what its share comes to is known when it lands
            Joiners::Share => reader,
        };
        let shared = Shared::joined(follower, reader, record, aboard, unbooked);
        let body = Body::Stream(Streamed::shared(shared));
        Joined::Reply(Reply { status: head.status, headers, body })
    }

    /// What has landed whole, or must be had whole to be told in the other way.
    fn joins_landed(
        &self,
        keyed: &Keyed,
        attribution: &Attribution,
        landed: &Landed,
        aboard: &Aboard,
        unbooked: Option<Joiner>,
        mut record: Box<Record>,
    ) -> Result<Reply, Box<Record>> {
        let asked = match landed {
            Landed::Asked(asked) => asked,
            Landed::Found(kept, similarity) => {
                let Some((body, kind)) = body_for(keyed, kept, Usd::ZERO) else { return Err(record) };
                let similarity = Some(*similarity);
                let whole = Whole { body, kind, result: CacheResult::Semantic, similarity };
                return Ok(self.hit(keyed, attribution, kept, whole, record));
            }
        };
        let Some(kept) = &asked.answer else { return Err(record) };
        let share = aboard.share(unbooked.is_some(), asked.share);
        let Some((body, kind)) = body_for(keyed, kept, share) else { return Err(record) };
        record.first_byte();
        aboard.lands(&mut record, unbooked, asked);
        let mut headers = asked.head.joins.clone();
        content_type(&mut headers, kind);
        told(&mut headers, keyed, CacheResult::Joined);
        paid(&mut headers, share, asked.worth.cost - share);
        let body = Body::Whole { body, record, ending: Ending::Served };
        Ok(Reply { status: asked.head.status, headers, body })
    }

    /// Holds a joiner's share of what the call can cost.
    async fn holds_share(
        &self,
        prepared: &Prepared,
        follower: &Follower,
        record: &Record,
    ) -> Result<Option<Reservation>, Refusal> {
        let Some(first) = prepared.order.first() else { return Ok(None) };
        let deployment = &first.deployment;
        let Ok(form) = prepared.forms.of(deployment) else { return Ok(None) };
        let upstream_model = prepared.resolved.upstream_model(deployment);
        let wanted = prepared.wanted(&form, deployment, &upstream_model);
        let among = follower.payers() + 1;
        self.money.hold_share(wanted, among, &record.request_id()).await
    }
}

/// What a whole answer is told with.
struct Whole {
    body: Bytes,
    kind: HeaderValue,
    result: CacheResult,
    similarity: Option<f32>,
}

impl Keyed {
    /// How old a kept answer may be: as the request says, and as the model says now.
    fn oldest(&self) -> Option<Duration> {
        Some(self.max_age.map_or(self.policy.ttl, |asked| asked.min(self.policy.ttl)))
    }

    /// Whether the usage chunk of its stream is only ours.
    const fn withholds_usage(&self) -> bool {
        self.stream && !self.usage_asked && self.endpoint.usage_on_request()
    }
}

/// A kept answer in the way that a request asks for: whole or as a stream, and its kind of content.
fn body_for(keyed: &Keyed, kept: &Kept, cost: Usd) -> Option<(Bytes, HeaderValue)> {
    if !keyed.stream {
        let whole = match &kept.body {
            KeptBody::Whole(whole) => whole.clone(),
            KeptBody::Stream(events) => replay::whole_of(keyed.endpoint, events)?,
        };
        return Some((whole, HeaderValue::from_static("application/json")));
    }
    let events = match &kept.body {
        KeptBody::Stream(events) => events.clone(),
        KeptBody::Whole(whole) => replay::stream_of(keyed.endpoint, whole)?,
    };
    let mut reader = StreamReader::new(keyed.endpoint, keyed.withholds_usage()).paid(cost);
    let (events, rest) = (reader.push(events), reader.finish());
    let events = if rest.is_empty() { events } else { [events, rest].concat().into() };
    Some((events, HeaderValue::from_static("text/event-stream; charset=utf-8")))
}

/// Whether a whole answer can be told as a stream, or a stream as a whole answer.
fn can_be_told_otherwise(endpoint: Endpoint, kept: &Kept) -> bool {
    match &kept.body {
        KeptBody::Whole(whole) => replay::stream_of(endpoint, whole).is_some(),
        KeptBody::Stream(events) => replay::whole_of(endpoint, events).is_some(),
    }
}

fn content_type(headers: &mut Vec<(HeaderName, HeaderValue)>, kind: HeaderValue) {
    headers.retain(|(name, _)| *name != header::CONTENT_TYPE);
    headers.insert(0, (header::CONTENT_TYPE, kind));
}

/// Says what the cache did.
fn told(headers: &mut Vec<(HeaderName, HeaderValue)>, keyed: &Keyed, result: CacheResult) {
    headers.push((CACHE.clone(), HeaderValue::from_static(result.name())));
    if let CacheResult::Bypass(why) = result {
        headers.push((REASON.clone(), HeaderValue::from_static(why.name())));
    }
    if let Ok(key) = HeaderValue::from_str(&keyed.key.to_string()) {
        headers.push((KEY.clone(), key));
    }
}

/// Says what an answer cost, and what it would have.
fn paid(headers: &mut Vec<(HeaderName, HeaderValue)>, cost: Usd, saved: Usd) {
    for (name, amount) in [(&meter::COST, cost), (&SAVED, saved)] {
        headers.extend(HeaderValue::from_str(&amount.to_string()).map(|amount| (name.clone(), amount)));
    }
}

fn tenant(scope: Scope, prepared: &Prepared) -> Tenant<'_> {
    match (scope, &prepared.admitted.team) {
        (Scope::Shared, _) => Tenant::Shared,
        (Scope::Team, Some(team)) => Tenant::Team(&team.id),
        // nobody else is of its team
        (Scope::Key | Scope::Team, _) => Tenant::Key(&prepared.admitted.key.id),
    }
}

/// A call in its own task.
impl Gateway {
    async fn flies(self: Arc<Self>, prepared: Prepared, keyed: Keyed, pilot: Pilot, mut record: Box<Record>) {
        let result = if keyed.fresh { CacheResult::Bypass(Bypass::NoCache) } else { CacheResult::Miss };
        record.cached(Cached { result, saved: None }, Usd::ZERO);
        let purges = self.answers.purges();
        let compared = match self.compared(&prepared, &keyed).await {
            Ok(compared) => compared,
            Err((kept, similarity)) => {
                return pilot.lands(Landed::Found(kept, similarity), LeaderEnd::Found(record));
            }
        };
        let mut crowd = pilot.crowd();
        let mut presence = Presence::new(&mut crowd);
        let answer = match dispatch::ask(self.means(), &prepared, &mut presence, record).await {
            Ok(answer) => *answer,
            Err(refused) => return pilot.fails(LeaderEnd::Refused(refused)),
        };
        if answer.status >= 300 {
            return pilot.fails(LeaderEnd::Told(Box::new(answer)));
        }
        let Answer { status, headers, body, output_cap } = answer;
        let capped = self.is_capped(&prepared, output_cap);
        if capped {
            pilot.seal();
        }
        let joins = headers.iter().filter(|(name, _)| SHARED_HEADERS.contains(name)).cloned().collect();
        let head = |priced| Arc::new(Head { leads: headers, joins, status, priced });
        let flown = Flown { gateway: &self, prepared: &prepared, keyed: &keyed, capped, compared, purges };
        match body {
            AnswerBody::Whole { body, record, ending } => {
                flown.lands(pilot, head(None), Some(KeptBody::Whole(body)), record, ending);
            }
            AnswerBody::Stream(mut metered) => {
                let head = head(metered.priced());
                pilot.begins(Arc::clone(&head));
                loop {
                    let next = tokio::select! {
                        biased;
                        next = metered.next() => next,
                        () = presence.left() => {
                            if let Some(record) = metered.left_alone().await {
                                flown.lands(pilot, head, None, record, Ending::ClientGone);
                            }
                            return;
                        }
                    };
                    match next {
                        Next::Bytes(bytes) => {
                            metered.waits();
                            pilot.brings(bytes).await;
                            metered.goes_on();
                        }
                        Next::End => {
                            let all = pilot.all().map(KeptBody::Stream);
                            if let Some((record, ending)) = metered.after_the_end() {
                                flown.lands(pilot, head, all, record, ending);
                            }
                            return;
                        }
                        Next::Broke(event) => {
                            if let Some((mut record, ending)) = metered.after_a_break() {
                                let share = flown.settles(&pilot, &mut record, None, Ended::Badly);
                                pilot.breaks(event, share, LeaderEnd::Answered(record, ending));
                            }
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Compares the last turn with those before it, where the model says so: the answer to one that means the same, or
    /// how it was compared.
    async fn compared(
        &self,
        prepared: &Prepared,
        keyed: &Keyed,
    ) -> Result<Option<Compared>, (Arc<Kept>, f32)> {
        let (Some(policy), Some(semantic), Some(first)) =
            (keyed.policy.semantic, &self.semantic, prepared.order.first())
        else {
            return Ok(None);
        };
        let Some((group, words)) = self.on(prepared, &first.deployment, semantic_key).flatten() else {
            return Ok(None);
        };
        let Some(compared) = semantic.compared(&keyed.model, group, &words).await else { return Ok(None) };
        if keyed.fresh {
            return Ok(Some(compared));
        }
        let near = semantic.nearest(&keyed.model, &compared, policy, &self.answers, keyed.oldest());
        // one that can't be told as it is asked for is none
        match near.filter(|(kept, _)| body_for(keyed, kept, Usd::ZERO).is_some()) {
            Some(found) => Err(found),
            None => Ok(Some(compared)),
        }
    }

    /// Whether the answer's output was capped lower than its key says.
    fn is_capped(&self, prepared: &Prepared, cap: Option<u64>) -> bool {
        let Some(cap) = cap else { return false };
        let Some(first) = prepared.order.first() else { return true };
        let Ok(form) = prepared.forms.of(&first.deployment) else { return true };
        let upstream_model = prepared.resolved.upstream_model(&first.deployment);
        let wanted = prepared.wanted(&form, &first.deployment, &upstream_model);
        self.money.default_cap(wanted, clock::unix_ms()) != Some(cap)
    }
}

/// A call that is over.
struct Flown<'a> {
    gateway: &'a Gateway,
    prepared: &'a Prepared,
    keyed: &'a Keyed,
    /// Whether its output was capped for its leader alone.
    capped: bool,
    /// Its question, where those that mean the same may get its answer.
    compared: Option<Compared>,
    /// How often answers had been let go when it began.
    purges: u64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// With all of its answer.
    Well,
    /// In the middle.
    Badly,
}

impl Flown<'_> {
    /// Keeps the answer, books all who share it, and lets it go to them.
    fn lands(
        &self,
        pilot: Pilot,
        head: Arc<Head>,
        body: Option<KeptBody>,
        mut record: Box<Record>,
        ending: Ending,
    ) {
        let whole = matches!(body, Some(KeptBody::Whole(_)));
        let Some(worth) = self.worth(&record) else {
            return pilot.fails(LeaderEnd::Answered(record, ending));
        };
        let answer = body.map(|body| Arc::new(self.kept(body, &head, &worth)));
        match &answer {
            // before anybody can find that there is no call to join
            Some(kept) => self.keep(kept, &worth, ending),
            None if ending == Ending::Served => {
                self.gateway.answers.metrics().cache.stored(NotKept::TooLarge.name());
            }
            None => {}
        }
        let ended = if ending == Ending::Served { Ended::Well } else { Ended::Badly };
        let share = self.settles(&pilot, &mut record, answer.as_deref(), ended);
        let head = self.head_after(head, &record, share);
        let asked = Asked { head, answer, worth, share, whole };
        pilot.lands(Landed::Asked(asked), LeaderEnd::Answered(record, ending));
    }

    fn worth(&self, record: &Record) -> Option<Worth> {
        let (usage, cost, price) = record.answered()?;
        let deployment = record.deployment()?;
        let deployment = self.prepared.live.catalog.deployments.get(deployment)?;
        let prompt = record.prompt().cloned();
        Some(Worth { usage, cost, price, deployment: Arc::clone(deployment), prompt })
    }

    fn kept(&self, body: KeptBody, head: &Head, worth: &Worth) -> Kept {
        let now_ms = clock::unix_ms();
        let ttl_ms = i64::try_from(self.keyed.ttl.as_millis()).unwrap_or(i64::MAX);
        Kept {
            endpoint: self.keyed.endpoint,
            body,
            headers: head.joins.clone(),
            model: Arc::clone(&self.keyed.model),
            deployment: Arc::clone(&worth.deployment.name),
            provider: Arc::clone(&worth.deployment.provider.name),
            prompt: worth.prompt.clone(),
            key_id: Arc::clone(&self.prepared.admitted.key.id),
            usage: worth.usage,
            cost: worth.cost,
            price: Arc::clone(&worth.price),
            kept_at_ms: now_ms,
            until_ms: now_ms.saturating_add(ttl_ms),
        }
    }

    /// Keeps it under the deployment that gave it, if it may be kept.
    fn keep(&self, kept: &Arc<Kept>, worth: &Worth, ending: Ending) {
        let (answers, policy) = (&self.gateway.answers, &self.keyed.policy);
        let metrics = &answers.metrics().cache;
        if !matches!(ending, Ending::Served | Ending::ClientGone) {
            return metrics.stored("error");
        }
        let may = match &kept.body {
            KeptBody::Whole(whole) => keep::check_whole(self.keyed.endpoint, whole, policy, self.capped),
            KeptBody::Stream(events) => keep::check_stream(self.keyed.endpoint, events, policy, self.capped),
        };
        if let Err(why) = may {
            return metrics.stored(why.name());
        }
        if let Some(key) = self.gateway.key_on(self.prepared, &worth.deployment) {
            if answers.purges() != self.purges {
                // it may be just what was let go
                return metrics.stored(NotKept::Purged.name());
            }
            let is_kept = answers.keep(key, (**kept).clone());
            metrics.stored(if is_kept { "kept" } else { NotKept::TooLarge.name() });
            // it was compared with the questions to the first one: another one's answer is none of theirs
            let is_firsts = self
                .prepared
                .order
                .first()
                .is_some_and(|first| first.deployment.name == worth.deployment.name);
            if let (true, Some(compared), Some(semantic)) =
                (is_kept && is_firsts, &self.compared, &self.gateway.semantic)
            {
                semantic.remember(compared, key);
            }
        }
    }

    /// Settles the leader, and all who joined: nobody joins from here on. Returns what each of those paid who share.
    fn settles(&self, pilot: &Pilot, record: &mut Record, answer: Option<&Kept>, ended: Ended) -> Usd {
        let mut joiners = pilot.closes();
        // who wants it in the other way and can't get it so asks anew, and gives its hold back
        let other_way = joiners.iter().any(|joiner| !joiner.as_it_comes)
            && answer.is_some_and(|kept| can_be_told_otherwise(self.keyed.endpoint, kept));
        joiners.retain(|joiner| joiner.as_it_comes || other_way);
        let Some(worth) = self.worth(record) else { return Usd::ZERO };
        let payers = joiners.iter().filter(|joiner| joiner.reservation.is_some()).count();
        let payers = i64::try_from(payers).unwrap_or(i64::MAX);
        // what is left over by the division is the leader's
        let share = Usd::from_nanos(worth.cost.nanos() / (payers + 1));
        record.settles(Usd::from_nanos(share.nanos() * payers));
        for joiner in joiners {
            let share = if joiner.reservation.is_some() { share } else { Usd::ZERO };
            let saved = if ended == Ended::Well { worth.cost - share } else { Usd::ZERO };
            book(&self.gateway.money.ledger, joiner, &worth, share, saved);
        }
        if payers > 0 { share } else { Usd::ZERO }
    }

    /// The head as its leader gets it once others have paid a part.
    fn head_after(&self, head: Arc<Head>, record: &Record, share: Usd) -> Arc<Head> {
        let Some(spent) = record.spent().filter(|_| share > Usd::ZERO) else { return head };
        let mut leads = head.leads.clone();
        leads.retain(|(name, _)| *name != meter::COST);
        leads.extend(HeaderValue::from_str(&spent.to_string()).map(|spent| (meter::COST.clone(), spent)));
        Arc::new(Head { leads, joins: head.joins.clone(), status: head.status, priced: head.priced.clone() })
    }
}
