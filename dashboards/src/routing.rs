//! Routing and reliability: how requests end, which deployments fail and what is done about it, and the gateway itself.

use crate::ERROR_BUDGET;
use crate::colours::{Mapping, Steps};
use crate::dashboard::{Dashboard, Row};
use crate::expr::{Over, failed, growth, max, rates, select, shared, sum};
use crate::page::{Filter, Link, Page};
use crate::panel::{Panel, words};
use crate::unit::Unit;

/// The states of a breaker, as `tunegate_breaker_state` counts them.
pub(crate) const BREAKER: Mapping = &[
    ("0", "asked", "green"),
    ("1", "half open", "yellow"),
    ("2", "open", "red"),
    ("3", "cooling down", "orange"),
];

/// What is on the screen, in metrics of models.
const MODEL: &str = "model=~\"$model\"";
/// What is on the screen, in metrics of deployments.
const DEPLOYMENT: &str = "deployment=~\"$deployment\"";
/// The rates at which the alerts of the error budget go off.
const BURN: Steps = Steps::rising(&[(1.0, "yellow"), (6.0, "orange"), (14.4, "red")]);

/// Returns the dashboard.
pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        Page::Routing,
        "How requests end and why; which deployments fail, and whether retries, fallbacks and breakers hide it from \
         clients; what the gateway and its ledger cost in time.",
        vec![
            Row::new("Requests", requests()),
            Row::new("Deployments", deployments()),
            Row::new("Upstreams", upstreams()),
            Row::new("The gateway itself", gateway()),
            Row::new("The ledger", ledger()),
        ],
    )
}

fn requests() -> Vec<Panel> {
    let models = || Link::to(Page::Models);
    vec![
        Panel::stat(
            words(
                "Error budget left",
                "Of the failures that 99.5 % allows in this time range, what is left. Below 0 % the objective is \
                 missed: see below which model, and whose fault.",
            ),
            Unit::Share,
            models(),
        )
        .query("left", format!("1 - {} / {ERROR_BUDGET}", failed(Over::Range, MODEL, "")))
        .decimals(1)
        .steps(Steps::falling(&[(0.0, "orange"), (0.5, "green")]))
        .size(6, 9),
        Panel::graph(
            words(
                "Error budget burn",
                "How fast the error budget is spent: at 1 it lasts a month exactly, at 14.4 two days. The lines are \
                 where the alerts go off.",
            ),
            Unit::Times,
            models().of_series(Filter::Model),
        )
        .query("{{model}}", format!("{} / {ERROR_BUDGET}", failed(Over::Interval, MODEL, "model")))
        .decimals(2)
        .steps(BURN)
        .size(9, 9),
        Panel::stacked(
            words(
                "Failures by fault",
                "Requests that failed by no fault of their sender. `gateway` is ours: look at the ledger and the \
                 machine. `upstream`: the providers.",
            ),
            Unit::RequestsPerSecond,
            models(),
        )
        .query("{{fault}}", rates("tunegate_failures_total", MODEL, "fault"))
        .size(9, 9),
        Panel::stacked(
            words(
                "Requests by ending",
                "`refused` is our no. `upstream_error`: nothing came. `upstream_broke`: the answer stopped. \
                 `client_gone`: nobody waited. `interrupted`: we were stopped.",
            ),
            Unit::RequestsPerSecond,
            models(),
        )
        .query("{{ending}}", rates("tunegate_requests_total", MODEL, "ending"))
        .size(8, 9),
        Panel::stacked(
            words(
                "Answers by status",
                "What clients got. 4xx is mostly their affair, 429 often a budget or a limit; 5xx is ours or a \
                 provider's. `0`: they left before one.",
            ),
            Unit::RequestsPerSecond,
            models(),
        )
        .query("{{status}}", rates("tunegate_responses_total", "", "status"))
        .size(8, 9),
        Panel::graph(
            words(
                "Refusals by code",
                "Errors of ours by the code that the client got. The README says what each means. Many \
                 `invalid_api_key`: a client with an old key.",
            ),
            Unit::RequestsPerSecond,
            Link::to(Page::Spend),
        )
        .query("{{code}}", rates("tunegate_refusals_total", "", "code"))
        .size(8, 9),
    ]
}

