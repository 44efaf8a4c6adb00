//! Every query of every panel, every rule and every total, in a real Prometheus: a week of history that promtool made,
//! and behind it a live gateway with traffic of every kind.
//!
//! With `TUNEGATE_TEST_PICTURES=FOLDER` it leaves what chosen panels show in FOLDER/panels.json, for
//! `scripts/draw-panels.py`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::boards::{Board, Query, Words, escaped, replaced, shipped, without_increase, words_of};
use super::everything::Everything;
use super::history::{STEP, Week};
use crate::support::exposition::Exposition;
use crate::support::prometheus::{Plan, Prometheus, Series, Span, Target, now_seconds};
use crate::support::wait::within_limit;
use crate::support::{Call, eventually};

/// The job that our own configurations give the gateway.
const JOB: &str = "tunegate";
/// What Grafana sets over the week: its span, and four times the distance of samples at the least.
const WEEK: (&str, &str) = ("6d", "75m");
/// The same over all that was live: the traffic takes minutes on a slow machine.
const LIVE: (&str, &str) = ("10m", "30s");
/// What `increase` may be off.
const INCREASE_TOLERANCE: f64 = 0.02;
/// What a total may be off, USD.
const TOTAL_TOLERANCE: f64 = 0.000_001;

/// Queries that may find nothing, by their panel or annotation, and why.
const MAY_BE_EMPTY: [(&str, &str); 1] = [(
    "annotation Firing alerts",
    "each alert waits for minutes before it fires; promtool's tests make each fire",
)];

/// What one query found.
struct Found {
    board: String,
    panel: String,
    expression: String,
    /// Over the week, and over what was live: series, and points that are numbers; or what Prometheus had against it.
    week: Result<(usize, usize), String>,
    live: Result<(usize, usize), String>,
}

#[test]
fn every_query_of_every_panel_finds_what_it_asks_for() {
    let mut everything = Everything::start();
    everything.traffic();
    let Some(scene) = Scene::set(&everything) else { return };

    let boards = shipped();
    let asked_at = Instant::now();
    let found: Vec<Found> = boards.iter().flat_map(|board| scene.ask_all(board)).collect();
    println!("all asked: {:.1?}", asked_at.elapsed());
    print_table(&found);
    for board in &boards {
        scene.check_single_values(board);
        scene.check_increases(board);
        scene.check_spend(board);
    }
    check_found(&found);
    scene.check_rules();
    scene.check_totals(&everything);
    if let Some(folder) = std::env::var_os("TUNEGATE_TEST_PICTURES") {
        scene.leave_pictures(&boards, Path::new(&folder));
    }
    everything.gateway.is_audited();
    everything.gateway.books_agree();
}

/// A Prometheus with a past and a present.
struct Scene {
    prometheus: Prometheus,
    week: Week,
    live: Span,
    /// What the ledger has, nano-dollars.
    spent: i64,
}

impl Scene {
    /// Makes the past from what the gateway exports now, and lets a second round of traffic be the present.
    #[track_caller]
    fn set(everything: &Everything) -> Option<Self> {
        let exposition = Exposition::read(&everything.exposition());
        let target = Target { job: JOB, address: everything.gateway.admin_address() };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let history = folder.path().join("history");
        let week = Week::just_ended();
        let started = Instant::now();
        let samples = week.write(&exposition, &target, &history);
        println!("{samples} samples of {} series written: {:.1?}", exposition.series(), started.elapsed());
        let lookback_min = 2 * STEP.unsigned_abs() / 60;
        let plan = Plan { targets: vec![target], rules: rules(), history: Some(history), lookback_min };
        let prometheus = Prometheus::start(&plan)?;
        println!("imported, and Prometheus is ready: {:.1?}", started.elapsed());

        let from = now_seconds();
        prometheus.await_scrapes(2);
        everything.traffic();
        let journal = everything.gateway.settled_journal(|journal| !journal.0.is_empty());
        let settled = now_seconds();
        let refreshed = || {
            let read = Exposition::read(&everything.exposition());
            (read.sum("tunegate_spend_refreshed_timestamp_seconds", &[]) > settled).then_some(())
        };
        // read anew every 15 s, and the machine may be busy
        (0..3).find_map(|_| within_limit(refreshed)).expect("the ledger's sums in the metrics");
        prometheus.await_scrapes(2);
        let live = Span { from, until: well_scraped(&prometheus), step: 1.0 };
        Some(Self { prometheus, week, live, spent: journal.spent() })
    }

