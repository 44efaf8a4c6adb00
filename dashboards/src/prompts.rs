//! Stored prompts: what is put into requests, what that costs, and whether it is what the models were trained with.

use crate::colours::Steps;
use crate::dashboard::{Dashboard, Row};
use crate::expr::{Over, growth, net_cost, prompts_per_hour, rates, ratio, shared, sum};
use crate::page::{Filter, Link, Page};
use crate::panel::{Panel, words};
use crate::table::{Column, Table};
use crate::unit::Unit;

/// What is on the screen, in metrics of prompts.
const PICKED: &str = "prompt=~\"$prompt\", model=~\"$model\", deployment=~\"$deployment\"";
/// What is on the screen, in metrics of models.
const PAIRS: &str = "model=~\"$model\", deployment=~\"$deployment\"";
/// The share of requests with another prompt than a model was trained with.
const MISMATCHED: Steps = Steps::rising(&[(0.001, "orange"), (0.01, "red")]);
/// Any is too many.
const ANY: Steps = Steps::rising(&[(1e-9, "red")]);

/// Returns the dashboard.
pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        Page::Prompts,
        "Stored prompts: how much of what the models read is put in here, what it costs, which versions their labels \
         point at, and whether a fine-tuned model gets the prompt it was trained with.",
        vec![
            Row::new("Now", now()),
            Row::new("Prompts, over the time range", vec![table()]),
            Row::new("What they cost", cost()),
            Row::new("What the models read", tokens()),
            Row::new("Whether it is the right one", fidelity()),
        ],
    )
}

/// Of the requests that were sent to a deployment, the share with another prompt than it was trained with.
fn mismatched(by: &str) -> String {
    let sent = rates("gen_ai_client_operation_duration_seconds_count", PAIRS, by);
    ratio(&rates("tunegate_prompt_mismatches_total", PAIRS, by), &sent)
}

/// Of the tokens that deployments read, the share that was put in.
fn share_of_input(by: &str) -> String {
    let read = rates("tunegate_tokens_total", &format!("class=\"prompt\", {PAIRS}"), by);
    ratio(&rates("tunegate_prompt_tokens_total", PICKED, by), &read)
}

/// Tokens that are put into a request, on average.
fn tokens_a_request(over: Over, by: &str) -> String {
    let of = |metric: &str| sum(by, &over.rate(metric, PICKED));
    ratio(&of("tunegate_prompt_tokens_total"), &of("tunegate_prompt_requests_total"))
}

fn models() -> Link {
    Link::to(Page::Models)
}

fn one_prompt() -> Link {
    Link::to(Page::Prompts).of_series(Filter::Prompt)
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat(
            words("Requests", "Requests a second that are sent with a stored prompt; those of fallbacks count, too."),
            Unit::RequestsPerSecond,
            models(),
        )
        .query("requests", rates("tunegate_prompt_requests_total", PICKED, "")),
        Panel::stat(
            words("Tokens put in", "Tokens a second of stored prompts: your applications do not send them."),
            Unit::TokensPerSecond,
            models(),
        )
        .query("tokens", rates("tunegate_prompt_tokens_total", PICKED, "")),
        Panel::stat(
            words(
                "Of a request",
                "Tokens that are put into a request, on average. A jump: a label moved to a longer version.",
            ),
            Unit::Tokens,
            models(),
        )
        .query("tokens", tokens_a_request(Over::Interval, ""))
        .decimals(0),
        Panel::stat(
            words(
                "Of the input",
                "Of all tokens that the models read, the share that was put in. Near 100 %: a shorter prompt, or one \
                 that the fine-tuning has made needless, saves most of the bill for input.",
            ),
            Unit::Share,
            models(),
        )
        .query("of the input", share_of_input(""))
        .decimals(1),
        Panel::stat(
            words(
                "Cost",
                "What stored prompts were of the cost, in this time range. `tunegate prompts cost NAME` says it by day, \
                 and what another version would have cost.",
            ),
            Unit::Usd,
            Link::to(Page::Spend),
        )
        .query("cost", growth("tunegate_prompt_cost_usd_total", PICKED, ""))
        .decimals(4),
        Panel::stat(
            words("Cost per hour", "What stored prompts are of the cost now, as dollars an hour."),
            Unit::Usd,
            Link::to(Page::Spend),
        )
        .query("per hour", prompts_per_hour(PICKED, ""))
        .decimals(4),
        Panel::stat(
            words(
                "Of the bill",
                "What stored prompts are of what is spent on usage, in this time range.",
            ),
            Unit::Share,
            Link::to(Page::Spend),
        )
        .query(
            "of the bill",
            ratio(
                &sum("", &Over::Range.rate("tunegate_prompt_cost_usd_total", PICKED)),
                &sum("", &net_cost(Over::Range, &format!("kind=\"usage\", {PAIRS}"))),
            ),
        )
        .decimals(1),
        Panel::stat(
            words(
                "Mismatched",
                "Requests in this time range whose prompt is another than the deployment's model was trained with. \
                 Above 0: it answers worse than it could. See which deployment below.",
            ),
            Unit::Count,
            models(),
        )
        .query("mismatched", growth("tunegate_prompt_mismatches_total", PAIRS, ""))
        .decimals(0)
        .steps(ANY)
        .empty("none is bound"),
    ]
}

