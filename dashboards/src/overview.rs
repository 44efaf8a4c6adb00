//! Overview: is it well, what does it cost, what needs attention.

use crate::colours::Steps;
use crate::dashboard::{Dashboard, FIRING, Row};
use crate::expr::{
    Over, budget, cost_per_hour, days_to_retirement, failed, fullest, growth, hit_rate, max,
    prompts_per_hour, rates, saved_per_hour, select, shared, spend, sum,
};
use crate::page::{Filter, Link, Page};
use crate::panel::{Panel, words};
use crate::routing::BREAKER;
use crate::table::{Column, Table};
use crate::unit::Unit;

/// Any is too many.
const ANY: Steps = Steps::rising(&[(1.0, "red")]);
/// Any is worth a look, none is an emergency.
const SOME: Steps = Steps::rising(&[(1.0, "orange")]);

/// Returns the dashboard.
pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        Page::Overview,
        "One screen: is the gateway well, what does it cost, what needs attention. Each value leads to the dashboard \
         that says more.",
        vec![
            Row::new("Now", now()),
            Row::new("Needs attention", trouble()),
            Row::new("Budgets and deployments", ahead()),
            Row::new("Traffic", traffic()),
            Row::new("Cost", cost()),
            Row::new("Cache and prompts", words_and_answers()),
        ],
    )
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat(
            words(
                "Firing alerts",
                "Alerts of tunegate that fire now, of all installations that this Prometheus knows. Above 0: open \
                 Alertmanager; each alert links to its section in docs/runbooks.md.",
            ),
            Unit::Count,
            Link::to(Page::Routing),
        )
        .query("firing", format!("count({FIRING}) or vector(0)"))
        .steps(ANY),
        Panel::stat(
            words(
                "Served well",
                "Requests that did not fail by our or a provider's fault. Below 99.5 % the error budget is being \
                 spent faster than planned: see which model fails, and whose fault it is.",
            ),
            Unit::Share,
            Link::to(Page::Routing),
        )
        .query("served", format!("1 - {}", failed(Over::Interval, "", "")))
        .decimals(2)
        .steps(Steps::falling(&[(0.99, "orange"), (0.995, "green")])),
        Panel::stat(
            words(
                "Requests",
                "Requests a second, refused ones included. A sudden fall is clients that cannot reach us, or a \
                 budget that is spent.",
            ),
            Unit::RequestsPerSecond,
            Link::to(Page::Routing),
        )
        .query("requests", rates("tunegate_requests_total", "", "")),
        Panel::stat(
            words(
                "First chunk, p95",
                "Streams: 95 of 100 have their first chunk from the provider within this time. Rising: look which \
                 model it is.",
            ),
            Unit::Seconds,
            Link::to(Page::Models),
        )
        .query(
            "first chunk",
            Over::Interval.quantile(0.95, "gen_ai_client_operation_time_to_first_chunk_seconds", "", ""),
        )
        .steps(Steps::rising(&[(2.5, "orange"), (10.0, "red")])),
        Panel::stat(
            words(
                "Own overhead, p99",
                "What the gateway itself adds to a request. Above 10 ms: the machine is too small, or its disk too \
                 slow for the ledger.",
            ),
            Unit::Seconds,
            Link::to(Page::Routing),
        )
        .query("overhead", Over::Interval.quantile(0.99, "tunegate_overhead_seconds", "", ""))
        .steps(Steps::rising(&[(0.01, "orange"), (0.1, "red")])),
        Panel::stat(
            words(
                "Spent today",
                "What the ledger has for today (UTC), of all gateways of the database. `tunegate spend` says the same.",
            ),
            Unit::Usd,
            Link::to(Page::Spend),
        )
        .query("today", spend("window=\"today\"", ""))
        .decimals(2),
        Panel::stat(
            words(
                "Spent this month",
                "What the ledger has for this month (UTC), of all gateways of the database.",
            ),
            Unit::Usd,
            Link::to(Page::Spend),
        )
        .query("month", spend("window=\"month\"", ""))
        .decimals(2),
        Panel::stat(
            words(
                "Cost per hour",
                "What is spent now, as dollars an hour, corrections taken off. A jump: see which team and model.",
            ),
            Unit::Usd,
            Link::to(Page::Spend),
        )
        .query("per hour", cost_per_hour("", ""))
        .decimals(4),
    ]
}