fn deployments() -> Vec<Panel> {
    let models = || Link::to(Page::Models).of_series(Filter::Deployment);
    vec![
        Panel::timeline(
            words(
                "Breakers",
                "Whether a deployment is asked. Open: it failed again and again. Half open: one probe at a time. \
                 Cooling down: it said when to come back. Worst of all gateways.",
            ),
            BREAKER,
            models(),
        )
        .query("{{deployment}}", max("deployment", &select("tunegate_breaker_state", DEPLOYMENT)))
        .empty("no deployments"),
        Panel::graph(
            words(
                "Errors of deployments by kind",
                "Attempts that came to nothing, also where another try hid it from the client. `auth` or `quota`: \
                 the account, look now. Rate limits: spread the load.",
            ),
            Unit::PerSecond,
            models(),
        )
        .query("{{deployment}} {{kind}}", rates("tunegate_upstream_errors_total", DEPLOYMENT, "deployment, kind")),
        Panel::graph(
            words(
                "Retries and fallbacks",
                "The same deployment asked again, and steps to another one. They keep clients well and cost time: \
                 much of it means that a deployment should go out of the route.",
            ),
            Unit::PerSecond,
            Link::to(Page::Models),
        )
        .query("retry: {{deployment}}", rates("tunegate_retries_total", DEPLOYMENT, "deployment"))
        .query("fallback: {{model}}", rates("tunegate_fallbacks_total", MODEL, "model")),
        Panel::graph(
            words(
                "Shed",
                "Requests that found a deployment and its queue full, or waited too long. Raise its \
                 limit, add a deployment, or let it be: that is what the limit is for.",
            ),
            Unit::RequestsPerSecond,
            models(),
        )
        .query("{{deployment}}", rates("tunegate_sheds_total", DEPLOYMENT, "deployment")),
        Panel::graph(
            words(
                "Under way, and waiting",
                "Requests at each deployment, and in the queue before it. A queue that never empties: its limit is \
                 below the load.",
            ),
            Unit::Count,
            models(),
        )
        .query("{{deployment}}", sum("deployment", &select("tunegate_deployment_in_flight", DEPLOYMENT)))
        .query("{{deployment}} waiting", sum("deployment", &select("tunegate_deployment_waiting", DEPLOYMENT)))
        .decimals(0),
        Panel::stacked(
            words(
                "Attempts by deployment",
                "Where the traffic goes. Compare it with the weights of the route; `tunegate explain` says why a \
                 request went where it did.",
            ),
            Unit::RequestsPerSecond,
            models(),
        )
        .query(
            "{{deployment}}",
            rates(
                "gen_ai_client_operation_duration_seconds_count",
                &format!("{MODEL}, {DEPLOYMENT}"),
                "deployment",
            ),
        ),
    ]
}

fn upstreams() -> Vec<Panel> {
    let duration = "gen_ai_client_operation_duration_seconds";
    vec![
        Panel::heatmap(
            words(
                "How long upstreams take",
                "Attempts by how long they took, good ones and bad ones. Two bands: two kinds of request, or one \
                 deployment much slower than the other.",
            ),
            Unit::Seconds,
            Link::to(Page::Models),
        )
        .query("{{le}}", rates(&format!("{duration}_bucket"), &format!("{MODEL}, {DEPLOYMENT}"), "le")),
        Panel::graph(
            words(
                "Latency by provider, p95",
                "Attempts that went well, by provider and address. All of one address at once: its region has \
                 trouble; its status page says more.",
            ),
            Unit::Seconds,
            Link::to(Page::Models),
        )
        .query(
            "{{gen_ai_provider_name}} {{server_address}}",
            Over::Interval.quantile(
                0.95,
                duration,
                &format!("{MODEL}, {DEPLOYMENT}, error_type=\"\""),
                "gen_ai_provider_name, server_address",
            ),
        ),
        Panel::graph(
            words(
                "Polls of the lists of models",
                "How often providers were asked which models they have, and how it went. Without it no retirement \
                 date is learnt: check the credential.",
            ),
            Unit::PerSecond,
            Link::to(Page::Models),
        )
        .query("{{provider}} {{result}}", rates("tunegate_upstream_polls_total", "", "provider, result"))
        .empty("none"),
        Panel::stacked(
            words(
                "How tokens are known",
                "`reported` by the provider, `estimated` by us, or `unconfirmed`: an upper bound. Much that is not \
                 reported: the provider sends no usage, see Spend.",
            ),
            Unit::TokensPerSecond,
            Link::to(Page::Spend),
        )
        .query(
            "{{source}}",
            rates(
                "tunegate_tokens_total",
                &format!("{MODEL}, {DEPLOYMENT}, class=~\"prompt|completion\""),
                "source",
            ),
        ),
    ]
}