fn table() -> Panel {
    let by = "prompt, deployment";
    let grown = |metric: &str| growth(metric, PICKED, by);
    let columns = vec![
        Column::new("Requests", Unit::Count, 0, grown("tunegate_prompt_requests_total")),
        Column::new("Tokens", Unit::Count, 0, grown("tunegate_prompt_tokens_total")),
        Column::new("Tokens / request", Unit::Count, 0, tokens_a_request(Over::Range, by)),
        Column::new("Cost", Unit::Usd, 4, grown("tunegate_prompt_cost_usd_total")),
        Column::new(
            "$ / 1,000 requests",
            Unit::Usd,
            4,
            format!(
                "1000 * {}",
                ratio(&grown("tunegate_prompt_cost_usd_total"), &grown("tunegate_prompt_requests_total"))
            ),
        ),
    ];
    Panel::table(
        words(
            "Prompts by deployment",
            "What each prompt is on each deployment, over the time range: the same words are dearer on a dearer model, \
             and cheaper where the provider's own cache has them.",
        ),
        Table::of(&["prompt", "deployment"], columns)
            .greatest_first("Cost")
            .link("prompt", Link::to(Page::Prompts).of_row(Filter::Prompt))
            .link("deployment", Link::to(Page::Models).of_row(Filter::Deployment)),
        models(),
    )
    .empty("")
}

fn cost() -> Vec<Panel> {
    vec![
        Panel::stacked(
            words(
                "Cost per hour by prompt",
                "What each prompt is of the cost, as dollars an hour. The dearest is worth shortening first: \
                 `tunegate prompts cost NAME` recounts it with another version.",
            ),
            Unit::Usd,
            one_prompt(),
        )
        .query("{{prompt}}", prompts_per_hour(PICKED, "prompt"))
        .decimals(4),
        Panel::stacked(
            words(
                "Cost per hour by deployment",
                "Where the prompts are read. Prompts that cost most on a fallback: see in Routing why it is asked.",
            ),
            Unit::Usd,
            Link::to(Page::Routing).of_series(Filter::Deployment),
        )
        .query("{{deployment}}", prompts_per_hour(PICKED, "deployment"))
        .decimals(4),
    ]
}

fn tokens() -> Vec<Panel> {
    let class =
        |name: &str| rates("tunegate_tokens_total", &format!("class=\"{name}\", {PAIRS}"), "deployment");
    vec![
        Panel::stacked(
            words("Tokens put in by prompt", "Tokens a second of each stored prompt."),
            Unit::TokensPerSecond,
            one_prompt(),
        )
        .query("{{prompt}}", rates("tunegate_prompt_tokens_total", PICKED, "prompt")),
        Panel::graph(
            words(
                "Tokens of a request by prompt",
                "Mean of what is put in. A step: a label moved to a version that is longer or shorter. A slope: a \
                 variable that holds more and more.",
            ),
            Unit::Tokens,
            one_prompt(),
        )
        .query("{{prompt}}", tokens_a_request(Over::Interval, "prompt"))
        .decimals(0),
        Panel::graph(
            words(
                "Share of the input that is put in",
                "Of the tokens that each deployment reads. High on a fine-tuned model: it may know by now what the \
                 prompt says; train it with a shorter one.",
            ),
            Unit::Share,
            Link::to(Page::Models).of_series(Filter::Deployment),
        )
        .query("{{deployment}}", share_of_input("deployment"))
        .decimals(1),
        Panel::graph(
            words(
                "Share of the input that the provider had cached",
                "Stored prompts stand first, so that the provider's own cache finds them; what it has costs less. Near \
                 0 with long prompts: a variable at the beginning makes each request's different.",
            ),
            Unit::Share,
            Link::to(Page::Models).of_series(Filter::Deployment),
        )
        .query("{{deployment}}", ratio(&class("cached"), &class("prompt")))
        .decimals(1),
    ]
}

fn fidelity() -> Vec<Panel> {
    vec![
        Panel::graph(
            words(
                "Mismatched requests",
                "Of the requests that were sent to a deployment, the share with another prompt than `trained_with` \
                 says. Move the label back, or bind the deployment to what it was trained with.",
            ),
            Unit::Share,
            Link::to(Page::Models).of_series(Filter::Deployment),
        )
        .query("{{model}} → {{deployment}}", mismatched("model, deployment"))
        .decimals(2)
        .steps(MISMATCHED)
        .empty("none is bound"),
        Panel::graph(
            words(
                "Versions that labels point at",
                "The number of the version behind each label. A step is a label that was moved: `tunegate prompts \
                 history NAME` says by whom, `tunegate prompts label` moves it back.",
            ),
            Unit::Count,
            one_prompt(),
        )
        .query(
            "{{prompt}}@{{label}}",
            format!(
                "max by (prompt, label) ({})",
                shared("tunegate_prompt_label_version", "prompt=~\"$prompt\"", "prompt, label")
            ),
        )
        .decimals(0)
        .empty("no prompts"),
    ]
}
