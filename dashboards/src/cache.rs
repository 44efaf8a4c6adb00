//! The response cache: what it serves and saves, what it keeps, and whether its questions are told apart well.

use crate::colours::Steps;
use crate::dashboard::{Dashboard, Row};
use crate::expr::{FROM_CACHE, Over, growth, hit_rate, net_cost, rates, ratio, saved_per_hour, select, sum};
use crate::page::{Filter, Link, Page};
use crate::panel::{Panel, words};
use crate::table::{Column, Table};
use crate::unit::Unit;

/// What is on the screen, in metrics of the cache.
const MODEL: &str = "model=~\"$model\"";
/// What is on the screen, in metrics of money.
const PICKED: &str = "team=~\"$team\", model=~\"$model\"";
/// Similarities that a threshold may be set to, as the histogram's bounds are written.
const THRESHOLDS: [&str; 5] = ["0.9", "0.92", "0.95", "0.97", "0.99"];
/// How full the memory is; a little above its bound is no trouble yet.
const FULL: Steps = Steps::rising(&[(1.0, "orange"), (1.15, "red")]);
/// Any is worth a look.
const SOME: Steps = Steps::rising(&[(1e-9, "orange")]);
/// Embeddings that come later are not waited for.
const IN_TIME: Steps = Steps::rising(&[(0.03, "orange"), (0.05, "red")]);
/// The share of embeddings that fail or come too late.
const FAILS: Steps = Steps::rising(&[(0.01, "orange"), (0.1, "red")]);

/// Returns the dashboard.
pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        Page::Cache,
        "What the response cache serves and what that saves; what it keeps in how much memory; calls that equal \
         requests share; answers to questions that mean the same.",
        vec![
            Row::new("Now", now()),
            Row::new("Models, over the time range", vec![table()]),
            Row::new("Answers", answers()),
            Row::new("What is kept", kept()),
            Row::new("Calls that are shared", shared_calls()),
            Row::new("Questions that mean the same", semantic()),
        ],
    )
}

/// Requests by what the cache did for them, narrowed to some results.
fn requests(over: Over, results: &str, by: &str) -> String {
    sum(by, &over.rate("tunegate_cache_requests_total", &format!("{MODEL}, {results}")))
}

fn spend() -> Link {
    Link::to(Page::Spend)
}

fn routing() -> Link {
    Link::to(Page::Routing)
}

fn now() -> Vec<Panel> {
    let saved = sum("", &Over::Range.rate("tunegate_saved_usd_total", PICKED));
    let spent = sum("", &net_cost(Over::Range, PICKED));
    let gauge = |name: &str| sum("", &select(name, ""));
    vec![
        Panel::stat(
            words(
                "Hit rate",
                "Of the requests that the cache may serve, the share that it did: kept answers, joined calls and \
                 questions that mean the same. Low with much traffic: see the bypasses, and whether something that \
                 does not matter differs (a date in the prompt).",
            ),
            Unit::Share,
            Link::to(Page::Models),
        )
        .query("served from the cache", hit_rate(Over::Interval, MODEL, ""))
        .decimals(1)
        .empty("no traffic"),
        Panel::stat(
            words("Saved", "What answers from the cache would have cost, in this time range."),
            Unit::Usd,
            spend(),
        )
        .query("saved", growth("tunegate_saved_usd_total", PICKED, ""))
        .decimals(4),
        Panel::stat(
            words("Saved per hour", "What answers from the cache would have cost, as dollars an hour."),
            Unit::Usd,
            spend(),
        )
        .query("per hour", saved_per_hour(PICKED, ""))
        .decimals(4),
        Panel::stat(
            words(
                "Saved of the bill",
                "What the cache saved, of what would have been spent without it, in this time range.",
            ),
            Unit::Share,
            spend(),
        )
        .query("of the bill", ratio(&saved, &format!("({saved} + {spent})")))
        .decimals(1),
        Panel::stat(
            words(
                "Memory",
                "Bytes of kept answers, of their bound (`cache.max_bytes`). Full is how it should be. Far above 100 %: \
                 restart the gateway when you can, and tell us.",
            ),
            Unit::Share,
            routing(),
        )
        .query("memory", ratio(&gauge("tunegate_cache_bytes"), &gauge("tunegate_cache_limit_bytes")))
        .decimals(0)
        .steps(FULL),
        Panel::stat(
            words("Answers", "Answers that are kept, in all gateways on the screen."),
            Unit::Count,
            routing(),
        )
        .query("answers", gauge("tunegate_cache_entries"))
        .decimals(0),
        Panel::stat(
            words(
                "Followers",
                "Requests that share another's call right now: they cost nothing, or their share of one.",
            ),
            Unit::Count,
            routing(),
        )
        .query("followers", gauge("tunegate_cache_followers"))
        .decimals(0),
        Panel::stat(
            words(
                "Shared calls that failed",
                "Calls in this time range that equal requests might have shared, and that failed before their first \
                 byte. The next of the requests asked again. Many: look at the upstream.",
            ),
            Unit::Count,
            routing(),
        )
        .query("failed", growth("tunegate_cache_flights_failed_total", "", ""))
        .decimals(0)
        .steps(SOME),
    ]
}

