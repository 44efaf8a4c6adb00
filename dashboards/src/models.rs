//! Fine-tuned models: how fast, how dear, how well, how long yet; each beside its base.

use crate::colours::Steps;
use crate::dashboard::{Dashboard, Row};
use crate::expr::{Over, cost_per_hour, days_to_retirement, net_cost, rates, ratio, sum};
use crate::fine_tuned::{PICKED, Side, against_base, days_left, first_chunk, latency};
use crate::page::{Filter, Link, Page};
use crate::panel::{Panel, words};
use crate::table::{Column, Table};
use crate::unit::Unit;

/// As its base, or worse by half, or worse than twice.
const AGAINST_BASE: Steps = Steps::rising(&[(1.5, "orange"), (2.0, "red")]);
/// The share of answers that came to nothing.
const ERRORS: Steps = Steps::rising(&[(0.005, "orange"), (0.05, "red")]);
/// Days until the model ends.
const DAYS: Steps = Steps::falling(&[(7.0, "orange"), (30.0, "yellow"), (60.0, "green")]);

/// Returns the dashboard.
pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        Page::Models,
        "Each fine-tuned deployment: how fast, how dear, how reliable, how long yet; beside the base model that it \
         was trained from. A figure against the base needs traffic on the base, too.",
        vec![
            Row::new("All fine-tuned deployments, over the time range", vec![table()]),
            Row::new("Against their base", against()),
            Row::new("Over time", over_time()),
            Row::each("$model", "model", one_model()),
        ],
    )
}

fn table() -> Panel {
    let over = Over::Range;
    let columns = vec![
        Column::new("Requests", Unit::Count, 0, Side::Tuned.requests()),
        Column::new("Errors", Unit::Share, 2, Side::Tuned.errors(over)).coloured(ERRORS),
        Column::new("p50", Unit::Seconds, 2, latency(Side::Tuned, over, 0.5)),
        Column::new("p95", Unit::Seconds, 2, latency(Side::Tuned, over, 0.95)),
        Column::new("p99", Unit::Seconds, 2, latency(Side::Tuned, over, 0.99)),
        Column::new("p95 of base", Unit::Times, 2, against_base(|side| latency(side, over, 0.95)))
            .coloured(AGAINST_BASE),
        Column::new("First chunk p95", Unit::Seconds, 2, first_chunk(Side::Tuned, over, 0.95)),
        Column::new("Speed", Unit::TokensPerSecond, 1, Side::Tuned.speed(over)),
        Column::new("$ / 1K tokens", Unit::Usd, 5, Side::Tuned.cost_per_1k(over)),
        Column::new("$ / request", Unit::Usd, 5, Side::Tuned.cost_per_request(over)),
        Column::new("$ of base", Unit::Times, 2, against_base(|side| side.cost_per_1k(over)))
            .coloured(AGAINST_BASE),
        Column::new("Days left", Unit::Days, 0, days_left()).coloured(DAYS),
    ];
    Panel::table(
        words(
            "Fine-tuned deployments",
            "Every figure is of the whole time range. *p95 of base* and *$ of base* are factors: 2 is twice as slow, \
             or twice as dear for 1,000 tokens, as the base model. *Days left*: until the model ends at its provider; \
             no figure where nobody knows. Click a deployment to see it in Routing.",
        ),
        Table::of(&["deployment", "base"], columns)
            .greatest_first("Requests")
            .link("deployment", Link::to(Page::Routing).of_row(Filter::Deployment)),
        Link::to(Page::Spend),
    )
    .empty("")
}

