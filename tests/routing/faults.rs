//! The fault matrix: each way in which an upstream fails × whole and streamed answers × one deployment that is asked
//! again, a second one that stands in, and a breaker that opens and closes. For each cell: what the client saw, what each
//! upstream saw, and what was booked; when a gateway is dropped, its ledger is compared with the bills as always.
//!
//! The cells of a test run at once, each with providers, deployments, a model and an end user of its own.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{CHAT, deployment, lab, metric, model, question, streamed};
use crate::support::journal::Journal;
use crate::support::provider::Trouble;
use crate::support::{Answer, End, Reply, SimulatedProvider, TestGateway, eventually};

/// How an upstream fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ill {
    /// 429 with `retry-after-ms`.
    Limited,
    /// 429 that names no wait.
    LimitedSilently,
    /// 429 of an account without money.
    OutOfQuota,
    Status500,
    Status503,
    /// Nobody listens.
    Refuses,
    /// The name has no address.
    Nameless,
    /// Plain text where TLS is spoken.
    NoTls,
    /// No byte comes.
    Mute,
    /// Falls silent in the middle of its answer.
    Stalls,
    /// RST before a byte.
    Resets,
    /// RST in the middle of its answer.
    ResetsMidway,
    /// 200 with what is no JSON.
    Garbled,
    /// Ends in the middle as if that were all.
    Truncated,
    /// A page in HTML.
    Html,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Stream,
}

use Form::{Stream, Whole};

const FORMS: [Form; 2] = [Whole, Stream];
/// Events of a stream that come before it breaks: the role and two words.
const EVENTS: usize = 3;
/// Bytes of a whole answer that come before it breaks.
const BYTES: usize = 40;
/// The wait that [`Ill::Limited`] asks for where it is waited for, ms.
const SHORT_WAIT_MS: u32 = 60;
/// The one where others are asked meanwhile, ms.
const LONG_WAIT_MS: u32 = 2_000;

impl Ill {
    /// What the provider answers, with the wait it asks for; nothing where none is reached.
    fn reply(self, form: Form, wait_ms: u32) -> Option<Reply> {
        let usual = Reply::usual();
        Some(match (self, form) {
            (Self::Limited, _) => Reply::trouble(Trouble::rate_limited_for_ms(wait_ms)),
            (Self::LimitedSilently, _) => Reply::trouble(Trouble::rate_limited_silently()),
            (Self::OutOfQuota, _) => Reply::trouble(Trouble::quota_used_up()),
            (Self::Status500, _) => Reply::trouble(Trouble::server_error()),
            (Self::Status503, _) => Reply::trouble(Trouble::unavailable()),
            (Self::Refuses | Self::Nameless | Self::NoTls, _) => return None,
            (Self::Mute, _) => usual.hangs(),
            (Self::Stalls, Whole) => usual.hangs_after_bytes(BYTES),
            (Self::Stalls, Stream) => usual.hangs_after_events(EVENTS),
            (Self::Resets, _) => usual.resets(),
            (Self::ResetsMidway, Whole) => usual.resets_after_bytes(BYTES),
            (Self::ResetsMidway, Stream) => usual.resets_after_events(EVENTS),
            (Self::Garbled, Whole) => {
                Reply::body(200, "application/json", b"{\"id\": \"chatcmpl-1\", \"choi".to_vec())
                    .billed(1, 1)
                    .without_usage()
            }
            (Self::Garbled, Stream) => {
                Reply::stream(vec![b"data: {\"id\": \"chatcmpl-1\", \"choi\n\n".to_vec()], 1, 1)
                    .without_usage()
            }
            (Self::Truncated, Whole) => usual.states_length_off_by(10),
            (Self::Truncated, Stream) => usual.ends_after_events(EVENTS),
            (Self::Html, _) => {
                Reply::body(200, "text/html", b"<html>Welcome</html>".to_vec()).billed(1, 0).without_usage()
            }
        })
    }

    /// Where its deployment is.
    fn base_url(self, provider: &SimulatedProvider) -> String {
        let url = provider.url();
        match self {
            Self::Nameless => "http://nowhere.invalid/v1".to_owned(),
            Self::NoTls => format!("{}/v1", url.replace("http://", "https://")),
            _ => format!("{url}/v1"),
        }
    }

    fn provider(self) -> SimulatedProvider {
        match self {
            Self::Refuses => SimulatedProvider::closed(),
            _ => SimulatedProvider::start(),
        }
    }

