//! A call that several may share, in a task of its own: asked, kept, settled, and let go to all who follow.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};

use super::answers::{Kept, KeptBody};
use super::dispatch;
use super::flights::{Asked, Head, Landed, LeaderEnd, Pilot, Worth};
use super::inference::Gateway;
use super::joiners::book;
use super::keyed::{Keyed, body_for, can_be_told_otherwise};
use super::meter::{self, Answer, AnswerBody, Next};
use super::prepare::Prepared;
use super::presence::Presence;
use super::record::Record;
use super::semantic::Compared;
use crate::clock;
use crate::domain::cache::keep::NotKept;
use crate::domain::cache::key::semantic_key;
use crate::domain::cache::{Bypass, CacheResult, Cached, keep};
use crate::domain::money::Usd;
use crate::domain::outcome::Ending;

/// The headers of an answer that belong to it, whoever gets it; all others are its first client's.
static SHARED_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    HeaderName::from_static("x-tunegate-deployment"),
    HeaderName::from_static("x-tunegate-prompt"),
    HeaderName::from_static("openai-version"),
    HeaderName::from_static("openai-model"),
    HeaderName::from_static("openai-processing-ms"),
];

impl Gateway {
    /// Asks for a request, as one of those who may join its call.
    pub(super) async fn flies(
        self: Arc<Self>,
        prepared: Prepared,
        keyed: Keyed,
        pilot: Pilot,
        mut record: Box<Record>,
    ) {
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
        let is_firsts =
            self.prepared.order.first().is_some_and(|first| first.deployment.name == worth.deployment.name);
        // as it was looked for: a budget that came meanwhile would make it another request's
        let key = match is_firsts {
            true => Some(self.keyed.key),
            false => self.gateway.key_on(self.prepared, &worth.deployment),
        };
        if let Some(key) = key {
            if answers.purges() != self.purges {
                // it may be just what was let go
                return metrics.stored(NotKept::Purged.name());
            }
            let is_kept = answers.keep(key, (**kept).clone());
            metrics.stored(if is_kept { "kept" } else { NotKept::TooLarge.name() });
            // it was compared with the questions to the first one: another one's answer is none of theirs
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