    fn words(&self, board: &Board, span: Span, (range, rate): (&str, &str)) -> Words {
        words_of(board, &self.prometheus, span, range, rate)
    }

    fn week_words(&self, board: &Board) -> Words {
        self.words(board, self.week.span(), WEEK)
    }

    fn live_words(&self, board: &Board) -> Words {
        self.words(board, self.live, LIVE)
    }

    /// Asks everything that a dashboard asks, of all models, teams and whatever else can be chosen.
    fn ask_all(&self, board: &Board) -> Vec<Found> {
        let (week_words, live_words) = (self.week_words(board), self.live_words(board));
        let ask = |panel: &str, query: &Query| Found {
            board: board.title.clone(),
            panel: panel.to_owned(),
            expression: query.expression.clone(),
            week: self.ask(query, &week_words, self.week.span()).map(|series| size(&series)),
            live: self.ask(query, &live_words, self.live).map(|series| size(&series)),
        };
        let of_panels =
            board.panels.iter().flat_map(|panel| panel.queries.iter().map(|query| ask(&panel.title, query)));
        let of_annotations = board.annotations.iter().map(|(name, expression)| {
            let query = Query { expression: expression.clone(), legend: String::new(), is_instant: false };
            ask(&format!("annotation {name}"), &query)
        });
        of_panels.chain(of_annotations).collect()
    }

    fn ask(&self, query: &Query, words: &Words, span: Span) -> Result<Vec<Series>, String> {
        let expression = replaced(&query.expression, words);
        match query.is_instant {
            true => self.prometheus.query(&expression, span.until),
            false => self.prometheus.query_range(&expression, span),
        }
    }

    /// Each variable set to a value of its own: no query may fail, and none may be for "All" alone.
    #[track_caller]
    fn check_single_values(&self, board: &Board) {
        let span = self.week.span();
        let all = self.week_words(board);
        for variable in &board.variables {
            let Some(values) = variable.values(&self.prometheus, &all, span) else { continue };
            for value in values.iter().take(3) {
                let mut words = all.clone();
                words.insert(variable.name.clone(), escaped(value));
                for query in board.panels.iter().flat_map(|panel| &panel.queries) {
                    let answer = self.prometheus.query(&replaced(&query.expression, &words), span.until);
                    let problem = answer.err();
                    assert_eq!(
                        problem, None,
                        "{} with ${}={value}: {}",
                        board.title, variable.name, query.expression
                    );
                }
            }
        }
    }

    /// What grew by `increase` is what the samples grew by.
    #[track_caller]
    fn check_increases(&self, board: &Board) {
        let words = self.week_words(board);
        let until = self.week.span().until;
        for query in board.panels.iter().flat_map(|panel| &panel.queries) {
            let expression = replaced(&query.expression, &words);
            let Some(truth) = without_increase(&expression) else { continue };
            let value = |expression: &str| {
                let mut found =
                    self.prometheus.query(expression, until).unwrap_or_else(|e| panic!("{expression}: {e}"));
                found.sort_by_key(Series::name);
                found
            };
            let (told, true_ones) = (value(&expression), value(&truth));
            assert_eq!(told.len(), true_ones.len(), "{expression}");
            for (told, truth) in told.iter().zip(&true_ones) {
                let (told_value, true_value) = (told.last(), truth.last());
                let is_near = (told_value - true_value).abs() <= INCREASE_TOLERANCE * true_value.abs();
                let is_nothing = told_value.is_nan() && true_value.is_nan();
                assert!(
                    told.labels == truth.labels && (is_near || is_nothing),
                    "{}{}: {told_value} instead of {true_value}: {expression}",
                    board.title,
                    told.name()
                );
            }
        }
    }

    /// Each panel that adds up the ledger's sums shows the ledger's.
    #[track_caller]
    fn check_spend(&self, board: &Board) {
        let words = self.live_words(board);
        for (panel, query) in
            board.panels.iter().flat_map(|panel| panel.queries.iter().map(move |query| (panel, query)))
        {
            if !is_total(&query.expression) {
                continue;
            }
            let expression = replaced(all_of(&query.expression), &words);
            let found = self
                .prometheus
                .query(&expression, self.live.until)
                .unwrap_or_else(|e| panic!("{expression}: {e}"));
            let shown: f64 = found.iter().map(Series::last).filter(|value| value.is_finite()).sum();
            let owed = dollars(self.spent.into());
            assert!(
                (shown - owed).abs() <= TOTAL_TOLERANCE,
                "{}: {shown} of {owed} USD: {expression}",
                panel.title
            );
        }
    }