fn gateway() -> Vec<Panel> {
    let overhead = "tunegate_overhead_seconds";
    vec![
        Panel::graph(
            words(
                "Own overhead",
                "What the gateway adds: neither the upstream nor the client nor a queue was waited for. p99 above \
                 10 ms: more cores, or a faster disk for the ledger.",
            ),
            Unit::Seconds,
            Link::to(Page::Overview),
        )
        .query("p50 {{endpoint}}", Over::Interval.quantile(0.5, overhead, "", "endpoint"))
        .query("p99 {{endpoint}}", Over::Interval.quantile(0.99, overhead, "", "endpoint"))
        .steps(Steps::rising(&[(0.01, "orange"), (0.1, "red")])),
        Panel::stacked(
            words(
                "Requests under way",
                "Requests being served, by gateway. Uneven: the balancer before them counts connections, not \
                 requests.",
            ),
            Unit::Count,
            Link::to(Page::Overview),
        )
        .query("{{instance}}", sum("instance", &select("tunegate_in_flight_requests", "")))
        .decimals(0),
        Panel::graph(
            words("Processor", "Cores in use, by gateway. Near all it has: the overhead rises next."),
            Unit::Cores,
            Link::to(Page::Overview),
        )
        .query("{{instance}}", rates("process_cpu_seconds_total", "", "instance"))
        .decimals(2)
        .size(8, 9),
        Panel::graph(
            words("Memory", "Resident memory, by gateway. It follows the requests under way, and falls with them."),
            Unit::Bytes,
            Link::to(Page::Overview),
        )
        .query("{{instance}}", sum("instance", &select("process_resident_memory_bytes", "")))
        .size(8, 9),
        Panel::graph(
            words(
                "Open files",
                "Of those that the process may have: one for each connection, two for each request. Above 80 %: raise \
                 LimitNOFILE.",
            ),
            Unit::Share,
            Link::to(Page::Overview),
        )
        .query(
            "{{instance}}",
            format!(
                "{} / {}",
                sum("instance", &select("process_open_fds", "")),
                sum("instance", &select("process_max_fds", ""))
            ),
        )
        .decimals(1)
        .steps(Steps::rising(&[(0.8, "red")]))
        .size(8, 9),
        Panel::stat(
            words(
                "Reloads",
                "Configurations that were read in this time range. `refused`: the old one is still in force; the log \
                 says every problem.",
            ),
            Unit::Count,
            Link::to(Page::Overview),
        )
        .query("{{result}}", growth("tunegate_config_reloads_total", "", "result"))
        .decimals(0)
        .size(12, 4),
        Panel::stat(
            words(
                "Labels that overflowed",
                "Teams, budgets and prompts in this time range that found no label of their own and share `other`. Raise \
                 `metrics.max_label_values` if you want to tell them apart.",
            ),
            Unit::Count,
            Link::to(Page::Spend),
        )
        .query("{{label}}", growth("tunegate_label_overflows_total", "", "label"))
        .decimals(0)
        .size(12, 4),
    ]
}

fn ledger() -> Vec<Panel> {
    let write = "tunegate_ledger_write_duration_seconds";
    let spend = || Link::to(Page::Spend);
    vec![
        Panel::graph(
            words(
                "Lag, and time of a write",
                "How long the oldest entry waits, and how long a transaction takes. Lag with quick writes: too much \
                 at once. Slow writes: the disk or the database.",
            ),
            Unit::Seconds,
            spend(),
        )
        .query("lag {{instance}}", max("instance", &select("tunegate_ledger_lag_seconds", "")))
        .query("write p50", Over::Interval.quantile(0.5, write, "", ""))
        .query("write p99", Over::Interval.quantile(0.99, write, "", ""))
        .steps(Steps::rising(&[(1.0, "orange"), (10.0, "red")])),
        Panel::graph(
            words(
                "Entries and writes",
                "Entries written, by kind, and transactions. Many entries to a write is good: they are gathered \
                 while the one before is written.",
            ),
            Unit::PerSecond,
            spend(),
        )
        .query("{{kind}}", rates("tunegate_ledger_entries_total", "", "kind"))
        .query("writes", rates("tunegate_ledger_writes_total", "", "")),
        Panel::graph(
            words(
                "Waiting and open",
                "Holds and ends that wait to be written, and holds of requests under way. Open holds without requests \
                 are of a process that died.",
            ),
            Unit::Count,
            spend(),
        )
        .query("{{what}} waiting", sum("what", &select("tunegate_ledger_waiting", "")))
        .query("open holds", sum("", &shared("tunegate_ledger_open_holds", "", "")))
        .decimals(0),
        Panel::graph(
            words(
                "Trouble with the ledger",
                "Conflicts are harmless while few: another gateway wrote first. Failures: nothing could be written, \
                 look now. Orphans are charged whole: resolve them.",
            ),
            Unit::PerSecond,
            spend(),
        )
        .query("conflicts", rates("tunegate_ledger_conflicts_total", "", ""))
        .query("failures", rates("tunegate_ledger_failures_total", "", ""))
        .query("dropped", rates("tunegate_ledger_dropped_total", "", ""))
        .query("orphans", rates("tunegate_ledger_orphans_total", "", "")),
    ]
}