fn table() -> Panel {
    let count = |title: &'static str, results: &str| {
        let matchers = format!("{MODEL}, {results}");
        Column::new(title, Unit::Count, 0, growth("tunegate_cache_requests_total", &matchers, "model"))
    };
    let columns = vec![
        count("Kept", "result=\"hit\""),
        count("Joined", "result=\"joined\""),
        count("Means the same", "result=\"semantic\""),
        count("Asked", "result=\"miss\""),
        count("Left alone", "result=\"bypass\""),
        Column::new("Hit rate", Unit::Share, 1, hit_rate(Over::Range, MODEL, "model")).gauge(Steps::NONE),
        Column::new("Saved", Unit::Usd, 4, growth("tunegate_saved_usd_total", PICKED, "model")),
    ];
    Panel::table(
        words(
            "Models",
            "How many requests were answered by a kept answer, by joining a call, by the answer to a question that \
             means the same, by asking; and for how many the cache was left alone. A model without a cache has only \
             the last.",
        ),
        Table::of(&["model"], columns)
            .greatest_first("Saved")
            .link("model", Link::to(Page::Cache).of_row(Filter::Model)),
        Link::to(Page::Models),
    )
    .empty("")
}

fn answers() -> Vec<Panel> {
    let one_model = || Link::to(Page::Cache).of_series(Filter::Model);
    vec![
        Panel::stacked(
            words(
                "Requests by result",
                "`hit`: a kept answer. `joined`: the same was being asked. `semantic`: a question that means the \
                 same. `miss`: an upstream was asked. `bypass`: the cache was left alone; see why below.",
            ),
            Unit::RequestsPerSecond,
            Link::to(Page::Models),
        )
        .query("{{result}}", rates("tunegate_cache_requests_total", MODEL, "result")),
        Panel::graph(
            words(
                "Hit rate by model",
                "Of the requests that the cache may serve. A sudden fall: a new prompt or model version (its answers \
                 are new ones), a purge, or a client that began to send something that changes.",
            ),
            Unit::Share,
            one_model(),
        )
        .query("{{model}}", hit_rate(Over::Interval, MODEL, "model"))
        .decimals(1),
        Panel::stacked(
            words(
                "Bypasses by reason",
                "Requests that the cache was left alone for. `off`: the model keeps none. `temperature`: clients do \
                 not send 0, and the route does not say `any_temperature`.",
            ),
            Unit::RequestsPerSecond,
            Link::to(Page::Models),
        )
        .query("{{reason}}", rates("tunegate_cache_bypasses_total", MODEL, "reason")),
        Panel::stacked(
            words(
                "Served from the cache by model",
                "Requests a second that no upstream was asked for: load that your providers' limits do not see.",
            ),
            Unit::RequestsPerSecond,
            one_model(),
        )
        .query("{{model}}", requests(Over::Interval, FROM_CACHE, "model")),
        Panel::stacked(
            words(
                "Saved per hour by model",
                "What answers from the cache would have cost, as dollars an hour.",
            ),
            Unit::Usd,
            one_model(),
        )
        .query("{{model}}", saved_per_hour(PICKED, "model"))
        .decimals(4),
        Panel::stacked(
            words(
                "Saved per hour by team",
                "Whose requests the cache answers. With `scope = \"team\"` no team is served another's answers.",
            ),
            Unit::Usd,
            Link::to(Page::Cache).of_series(Filter::Team),
        )
        .query("{{team}}", saved_per_hour(PICKED, "team"))
        .decimals(4),
    ]
}