fn trouble() -> Vec<Panel> {
    let open = shared("tunegate_breaker_state", "", "deployment");
    let entries = shared("tunegate_ledger_unconfirmed_entries", "", "");
    let above = shared("tunegate_budget_counters_above", "percent=\"80\"", "budget");
    vec![
        Panel::stat(
            words(
                "Deployments not asked",
                "Deployments whose breaker is open, half open or cooling down on some gateway. Their requests go to \
                 the next of the plan, or fail. See what they answered.",
            ),
            Unit::Count,
            Link::to(Page::Routing),
        )
        .query("not asked", format!("count({open} > 0) or vector(0)"))
        .steps(SOME),
        Panel::stat(
            words(
                "Budgets above 80 %",
                "Budgets whose spent and held money has reached 80 % of the limit; one for each team, model, key or \
                 user counts once. Raise the limit, or tell the team before requests are refused.",
            ),
            Unit::Count,
            Link::to(Page::Spend),
        )
        .query(
            "budgets",
            format!("count({} >= 0.8) or vector(0)", fullest("", "job, budget")),
        )
        .steps(SOME),
        Panel::stat(
            words(
                "Keys and users above 80 %",
                "Keys and end users that have used 80 % of a budget for each of them. `tunegate spend --by key` \
                 names them.",
            ),
            Unit::Count,
            Link::to(Page::Spend),
        )
        .query("keys and users", sum("", &above))
        .empty("none counted")
        .steps(SOME),
        Panel::stat(
            words(
                "Unpriced requests",
                "Requests in this time range whose price nobody knows: they are in no sum. Add the price to the \
                 table of prices.",
            ),
            Unit::Count,
            Link::to(Page::Spend),
        )
        .query("unpriced", growth("tunegate_unpriced_requests_total", "", ""))
        .decimals(0)
        .steps(ANY),
        Panel::stat(
            words(
                "Unconfirmed entries",
                "Entries of the ledger that stand at an upper bound, because the bill was not seen. \
                 `tunegate ledger unconfirmed` lists them, for you to resolve against the provider's invoice.",
            ),
            Unit::Count,
            Link::to(Page::Spend),
        )
        .query("unconfirmed", sum("", &entries))
        .decimals(0)
        .steps(SOME),
        Panel::stat(
            words(
                "Ledger lag",
                "How long the oldest entry has waited to be written, on the gateway where it is longest. Above a \
                 second the database is slow; above ten, look at it now.",
            ),
            Unit::Seconds,
            Link::to(Page::Routing),
        )
        .query("lag", max("", &select("tunegate_ledger_lag_seconds", "")))
        .steps(Steps::rising(&[(1.0, "orange"), (10.0, "red")])),
        Panel::stat(
            words(
                "Local worker",
                "Whether the gateway's own worker answers. Down: its log says why; the gateway starts it again.",
            ),
            Unit::State,
            Link::to(Page::Worker),
        )
        .query("worker", format!("min({})", select("tunegate_worker_up", "")))
        .mapping(&[("0", "down", "red"), ("1", "up", "green")])
        .empty("none"),
        Panel::stat(
            words(
                "Gateways",
                "Gateways that are scraped, by version. Fewer than you run: one is down or cannot be reached. Two \
                 versions for long: an upgrade that stopped halfway.",
            ),
            Unit::Count,
            Link::to(Page::Routing),
        )
        .query("{{version}}", sum("version", &select("tunegate_build_info", "")))
        .decimals(0)
        .empty("none"),
    ]
}

fn ahead() -> Vec<Panel> {
    vec![
        Panel::bars(
            words(
                "Budgets nearest their end",
                "Spent and held of the limit; of a budget for each key or user, where it is highest. At 100 % its \
                 action follows: requests are refused, or go to a cheaper deployment.",
            ),
            Unit::Share,
            Link::to(Page::Spend).of_series(Filter::Budget),
        )
        .query("{{budget}} {{subject}}", format!("topk(10, {})", fullest("", "budget, subject")))
        .max(1.0)
        .steps(Steps::rising(&[(0.8, "orange"), (0.95, "red")]))
        .empty("no budgets"),
        Panel::bars(
            words(
                "Next retirements",
                "Days until a deployment's model ends at its provider. Below 60: train the successor, and let \
                 traffic go to it through the route.",
            ),
            Unit::Days,
            Link::to(Page::Models).of_series(Filter::Deployment),
        )
        .query("{{deployment}}", format!("bottomk(10, {})", days_to_retirement("")))
        .decimals(0)
        .max(365.0)
        .steps(Steps::falling(&[(7.0, "orange"), (30.0, "yellow"), (60.0, "green")]))
        .empty("none known"),
        Panel::table(
            words(
                "Breakers",
                "The ten deployments that are worst off now. Open: they failed again and again, and nobody asks \
                 them. Cooling down: they said when to come back. Click to see what they answered.",
            ),
            Table::of(
                &["deployment"],
                vec![
                    Column::new(
                        "State",
                        Unit::State,
                        0,
                        format!("topk(10, {})", max("deployment", &select("tunegate_breaker_state", ""))),
                    )
                    .mapped(BREAKER),
                ],
            )
            .greatest_first("State"),
            Link::to(Page::Routing).of_row(Filter::Deployment),
        )
        .size(8, 8)
        .empty("no deployments"),
    ]
}