    /// Short where a time-out is what is tested, and longer than a busy machine takes for an answer; elsewhere none may
    /// be met by chance.
    fn timeouts(self) -> &'static str {
        match self {
            Self::Mute => "timeouts = { first_byte_ms = 3000 }",
            Self::Stalls => "timeouts = { between_chunks_ms = 3000 }",
            _ => "",
        }
    }

    /// Whether it can get well in a test.
    fn heals(self) -> bool {
        !matches!(self, Self::Nameless | Self::NoTls)
    }
}

/// What the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The whole answer, by this deployment.
    By(&'static str),
    /// Our error.
    No(u16, &'static str),
    /// The beginning of a stream, by this deployment, then an error in it and an unclean end.
    BreaksOff(&'static str),
}

/// What a cell shall show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Want {
    told: Told,
    /// Requests at the first upstream.
    first: usize,
    /// Attempts that were booked, in order: the deployment and how its usage is known.
    booked: &'static [(&'static str, &'static str)],
}

/// One cell: an ill, a form, and what is its own.
struct Cell {
    ill: Ill,
    form: Form,
    first: SimulatedProvider,
    second: SimulatedProvider,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{:?}", self.ill, self.form)
    }
}

impl Cell {
    fn all() -> Vec<Self> {
        let cell =
            |ill: Ill, form| Self { ill, form, first: ill.provider(), second: SimulatedProvider::start() };
        RETRIED.iter().flat_map(|row| FORMS.map(|form| cell(row.0, form))).collect()
    }

    /// The name of its deployment.
    fn named(&self, which: &str) -> String {
        format!("{self}-{which}").to_lowercase()
    }

    fn body(&self, user: &str) -> Value {
        match self.form {
            Whole => question(&self.to_string(), user),
            Stream => streamed(&self.to_string(), user),
        }
    }

    /// Asks once, as the end user that bears the cell's name.
    fn ask(&self, gateway: &TestGateway) -> Answer {
        gateway.post(CHAT, &self.body(&self.to_string()))
    }

    /// The first upstream is ill from now on.
    fn falls_ill(&self) {
        if let Some(reply) = self.ill.reply(self.form, LONG_WAIT_MS) {
            self.first.always(reply);
        }
    }

    fn gets_well(&self) {
        match self.ill {
            Ill::Refuses => self.first.opens(),
            _ => drop(self.first.always(Reply::usual())),
        }
    }

    fn asked_first(&self) -> usize {
        self.first.exchanges().len()
    }

    #[track_caller]
    fn check_told(&self, answer: &Answer, told: Told) {
        let by = answer.header("x-tunegate-deployment").unwrap_or_default();
        match told {
            Told::By(which) => {
                assert_eq!((answer.status, answer.end), (200, End::Clean), "{self}: {}", answer.text());
                assert_eq!(by, self.named(which), "{self}");
                match self.form {
                    Whole => assert!(answer.json()["usage"].is_object(), "{self}: {}", answer.text()),
                    Stream => {
                        let events = answer.events();
                        assert!(
                            events.last().is_some_and(crate::support::sse::Event::is_done),
                            "{self}: {events:?}"
                        );
                        assert_eq!(
                            crate::support::sse::spoken(&events),
                            "Four crates fit on the pallet.",
                            "{self}: nothing of a failed attempt, and nothing twice"
                        );
                    }
                }
            }
            Told::No(status, code) => {
                assert_eq!(
                    answer.json()["error"]["code"],
                    code,
                    "{self}: {} {}",
                    answer.status,
                    answer.text()
                );
                assert_eq!(answer.status, status, "{self}: {}", answer.text());
            }
            Told::BreaksOff(which) => {
                assert_eq!((answer.status, answer.end), (200, End::Broken), "{self}: {}", answer.text());
                assert_eq!(by, self.named(which), "{self}");
                let events = answer.events();
                assert!(events.len() > 1, "{self}: {events:?}");
                let last = events.last().expect("an event").json();
                let code = last["error"]["code"].as_str().unwrap_or_default().to_owned();
                assert!(matches!(&*code, "upstream_timeout" | "upstream_broke"), "{self}: {last}");
            }
        }
    }