fn kept() -> Vec<Panel> {
    let age = "tunegate_cache_age_seconds";
    let by_instance = |name: &str| sum("instance", &select(name, ""));
    vec![
        Panel::graph(
            words(
                "Memory of kept answers",
                "Bytes of kept answers by gateway, and the bound of each. Each gateway keeps its own.",
            ),
            Unit::Bytes,
            routing(),
        )
        .query("{{instance}}", by_instance("tunegate_cache_bytes"))
        .query("bound of {{instance}}", by_instance("tunegate_cache_limit_bytes"))
        .size(8, 9),
        Panel::graph(
            words("Kept answers", "How many answers each gateway keeps. It falls when they expire or are purged."),
            Unit::Count,
            routing(),
        )
        .query("{{instance}}", by_instance("tunegate_cache_entries"))
        .decimals(0)
        .size(8, 9),
        Panel::stacked(
            words(
                "Evictions by cause",
                "Kept answers that went. Mostly `expired` is well. Much `size` while hits are young: the bound is too \
                 small for the traffic.",
            ),
            Unit::PerSecond,
            routing(),
        )
        .query("{{cause}}", rates("tunegate_cache_evictions_total", "", "cause"))
        .size(8, 9),
        Panel::graph(
            words(
                "Age of served answers",
                "How old answers were when they were served. Near the time to live: a longer one would serve more. \
                 Far below it: a shorter one loses little.",
            ),
            Unit::Seconds,
            routing(),
        )
        .query("p50", Over::Interval.quantile(0.5, age, "", ""))
        .query("p90", Over::Interval.quantile(0.9, age, "", ""))
        .query("p99", Over::Interval.quantile(0.99, age, "", "")),
        Panel::stacked(
            words(
                "Answers kept, and why not",
                "`too_large`: above `cache.max_answer_bytes`. `tool_calls`: the route keeps none. `capped`, \
                 `truncated`, `error`: not whole. `denied`: cut by a content filter.",
            ),
            Unit::PerSecond,
            routing(),
        )
        .query("{{result}}", rates("tunegate_cache_stores_total", "", "result")),
    ]
}

fn shared_calls() -> Vec<Panel> {
    vec![
        Panel::graph(
            words(
                "Calls and followers",
                "Upstream calls under way that equal requests may share, and the requests that do. Many followers of \
                 few calls: a crowd asks the same, and pays once.",
            ),
            Unit::Count,
            routing(),
        )
        .query("calls", sum("", &select("tunegate_cache_flights", "")))
        .query("followers", sum("", &select("tunegate_cache_followers", "")))
        .decimals(0),
        Panel::graph(
            words(
                "Joined, and failed",
                "Requests that joined another's call, and calls that failed before their first byte. After a failure \
                 the next one asks for itself; see the upstream's errors.",
            ),
            Unit::RequestsPerSecond,
            routing(),
        )
        .query("joined", requests(Over::Interval, "result=\"joined\"", ""))
        .query("failed calls", rates("tunegate_cache_flights_failed_total", "", "")),
    ]
}

/// Of searches, the share that came to a result.
fn looked(result: &str) -> String {
    let metric = "tunegate_semantic_lookups_total";
    ratio(&rates(metric, &format!("{MODEL}, result=\"{result}\""), "model"), &rates(metric, MODEL, "model"))
}

