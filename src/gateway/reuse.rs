//! The response cache in the line: an answer that is kept, a call under way that is joined, or a call that others may
//! join.
//!
//! What is kept is found by the final request of the first deployment of the order drawn: another deployment's answer,
//! or that of other words, is never found. Who joins was admitted, limited and let to the model as everybody is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};

use super::answers::Kept;
use super::dispatch;
use super::flights::{Begun, Boarding, Follower, Joiner, Landed, LeaderEnd};
use super::inference::Gateway;
use super::joiners::Aboard;
use super::keyed::{Keyed, body_for};
use super::ledger::Reservation;
use super::meter;
use super::prepare::Prepared;
use super::presence::{Client, Presence};
use super::record::{Record, Refused};
use super::refusal::Refusal;
use super::reply::{Body, NoAnswer, Reply, Streamed};
use super::shared::Shared;
use crate::clock;
use crate::domain::cache::{Bypass, CacheResult, Cached, Joiners};
use crate::domain::ledger::{Attribution, Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::outcome::Ending;
use crate::domain::stream::StreamReader;

/// So often a request tries anew whose flight came to nothing, before it goes alone.
const MOST_FAILED_FLIGHTS: u32 = 2;

static CACHE: HeaderName = HeaderName::from_static("x-tunegate-cache");
static REASON: HeaderName = HeaderName::from_static("x-tunegate-cache-reason");
static KEY: HeaderName = HeaderName::from_static("x-tunegate-cache-key");
static SIMILARITY: HeaderName = HeaderName::from_static("x-tunegate-cache-similarity");
static SAVED: HeaderName = HeaderName::from_static("x-tunegate-saved-usd");

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
                None if failed >= MOST_FAILED_FLIGHTS => {
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
            tokens: kept.usage.tokens.uncomputed(),
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