    /// What was booked on the cell's user, in the order of its attempts; what nobody confirms costs all that was held.
    #[track_caller]
    fn check_booked(&self, journal: &Journal, booked: &[(&str, &str)]) {
        let user = self.to_string();
        let mut usages = journal.usages();
        usages.retain(|usage| usage.end_user == user);
        usages.sort_by_key(|usage| usage.ends);
        let found: Vec<_> =
            usages.iter().map(|usage| (usage.deployment.as_str(), usage.source.as_str())).collect();
        let named: Vec<_> = booked.iter().map(|(which, source)| (self.named(which), *source)).collect();
        let named: Vec<_> = named.iter().map(|(name, source)| (name.as_str(), *source)).collect();
        assert_eq!(found, named, "{self}");
        for usage in usages.iter().filter(|usage| usage.source == "unconfirmed") {
            assert!(usage.held > 0 && usage.cost == usage.held, "{self}: {usage:?}");
        }
        let owed = |provider: &SimulatedProvider| -> u64 {
            provider.exchanges().iter().filter_map(crate::support::provider::Exchange::owed_nanos).sum()
        };
        let spent: i64 = usages.iter().map(|usage| usage.cost).sum();
        let owed = i64::try_from(owed(&self.first) + owed(&self.second)).expect("a small amount");
        assert!(spent >= owed, "{self}: {spent} booked, {owed} owed");
    }
}

/// Runs all cells at once. One that fails fails the test, with its name.
#[track_caller]
fn each(cells: &[Cell], run: impl Fn(&Cell) + Sync) {
    std::thread::scope(|scope| {
        let running: Vec<_> = cells
            .iter()
            .map(|cell| {
                let run = &run;
                std::thread::Builder::new().name(cell.to_string()).spawn_scoped(scope, move || run(cell))
            })
            .map(|thread| thread.expect("a thread"))
            .collect();
        let failed = running.into_iter().filter_map(|thread| thread.join().err()).count();
        assert_eq!(failed, 0, "cells failed: see above");
    });
}

/// One deployment, `only`, that fails once and is well from then on, as far as it can be.
fn alone(cells: &[Cell]) -> TestGateway {
    let mut setup = lab();
    for cell in cells {
        let name = cell.named("only");
        // one that nobody reaches yet is asked until it is there
        let retry = match cell.ill {
            Ill::Refuses => "retry = { attempts = 8, first_wait_ms = 100, longest_wait_ms = 1000 }",
            _ => "retry = { first_wait_ms = 20, longest_wait_ms = 100 }",
        };
        let model = model(&cell.to_string(), &format!("deployments = [\"{name}\"]\n{retry}"));
        let only =
            deployment(&name, &cell.ill.base_url(&cell.first), &format!("{}\n{TOUGH}", cell.ill.timeouts()));
        setup = setup.and(&only).and(&model).watched(&cell.first);
    }
    TestGateway::with(setup).start()
}

/// A first deployment and a second one, with lines for both.
fn in_pairs(cells: &[Cell], breaker: &str) -> TestGateway {
    let mut setup = lab();
    for cell in cells {
        let (first, second) = (cell.named("first"), cell.named("second"));
        let lines = format!("{}\n{breaker}", cell.ill.timeouts());
        let route = format!("deployments = [\"{first}\", \"{second}\"]\nretry = {{ first_wait_ms = 20 }}");
        setup = setup
            .and(&deployment(&first, &cell.ill.base_url(&cell.first), &lines))
            .and(&deployment(&second, &format!("{}/v1", cell.second.url()), ""))
            .and(&model(&cell.to_string(), &route))
            .watched(&cell.first)
            .watched(&cell.second);
    }
    TestGateway::with(setup).start()
}

/// A breaker that no failure of these tests opens.
const TOUGH: &str = "breaker = { consecutive_failures = 100, failure_percent = 100, cooldown_ms = 1 }";
/// One that opens after three failures, and is half open after two seconds.
const SOFT: &str =
    "breaker = { consecutive_failures = 3, cooldown_ms = 2000, quota_cooldown_ms = 2000, probes = 2 }";

const fn want(told: Told, first: usize, booked: &'static [(&'static str, &'static str)]) -> Want {
    Want { told, first, booked }
}