    /// Each recording rule has a value; each alert can be evaluated.
    #[track_caller]
    fn check_rules(&self) {
        let rules = eventually("every rule evaluated", || {
            let rules = self.prometheus.rules();
            let is_known = |rule: &Value| rule["health"] != "unknown";
            rules.iter().all(is_known).then_some(rules)
        });
        assert!(!rules.is_empty(), "no rules");
        let mut needy = Vec::new();
        for rule in &rules {
            let name = rule["name"].as_str().unwrap_or_default();
            assert_eq!(rule["health"], "ok", "{name}: {}", rule["lastError"]);
            if rule["type"] == "recording" {
                if needs_a_past(rule, &needy) {
                    needy.push(name);
                    continue;
                }
                let has_value = |at: f64| {
                    let series = self.prometheus.query(name, at).unwrap_or_else(|e| panic!("{name}: {e}"));
                    (!series.is_empty()).then_some(())
                };
                // it may have been evaluated on a scrape that the worker was too slow for
                let value = has_value(self.live.until).or_else(|| within_limit(|| has_value(now_seconds())));
                assert!(value.is_some(), "{name} has no value: {}", rule["query"]);
            }
        }
        println!(
            "{} rules are well; of {} that look back at what rules recorded, no value was asked",
            rules.len(),
            needy.len()
        );
    }

    /// The counters since the process began, the ledger's sums as Prometheus has them, the admin API and the ledger's rows
    /// say the same.
    #[track_caller]
    fn check_totals(&self, everything: &Everything) {
        let exposition = Exposition::read(&everything.exposition());
        let counted = exposition.nanos("tunegate_cost_usd_total", &[])
            - exposition.nanos("tunegate_credit_usd_total", &[]);
        assert_eq!(counted, self.spent.into(), "counters, and the ledger");
        let owed = dollars(self.spent.into());
        let list = everything.gateway.admin(Call::get("/admin/v1/spend?by=model")).expect(200).json();
        let told: f64 =
            list["data"].as_array().expect("rows").iter().filter_map(|row| row["cost_usd"].as_f64()).sum();
        assert!((told - owed).abs() < TOTAL_TOLERANCE, "the admin API has {told} of {owed} USD");
        for window in ["today", "7d", "30d", "month"] {
            let expression = format!("sum(tunegate_spend_usd{{window=\"{window}\"}})");
            let shown = self.prometheus.query(&expression, self.live.until).expect("an answer");
            let shown = shown.first().map_or(f64::NAN, Series::last);
            assert!((shown - owed).abs() <= TOTAL_TOLERANCE, "{window}: {shown} of {owed} USD");
        }
        println!("{owed} USD: counters, gauges, admin API and ledger agree");
    }

    /// Writes down what chosen panels show of the week.
    fn leave_pictures(&self, boards: &[Board], folder: &Path) {
        let pictures: Vec<Value> =
            PICTURES.iter().map(|(board, panel)| self.picture(boards, board, panel)).collect();
        std::fs::create_dir_all(folder).expect("a folder for the pictures");
        std::fs::write(folder.join("panels.json"), json!({ "panels": pictures }).to_string())
            .expect("panels.json");
    }

    #[track_caller]
    fn picture(&self, boards: &[Board], board: &str, title: &str) -> Value {
        let meant = boards.iter().filter(|one| one.title == board);
        let mut panels = meant.flat_map(|board| board.panels.iter().map(move |panel| (board, panel)));
        let found = panels.find(|(_, panel)| panel.title == title);
        let (board, panel) = found.unwrap_or_else(|| panic!("no panel {title} in {board}"));
        let words = self.week_words(board);
        let span = Span { from: self.week.span().until - 2.0 * 86_400.0, step: 1_200.0, ..self.week.span() };
        let mut series = Vec::new();
        for query in &panel.queries {
            let expression = replaced(&query.expression, &words);
            for one in self.prometheus.query_range(&expression, span).expect("an answer") {
                let labels = one.labels.iter().map(|(name, value)| (format!("{{{{{name}}}}}"), value));
                let legend =
                    labels.fold(query.legend.clone(), |text, (name, value)| text.replace(&name, value));
                let points: Vec<_> = one.points.iter().filter(|(_, value)| value.is_finite()).collect();
                series.push(json!({"name": legend, "points": points}));
            }
        }
        json!({"board": board.title, "title": panel.title, "unit": panel.unit, "series": series})
    }
}