fn against() -> Vec<Panel> {
    let over = Over::Interval;
    vec![
        Panel::graph(
            words(
                "Latency p95 against the base",
                "How many times as long as its base model. Above 1.5 for long: a fine-tune that is served from \
                 slower machines, or writes longer answers; compare the speed.",
            ),
            Unit::Times,
            Link::to(Page::Routing).of_series(Filter::Deployment),
        )
        .query("{{deployment}} / {{base}}", against_base(|side| latency(side, over, 0.95)))
        .steps(AGAINST_BASE),
        Panel::graph(
            words(
                "Cost of 1K tokens against the base",
                "How many times as dear as its base model, for 1,000 tokens read and written. What a fine-tune saves \
                 in prompts it should not lose here.",
            ),
            Unit::Times,
            Link::to(Page::Spend),
        )
        .query("{{deployment}} / {{base}}", against_base(|side| side.cost_per_1k(over)))
        .steps(AGAINST_BASE),
        Panel::graph(
            words(
                "First chunk p95, and of the bases",
                "Streams: from sending to the first chunk. A fine-tune that was not asked for a while is slow at \
                 first: its provider has to load it.",
            ),
            Unit::Seconds,
            Link::to(Page::Routing),
        )
        .query("{{deployment}}", first_chunk(Side::Tuned, over, 0.95))
        .query("base: {{base}}", first_chunk(Side::Base, over, 0.95)),
        Panel::graph(
            words(
                "Speed, and of the bases",
                "Tokens written a second, from sending to the end of the answer. Falling while the first chunk stays: \
                 the provider is busy.",
            ),
            Unit::TokensPerSecond,
            Link::to(Page::Routing),
        )
        .query("{{deployment}}", Side::Tuned.speed(over))
        .query("base: {{base}}", Side::Base.speed(over)),
    ]
}

fn over_time() -> Vec<Panel> {
    let over = Over::Interval;
    vec![
        Panel::graph(
            words(
                "Cost of 1K tokens, and of the bases",
                "Dollars for 1,000 tokens, read and written, without training and hosting. Rising: more is written, \
                 less comes from the provider's cache, or the price changed.",
            ),
            Unit::Usd,
            Link::to(Page::Spend),
        )
        .query("{{deployment}}", Side::Tuned.cost_per_1k(over))
        .query("base: {{base}}", Side::Base.cost_per_1k(over))
        .decimals(5),
        Panel::graph(
            words(
                "Cost of a request, and of the bases",
                "Dollars for an answer. This is where a fine-tune with a short prompt earns its training back.",
            ),
            Unit::Usd,
            Link::to(Page::Spend),
        )
        .query("{{deployment}}", Side::Tuned.cost_per_request(over))
        .query("base: {{base}}", Side::Base.cost_per_request(over))
        .decimals(5),
        Panel::graph(
            words(
                "Errors",
                "Attempts that came to nothing, of all that were sent to the deployment. Above 5 %: see the kind of \
                 the errors in Routing.",
            ),
            Unit::Share,
            Link::to(Page::Routing).of_series(Filter::Deployment),
        )
        .query("{{deployment}}", Side::Tuned.errors(over))
        .decimals(2)
        .steps(ERRORS),
        Panel::bars(
            words(
                "Days to retirement",
                "Days until the model of a deployment ends at its provider, base models included: a fine-tune ends \
                 with its base. Below 60: train the successor.",
            ),
            Unit::Days,
            Link::to(Page::Routing).of_series(Filter::Deployment),
        )
        .query("{{deployment}}", days_to_retirement("deployment=~\"$deployment\""))
        .decimals(0)
        .max(365.0)
        .steps(DAYS)
        .empty("none known")
        .size(12, 9),
    ]
}