/// Asked again, it answers, and the first attempt cost nothing.
const AGAIN: Want = want(Told::By("only"), 2, &[("only", "reported")]);
/// Asked again, it answers, and nobody knows what the first attempt cost.
const AGAIN_DEARLY: Want = want(Told::By("only"), 2, &[("only", "unconfirmed"), ("only", "reported")]);
/// The same of a stream, of which nothing came but what could not be read.
const AGAIN_STREAM: Want = Want { booked: &[("only", "estimated"), ("only", "reported")], ..AGAIN };
/// A stream that breaks off is booked at what came.
const BREAKS: Want = want(Told::BreaksOff("only"), 1, &[("only", "estimated")]);
const UNREACHABLE: Want = want(Told::No(502, "upstream_unreachable"), 0, &[]);
const TOO_LATE: Want = want(Told::No(504, "upstream_timeout"), 1, &[("only", "unconfirmed")]);
/// A stream of which nothing came has made nothing visible: the input is booked.
const TOO_LATE_STREAM: Want = Want { booked: &[("only", "estimated")], ..TOO_LATE };
const NO_QUOTA: Want = want(Told::No(503, "upstream_quota"), 1, &[]);

/// One deployment, which fails once: whole answers, then streams.
const RETRIED: [(Ill, Want, Want); 15] = [
    (Ill::Limited, AGAIN, AGAIN),
    (Ill::LimitedSilently, AGAIN, AGAIN),
    (Ill::OutOfQuota, NO_QUOTA, NO_QUOTA),
    (Ill::Status500, AGAIN, AGAIN),
    (Ill::Status503, AGAIN, AGAIN),
    (Ill::Refuses, REACHED, REACHED),
    (Ill::Nameless, UNREACHABLE, UNREACHABLE),
    (Ill::NoTls, UNREACHABLE, UNREACHABLE),
    (Ill::Mute, TOO_LATE, TOO_LATE_STREAM),
    (Ill::Stalls, TOO_LATE, BREAKS),
    (Ill::Resets, AGAIN_DEARLY, AGAIN_STREAM),
    (Ill::ResetsMidway, AGAIN_DEARLY, BREAKS),
    (Ill::Garbled, AGAIN_DEARLY, AGAIN_STREAM),
    (Ill::Truncated, AGAIN_DEARLY, BREAKS),
    (Ill::Html, AGAIN_DEARLY, AGAIN_DEARLY),
];
/// It begins to listen while it is asked again.
const REACHED: Want = want(Told::By("only"), 1, &[("only", "reported")]);

#[test]
fn one_deployment_that_fails_once_is_asked_again() {
    let cells = Cell::all();
    let gateway = alone(&cells);
    each(&cells, |cell| {
        if let Some(reply) = cell.ill.reply(cell.form, SHORT_WAIT_MS) {
            cell.first.replies(reply);
        }
        let wanted = wanted(&RETRIED, cell);
        let connection = gateway.send(CHAT, &cell.body(&cell.to_string()));
        if cell.ill == Ill::Refuses {
            eventually("a failed attempt", || (errors_of(&gateway, &cell.named("only")) > 0).then_some(()));
            cell.gets_well();
        }
        let answer = connection.opened().finish();
        cell.check_told(&answer, wanted.told);
        assert_eq!(cell.asked_first(), wanted.first, "{cell}");
    });
    let journal = gateway.settled_journal(|_| true);
    for cell in &cells {
        cell.check_booked(&journal, wanted(&RETRIED, cell).booked);
    }
}

/// The second answers, and the first cost nothing.
const FELL_BACK: Want = want(Told::By("second"), 1, &[("second", "reported")]);
/// The same after the first was asked twice.
const FELL_BACK_LATE: Want = Want { first: 2, ..FELL_BACK };
/// The same when nobody was there.
const WENT_ROUND: Want = Want { first: 0, ..FELL_BACK };
/// The second answers, and nobody knows what the first cost.
const FELL_BACK_DEARLY: Want =
    want(Told::By("second"), 1, &[("first", "unconfirmed"), ("second", "reported")]);
/// The same of a stream, of which nothing came but what could not be read.
const FELL_BACK_STREAM: Want =
    Want { booked: &[("first", "estimated"), ("second", "reported")], ..FELL_BACK };
/// What has begun is not begun anew elsewhere.
const BREAKS_FIRST: Want = want(Told::BreaksOff("first"), 1, &[("first", "estimated")]);