/// Panels in the picture of the README: dashboard and title.
const PICTURES: [(&str, &str); 10] = [
    ("tunegate / Spend and budgets", "Cost per hour by team"),
    ("tunegate / Spend and budgets", "Left"),
    ("tunegate / Fine-tuned models", "Latency p95 against the base"),
    ("tunegate / Overview", "Tokens"),
    ("tunegate / Overview", "Requests by ending"),
    ("tunegate / Overview", "First chunk by model, p95"),
    ("tunegate / Routing and reliability", "Own overhead"),
    ("tunegate / Local worker", "Time to first token"),
    ("tunegate / Response cache", "Requests by result"),
    ("tunegate / Prompts", "Cost per hour by prompt"),
];

/// The shipped rule files.
fn rules() -> Vec<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards/rules"));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

/// A moment at which the worker's figures stand: they are gone from one scrape to the next when it was too slow to tell
/// them.
#[track_caller]
fn well_scraped(prometheus: &Prometheus) -> f64 {
    eventually("a scrape with the worker's figures", || {
        let now = now_seconds();
        let up = prometheus.query("tunegate_worker_up == 1", now).expect("an answer");
        (!up.is_empty()).then_some(now)
    })
}

/// How many series an answer has, and how many points that are numbers.
fn size(series: &[Series]) -> (usize, usize) {
    let numbers = series.iter().flat_map(|one| &one.points).filter(|(_, value)| !value.is_nan());
    (series.len(), numbers.count())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 nano-dollars")]
fn dollars(nanos: i128) -> f64 {
    nanos as f64 / 1e9
}

/// What a query shows the greatest of, or all of it.
fn all_of(expression: &str) -> &str {
    let inside = expression.strip_prefix("topk(").and_then(|rest| rest.strip_suffix(')'));
    inside.and_then(|inside| inside.split_once(", ")).map_or(expression, |(_, all)| all)
}

/// Whether a query adds up what the ledger has for one window, and nothing else.
fn is_total(expression: &str) -> bool {
    let parts = expression.matches("tunegate_spend_usd{").count();
    parts == 1 && expression.contains("window=\"") && !expression.contains(['/', '*', '-', '>', '<'])
}

/// Whether a rule looks back at what other rules recorded, or builds on one that does: here they have recorded for
/// seconds. promtool's tests hold their values.
fn needs_a_past(rule: &Value, needy: &[&str]) -> bool {
    let query = rule["query"].as_str().unwrap_or_default();
    let looks_back = query.contains(" offset ") || query.contains('[');
    (query.contains(':') && looks_back) || needy.iter().any(|name| query.contains(name))
}

fn may_be_empty(name: &str) -> Option<&'static str> {
    MAY_BE_EMPTY.iter().find(|(panel, _)| *panel == name).map(|(_, reason)| *reason)
}

fn print_table(found: &[Found]) {
    let told = |outcome: &Result<(usize, usize), String>| match outcome {
        Ok((series, points)) => format!("{series:>4} series {points:>6} points"),
        Err(error) => error.clone(),
    };
    for one in found {
        println!("{:<24} {:<44} week {} · live {}", one.board, one.panel, told(&one.week), told(&one.live));
    }
    println!("{} queries", found.len());
}

#[track_caller]
fn check_found(found: &[Found]) {
    let mut problems = Vec::new();
    for one in found {
        for (when, outcome) in [("the week", &one.week), ("what was live", &one.live)] {
            let place = format!("{}, {}, {when}: {}", one.board, one.panel, one.expression);
            match outcome {
                Err(error) => problems.push(format!("{error}: {place}")),
                Ok((_, 0)) if may_be_empty(&one.panel).is_none() => {
                    problems.push(format!("nothing: {place}"));
                }
                Ok(_) => {}
            }
        }
    }
    assert!(!found.is_empty(), "no dashboard asks for anything");
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