/// The panels of one model: a row of its own, repeated.
fn one_model() -> Vec<Panel> {
    let duration = "gen_ai_client_operation_duration_seconds";
    let chunk = "gen_ai_client_operation_time_to_first_chunk_seconds";
    let between = "gen_ai_client_operation_time_per_output_chunk_seconds";
    let well = format!("{PICKED}, error_type=\"\"");
    let quantiles = |panel: Panel, histogram: &str, matchers: &str| {
        [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)].into_iter().fold(panel, |panel, (name, q)| {
            panel.query(
                &format!("{{{{deployment}}}} {name}"),
                Over::Interval.quantile(q, histogram, matchers, "deployment"),
            )
        })
    };
    let usage = sum("deployment", &net_cost(Over::Interval, &format!("{PICKED}, kind=\"usage\"")));
    let tokens =
        rates("tunegate_tokens_total", &format!("{PICKED}, class=~\"prompt|completion\""), "deployment");
    let answers = rates(&format!("{duration}_count"), &well, "deployment");
    let routing = || Link::to(Page::Routing).of_series(Filter::Deployment);
    vec![
        quantiles(
            Panel::graph(
                words(
                    "Latency",
                    "From sending to the end of an answer that went well, by deployment. p99 far above p95: single \
                     slow answers, often long ones.",
                ),
                Unit::Seconds,
                routing(),
            )
            .size(8, 9),
            duration,
            &well,
        ),
        quantiles(
            Panel::graph(
                words("First chunk", "Streams: from sending to the first chunk. What a reader waits for."),
                Unit::Seconds,
                routing(),
            )
            .size(8, 9),
            chunk,
            PICKED,
        ),
        quantiles(
            Panel::graph(
                words(
                    "Between chunks",
                    "Streams: time from one chunk to the next, of each behind the first. Above 0.1 s the text is slower than it \
                     is read.",
                ),
                Unit::Seconds,
                routing(),
            )
            .size(8, 9),
            between,
            PICKED,
        ),
        Panel::stacked(
            words(
                "Tokens by class",
                "Tokens a second. Cached ones are part of the prompt's, reasoning ones of the completion's: so they \
                 are not added up here, but drawn as shares beside it.",
            ),
            Unit::TokensPerSecond,
            routing(),
        )
        .query(
            "{{class}}",
            rates("tunegate_tokens_total", &format!("{PICKED}, class=~\"prompt|completion\""), "class"),
        )
        .size(8, 9),
        Panel::graph(
            words(
                "Cached and reasoning",
                "The share of the prompt that came from the provider's cache (cheap), and of the completion that was \
                 reasoning (paid, not seen).",
            ),
            Unit::Share,
            routing(),
        )
        .query(
            "cached",
            ratio(
                &rates("tunegate_tokens_total", &format!("{PICKED}, class=\"cached\""), ""),
                &rates("tunegate_tokens_total", &format!("{PICKED}, class=\"prompt\""), ""),
            ),
        )
        .query(
            "reasoning",
            ratio(
                &rates("tunegate_tokens_total", &format!("{PICKED}, class=\"reasoning\""), ""),
                &rates("tunegate_tokens_total", &format!("{PICKED}, class=\"completion\""), ""),
            ),
        )
        .size(8, 9),
        Panel::graph(
            words(
                "Errors by type",
                "Attempts that came to nothing, by our code of the error. `client_gone` is nobody's fault: the client \
                 left, or the gateway stopped.",
            ),
            Unit::RequestsPerSecond,
            routing(),
        )
        .query(
            "{{deployment}} {{error_type}}",
            rates(&format!("{duration}_count"), &format!("{PICKED}, error_type!=\"\""), "deployment, error_type"),
        )
        .empty("no errors")
        .size(8, 9),
        Panel::graph(
            words("Cost of 1K tokens", "Dollars for 1,000 tokens, read and written, by deployment."),
            Unit::Usd,
            Link::to(Page::Spend),
        )
        .query("{{deployment}}", format!("1000 * {}", ratio(&usage, &tokens)))
        .decimals(5)
        .size(8, 9),
        Panel::graph(
            words("Cost of a request", "Dollars for an answer that went well, by deployment."),
            Unit::Usd,
            Link::to(Page::Spend),
        )
        .query("{{deployment}}", ratio(&usage, &answers))
        .decimals(5)
        .size(8, 9),
        Panel::stacked(
            words("Cost per hour by team", "Who pays for this model, as dollars an hour."),
            Unit::Usd,
            Link::to(Page::Spend).of_series(Filter::Team),
        )
        .query("{{team}}", cost_per_hour(PICKED, "team"))
        .decimals(4)
        .size(8, 9),
    ]
}