fn traffic() -> Vec<Panel> {
    vec![
        Panel::stacked(
            words(
                "Requests by ending",
                "How requests ended. Refused is our no: a key, a limit, a budget. Upstream error and broke are a \
                 provider's. See Routing for the codes.",
            ),
            Unit::RequestsPerSecond,
            Link::to(Page::Routing),
        )
        .query("{{ending}}", rates("tunegate_requests_total", "", "ending")),
        Panel::graph(
            words(
                "Request duration",
                "From the first byte at the door to the end of the answer. Compare with the first chunk: long \
                 answers are slow by themselves.",
            ),
            Unit::Seconds,
            Link::to(Page::Models),
        )
        .query("p50", Over::Interval.quantile(0.5, "tunegate_request_duration_seconds", "", ""))
        .query("p95", Over::Interval.quantile(0.95, "tunegate_request_duration_seconds", "", ""))
        .query("p99", Over::Interval.quantile(0.99, "tunegate_request_duration_seconds", "", "")),
        Panel::graph(
            words(
                "First chunk by model, p95",
                "Streams: time from sending to the first chunk. One model alone: its provider. All at once: the \
                 network, or we.",
            ),
            Unit::Seconds,
            Link::to(Page::Models).of_series(Filter::Model),
        )
        .query(
            "{{model}}",
            Over::Interval.quantile(0.95, "gen_ai_client_operation_time_to_first_chunk_seconds", "", "model"),
        ),
        Panel::stacked(
            words(
                "Tokens",
                "Tokens a second, read and written. Prompts that grow without more requests cost money: look for a \
                 client that sends its whole history.",
            ),
            Unit::TokensPerSecond,
            Link::to(Page::Models),
        )
        .query("{{class}}", rates("tunegate_tokens_total", "class=~\"prompt|completion\"", "class")),
    ]
}

fn words_and_answers() -> Vec<Panel> {
    vec![
        Panel::stat(
            words(
                "Served from the cache",
                "Of the requests that the response cache may serve, the share that it did. Fallen by half: something \
                 in the requests has begun to change that does not matter.",
            ),
            Unit::Share,
            Link::to(Page::Cache),
        )
        .query("hit rate", hit_rate(Over::Interval, "", ""))
        .decimals(1)
        .empty("no cache")
        .size(6, 4),
        Panel::stat(
            words("Saved per hour", "What answers from the cache would have cost, as dollars an hour."),
            Unit::Usd,
            Link::to(Page::Cache),
        )
        .query("per hour", saved_per_hour("", ""))
        .decimals(4)
        .size(6, 4),
        Panel::stat(
            words("Cost of prompts per hour", "What stored prompts are of the cost, as dollars an hour."),
            Unit::Usd,
            Link::to(Page::Prompts),
        )
        .query("per hour", prompts_per_hour("", ""))
        .decimals(4)
        .empty("no prompts")
        .size(6, 4),
        Panel::stat(
            words(
                "Mismatched prompts",
                "Requests in this time range with another prompt than a fine-tuned model was trained with: it answers \
                 worse than it could.",
            ),
            Unit::Count,
            Link::to(Page::Prompts),
        )
        .query("mismatched", growth("tunegate_prompt_mismatches_total", "", ""))
        .decimals(0)
        .empty("none is bound")
        .steps(ANY)
        .size(6, 4),
    ]
}

fn cost() -> Vec<Panel> {
    vec![
        Panel::stacked(
            words("Cost per hour by team", "Who spends now. A jump without a release: ask the team."),
            Unit::Usd,
            Link::to(Page::Spend).of_series(Filter::Team),
        )
        .query("{{team}}", cost_per_hour("", "team"))
        .decimals(4),
        Panel::bars(
            words("Spent this month by model", "The ten dearest models of this month, from the ledger."),
            Unit::Usd,
            Link::to(Page::Spend).of_series(Filter::Model),
        )
        .query("{{model}}", format!("topk(10, {})", spend("window=\"month\"", "model")))
        .decimals(2)
        .size(6, 9),
        Panel::bars(
            words(
                "Projected of the limit",
                "Spent at the end of its window, if it goes on as since its start, of each budget's limit. Above \
                 100 % it will not last.",
            ),
            Unit::Share,
            Link::to(Page::Spend).of_series(Filter::Budget),
        )
        .query(
            "{{budget}} {{subject}}",
            format!(
                "topk(10, max by (budget, subject) ({} / ({} > 0)))",
                budget("projected", ""),
                budget("limit", "")
            ),
        )
        .steps(Steps::rising(&[(0.95, "orange"), (1.0, "red")]))
        .size(6, 9)
        .empty("no budgets"),
    ]
}