/// Of searches that found something to compare with, the share that is nearer than a bound.
fn nearer_than(bound: &str) -> String {
    let bucket = format!("{MODEL}, le=\"{bound}\"");
    let below = rates("tunegate_semantic_similarity_bucket", &bucket, "");
    let all = rates("tunegate_semantic_similarity_count", MODEL, "");
    format!("1 - {}", ratio(&below, &all))
}

fn semantic() -> Vec<Panel> {
    let one_model = || Link::to(Page::Cache).of_series(Filter::Model);
    let embedding = "tunegate_semantic_embed_duration_seconds";
    let failed = rates("tunegate_semantic_lookups_total", "result=\"failed\"", "");
    let thresholds = Panel::graph(
        words(
            "What a threshold would serve",
            "Of searches that had something to compare with, the share whose nearest question is at least as similar. \
             Choose a threshold by it, then read in the log of shadow mode what it would have taken for the same.",
        ),
        Unit::Share,
        Link::to(Page::Models),
    );
    vec![
        Panel::stacked(
            words(
                "Searches by result",
                "`served`. `shadow`: would have been served, and was only measured. `below`: not similar enough. \
                 `empty`: nothing to compare with. `failed`: no embedding in time, so the question was simply asked.",
            ),
            Unit::RequestsPerSecond,
            Link::to(Page::Models),
        )
        .query("{{result}}", rates("tunegate_semantic_lookups_total", MODEL, "result")),
        Panel::graph(
            words(
                "Served, and what shadow mode would serve",
                "Of all searches, the share that was served, or would have been. Shadow mode serves nothing: it shows \
                 what `shadow = false` would bring.",
            ),
            Unit::Share,
            one_model(),
        )
        .query("served: {{model}}", looked("served"))
        .query("shadow: {{model}}", looked("shadow"))
        .decimals(1),
        Panel::heatmap(
            words(
                "Similarity",
                "How similar the nearest kept question was. Two clouds with a gap between are well: the threshold \
                 belongs into the gap. One cloud across the threshold: it takes different questions for the same.",
            ),
            Unit::Count,
            Link::to(Page::Models),
        )
        .query("{{le}}", rates("tunegate_semantic_similarity_bucket", MODEL, "le")),
        THRESHOLDS
            .into_iter()
            .fold(thresholds, |panel, bound| panel.query(&format!("≥ {bound}"), nearer_than(bound)))
            .decimals(1),
        Panel::graph(
            words(
                "Time of an embedding",
                "Until the worker had made a vector of a question. Above `cache.embed_timeout_ms` (50 ms) it is not \
                 waited for. Rising: the worker has too much to do.",
            ),
            Unit::Seconds,
            Link::to(Page::Worker),
        )
        .query("p50", Over::Interval.quantile(0.5, embedding, "", ""))
        .query("p99", Over::Interval.quantile(0.99, embedding, "", ""))
        .steps(IN_TIME)
        .size(8, 9),
        Panel::graph(
            words(
                "Embeddings that failed",
                "Of all searches, the share without an embedding in time. The requests themselves are served as \
                 without this cache.",
            ),
            Unit::Share,
            Link::to(Page::Worker),
        )
        .query("failed", ratio(&failed, &rates("tunegate_semantic_lookups_total", "", "")))
        .decimals(1)
        .steps(FAILS)
        .size(8, 9),
        Panel::stacked(
            words(
                "Failures by code",
                "Why no embedding came. `late`: not within its time. `busy`: the worker has too much to do. `away`: it is \
                 down, or starts. `too_long`: the question is longer than its model reads.",
            ),
            Unit::PerSecond,
            Link::to(Page::Worker),
        )
        .query("{{code}}", rates("tunegate_semantic_failures_total", "", "code"))
        .size(4, 9),
        Panel::graph(
            words("Questions kept", "Questions that a new one is compared with, in all gateways on the screen."),
            Unit::Count,
            routing(),
        )
        .query("questions", sum("", &select("tunegate_semantic_entries", "")))
        .decimals(0)
        .size(4, 9),
    ]
}