/// The first always fails, the second never: whole answers, then streams.
const FALLEN_BACK: [(Ill, Want, Want); 15] = [
    (Ill::Limited, FELL_BACK, FELL_BACK),
    (Ill::LimitedSilently, FELL_BACK, FELL_BACK),
    (Ill::OutOfQuota, FELL_BACK, FELL_BACK),
    (Ill::Status500, FELL_BACK_LATE, FELL_BACK_LATE),
    (Ill::Status503, FELL_BACK_LATE, FELL_BACK_LATE),
    (Ill::Refuses, WENT_ROUND, WENT_ROUND),
    (Ill::Nameless, WENT_ROUND, WENT_ROUND),
    (Ill::NoTls, WENT_ROUND, WENT_ROUND),
    (Ill::Mute, FELL_BACK_DEARLY, FELL_BACK_STREAM),
    (Ill::Stalls, FELL_BACK_DEARLY, BREAKS_FIRST),
    (Ill::Resets, FELL_BACK_DEARLY, FELL_BACK_STREAM),
    (Ill::ResetsMidway, FELL_BACK_DEARLY, BREAKS_FIRST),
    (Ill::Garbled, FELL_BACK_DEARLY, FELL_BACK_STREAM),
    (Ill::Truncated, FELL_BACK_DEARLY, BREAKS_FIRST),
    (Ill::Html, FELL_BACK_DEARLY, FELL_BACK_DEARLY),
];

#[test]
fn a_second_deployment_stands_in_for_one_that_fails() {
    let cells = Cell::all();
    let gateway = in_pairs(&cells, TOUGH);
    each(&cells, |cell| {
        cell.falls_ill();
        let wanted = wanted(&FALLEN_BACK, cell);
        let answer = cell.ask(&gateway);
        cell.check_told(&answer, wanted.told);
        assert_eq!(cell.asked_first(), wanted.first, "{cell}");
        let by_second = usize::from(matches!(wanted.told, Told::By("second")));
        assert_eq!(cell.second.exchanges().len(), by_second, "{cell}");
    });
    let journal = gateway.settled_journal(|_| true);
    for cell in &cells {
        cell.check_booked(&journal, wanted(&FALLEN_BACK, cell).booked);
    }
}

/// How many requests may fail before a breaker is open.
const MOST_FAILURES: usize = 10;
/// How many probes may close it.
const MOST_PROBES: usize = 2;

/// What `tunegate_breaker_state` says.
const CLOSED: u64 = 0;

#[test]
fn a_breaker_opens_and_closes() {
    let cells = Cell::all();
    let gateway = in_pairs(&cells, SOFT);
    each(&cells, |cell| {
        let first = cell.named("first");
        cell.falls_ill();
        let mut opened_at = Instant::now();
        let opened = (1..=MOST_FAILURES).find(|_| {
            opened_at = Instant::now();
            cell.ask(&gateway);
            breaker_of(&gateway, &first) != CLOSED
        });
        assert!(opened.is_some(), "{cell}: not open after {MOST_FAILURES} requests");

        // while it is open nobody goes there
        let (asked, errors) = (cell.asked_first(), errors_of(&gateway, &first));
        for _ in 0..3 {
            let answer = cell.ask(&gateway);
            // on a slow machine it may be over
            if opened_at.elapsed() > Duration::from_millis(1_500) {
                break;
            }
            cell.check_told(&answer, Told::By("second"));
            assert_eq!(
                (cell.asked_first(), errors_of(&gateway, &first)),
                (asked, errors),
                "{cell}: asked while open"
            );
        }
        if !cell.ill.heals() {
            return;
        }

        // it is well again, and few find that out
        cell.gets_well();
        let asked = cell.asked_first();
        eventually("a breaker that is closed", || {
            cell.check_told_by_any(&cell.ask(&gateway));
            (breaker_of(&gateway, &first) == CLOSED).then_some(())
        });
        let probes = cell.asked_first() - asked;
        assert!(probes <= MOST_PROBES, "{cell}: closed by {probes} requests");
        cell.check_told(&cell.ask(&gateway), Told::By("first"));
    });
}

impl Cell {
    /// A whole answer, by whichever.
    #[track_caller]
    fn check_told_by_any(&self, answer: &Answer) {
        let by_first = answer.header("x-tunegate-deployment") == Some(&self.named("first"));
        self.check_told(answer, Told::By(if by_first { "first" } else { "second" }));
    }
}

fn wanted(table: &[(Ill, Want, Want)], cell: &Cell) -> Want {
    let row = table.iter().find(|row| row.0 == cell.ill).expect("a row for each");
    match cell.form {
        Whole => row.1,
        Stream => row.2,
    }
}

fn errors_of(gateway: &TestGateway, deployment: &str) -> u64 {
    metric(gateway, "tunegate_upstream_errors_total", deployment).unwrap_or(0)
}

#[track_caller]
fn breaker_of(gateway: &TestGateway, deployment: &str) -> u64 {
    metric(gateway, "tunegate_breaker_state", deployment)
        .unwrap_or_else(|| panic!("no breaker of {deployment}"))
}
