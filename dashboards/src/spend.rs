//! Spend and budgets: what was spent, by whom, on what; how long the money lasts; whether the figures can be trusted.

use crate::colours::Steps;
use crate::dashboard::{Dashboard, Row};
use crate::expr::{
    budget, cost_per_hour, fullest, growth, max, rates, ratio, saved_per_hour, shared, spend, sum, used,
};
use crate::page::{Filter, Link, Page};
use crate::panel::{Panel, words};
use crate::table::{Column, Table};
use crate::unit::Unit;

/// What is on the screen, in the metrics of money.
const PICKED: &str = "team=~\"$team\", model=~\"$model\"";
/// How full a budget is.
const FULL: Steps = Steps::rising(&[(0.8, "orange"), (0.95, "red")]);
/// How much of the limit will be spent at the window's end.
const LASTS: Steps = Steps::rising(&[(0.95, "orange"), (1.0, "red")]);
/// Any is worth a look.
const SOME: Steps = Steps::rising(&[(1e-9, "orange")]);
/// Any is too many.
const ANY: Steps = Steps::rising(&[(1e-9, "red")]);

/// Returns the dashboard.
pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        Page::Spend,
        "What was spent, read from the ledger, of all gateways of a database; what the budgets have left, and how \
         long that lasts; which figures are not a bill yet. Days and months are UTC.",
        vec![
            Row::new("Spent", totals()),
            Row::new("Where it went, in the chosen window", shares()),
            Row::new("Over time", over_time()),
            Row::new("Budgets", budgets()),
            Row::new("Whether the figures can be trusted", trust()),
        ],
    )
}

fn total(title: &'static str, description: &'static str, window: &str) -> Panel {
    let matchers = format!("window=\"{window}\", {PICKED}");
    Panel::stat(words(title, description), Unit::Usd, Link::to(Page::Models))
        .query(title, spend(&matchers, ""))
        .decimals(2)
}

fn totals() -> Vec<Panel> {
    let month = spend(&format!("window=\"month\", {PICKED}"), "");
    // of the first day there is too little to go on
    let elapsed = "clamp_min(day_of_month() - 1 + hour() / 24 + minute() / 1440, 1)";
    vec![
        total("Today", "What the ledger has for today. `tunegate spend` says the same, to the cent.", "today"),
        total("7 days", "What the ledger has for the last seven days, today included.", "7d"),
        total("30 days", "What the ledger has for the last 30 days, today included.", "30d"),
        total("This month", "What the ledger has for this calendar month.", "month"),
        Panel::stat(
            words(
                "Month at this pace",
                "This month's spend, stretched to its end. The first day is taken as whole. Training and hosting are \
                 in it: one dear job on the 2nd makes it too high.",
            ),
            Unit::Usd,
            Link::to(Page::Models),
        )
        .query("projected", format!("{month} / {elapsed} * days_in_month()"))
        .decimals(2),
        Panel::stat(
            words(
                "Cost per hour",
                "What is spent now, as dollars an hour, corrections taken off. Look below for who and on what.",
            ),
            Unit::Usd,
            Link::to(Page::Models),
        )
        .query("per hour", cost_per_hour(PICKED, ""))
        .decimals(4),
        Panel::stat(
            words(
                "Saved by the cache",
                "What answers from the cache would have cost, in this time range. Near nothing with the cache on: \
                 requests differ in something that does not matter.",
            ),
            Unit::Usd,
            Link::to(Page::Cache),
        )
        .query("saved", growth("tunegate_saved_usd_total", PICKED, ""))
        .decimals(4),
        Panel::stat(
            words(
                "Held now",
                "Money held for requests under way, of all processes on the database. High with no traffic: holds \
                 of a process that died; they end by themselves.",
            ),
            Unit::Usd,
            Link::to(Page::Routing),
        )
        .query("held", sum("", &shared("tunegate_ledger_held_usd", "", "")))
        .decimals(4),
    ]
}

fn share(title: &'static str, description: &'static str, by: &str, link: Link) -> Panel {
    let of_window = spend(&format!("window=\"$window\", {PICKED}"), by);
    Panel::bars(words(title, description), Unit::Usd, link)
        .query(&format!("{{{{{by}}}}}"), format!("topk(15, {of_window})"))
        .decimals(2)
}

fn shares() -> Vec<Panel> {
    vec![
        share(
            "By team",
            "Who spent it. `none` is keys without a team, `other` teams beyond the limit of labels. Single keys: \
             `tunegate spend --by key`.",
            "team",
            Link::to(Page::Spend).of_series(Filter::Team),
        ),
        share(
            "By model",
            "On which model. Click one to see what a request and 1,000 tokens of it cost.",
            "model",
            Link::to(Page::Models).of_series(Filter::Model),
        ),
        share(
            "By deployment",
            "Where it was bought. A dear deployment that is only a fallback: see in Routing why it is asked so often.",
            "deployment",
            Link::to(Page::Routing).of_series(Filter::Deployment),
        ),
        share(
            "By provider",
            "Whose invoice it will be on. Compare it with the invoice once a month.",
            "provider",
            Link::to(Page::Routing),
        )
        .size(12, 8),
        share(
            "By kind",
            "Usage, training, hosting. Hosting without usage: a deployment that nobody asks, and that costs by the \
             hour.",
            "kind",
            Link::to(Page::Models),
        )
        .size(12, 8),
    ]
}

fn over_time() -> Vec<Panel> {
    vec![
        Panel::stacked(
            words(
                "Cost per hour by model",
                "What is spent now, as dollars an hour, corrections taken off. A jump without more requests: longer \
                 prompts, or a dearer deployment.",
            ),
            Unit::Usd,
            Link::to(Page::Models).of_series(Filter::Model),
        )
        .query("{{model}}", cost_per_hour(PICKED, "model"))
        .decimals(4),
        Panel::stacked(
            words(
                "Cost per hour by team",
                "Who spends now. Click a team to see only its figures on this dashboard.",
            ),
            Unit::Usd,
            Link::to(Page::Spend).of_series(Filter::Team),
        )
        .query("{{team}}", cost_per_hour(PICKED, "team"))
        .decimals(4),
        Panel::stacked(
            words(
                "Spent today by team",
                "What the ledger has for today: it grows over the day and begins anew at midnight UTC.",
            ),
            Unit::Usd,
            Link::to(Page::Spend).of_series(Filter::Team),
        )
        .query("{{team}}", spend(&format!("window=\"today\", {PICKED}"), "team"))
        .decimals(2),
        Panel::stacked(
            words(
                "Saved per hour by model",
                "What answers from the cache would have cost, as dollars an hour.",
            ),
            Unit::Usd,
            Link::to(Page::Cache).of_series(Filter::Model),
        )
        .query("{{model}}", saved_per_hour(PICKED, "model"))
        .decimals(4),
    ]
}

fn projected() -> String {
    ratio(&budget("projected", CHOSEN), &budget("limit", CHOSEN))
}

/// The budgets that are on the screen.
const CHOSEN: &str = "budget=~\"$budget\"";

/// A figure of whole budgets, for each of their counters.
fn of_each_counter(figure: &str) -> String {
    format!("0 * {} + on (job, budget) group_left () {figure}", budget("limit", CHOSEN))
}

fn budgets() -> Vec<Panel> {
    let reset = shared("tunegate_budget_reset_timestamp_seconds", CHOSEN, "budget");
    let columns = vec![
        Column::new("Limit", Unit::Usd, 2, budget("limit", CHOSEN)),
        Column::new("Spent", Unit::Usd, 4, budget("spent", CHOSEN)),
        Column::new("Held", Unit::Usd, 4, budget("reserved", CHOSEN)),
        Column::new("Left", Unit::Usd, 4, budget("left", CHOSEN)),
        Column::new("Used", Unit::Share, 1, used(CHOSEN)).gauge(FULL),
        Column::new("At its end", Unit::Usd, 2, budget("projected", CHOSEN)),
        Column::new("Of the limit then", Unit::Share, 0, projected()).coloured(LASTS),
        Column::new("Ends in", Unit::Seconds, 1, of_each_counter(&format!("({reset} - time())"))),
    ];
    vec![
        Panel::table(
            words(
                "Budgets",
                "How each budget stands. *Held* is for requests under way. *At its end* is what it will have spent if \
                 it goes on as since its window began; above the limit, requests will be refused before the window \
                 ends: raise the limit, or find who spends. Budgets for each key or user are below.",
            ),
            Table::of(&["budget", "subject"], columns)
                .greatest_first("Used")
                .link("budget", Link::to(Page::Spend).of_row(Filter::Budget)),
            Link::to(Page::Spend),
        )
        .empty(""),
        Panel::graph(
            words(
                "Used of the limit",
                "Spent and held of the limit; of a budget for each key or user, where it is highest. At 100 % its \
                 action follows: requests are refused, or go to a cheaper deployment.",
            ),
            Unit::Share,
            Link::to(Page::Spend).of_series(Filter::Budget),
        )
        .query("{{budget}} {{subject}}", fullest(CHOSEN, "budget, subject"))
        .decimals(1)
        .steps(FULL)
        .empty("no budgets"),
        Panel::graph(
            words(
                "Burn",
                "How fast a budget is spent: 1 lasts to the end of its window exactly, 2 is gone at half of it. Just \
                 after a window began it swings.",
            ),
            Unit::Times,
            Link::to(Page::Spend).of_series(Filter::Budget),
        )
        .query("{{budget}} {{subject}}", format!("max by (budget, subject) ({})", projected()))
        .decimals(2)
        .steps(LASTS)
        .empty("no budgets"),
        Panel::graph(
            words("Left", "What each budget has left, in dollars, after what is held."),
            Unit::Usd,
            Link::to(Page::Spend).of_series(Filter::Budget),
        )
        .query("{{budget}} {{subject}}", format!("min by (budget, subject) ({})", budget("left", CHOSEN)))
        .decimals(2)
        .empty("no budgets"),
        Panel::bars(
            words(
                "Keys and users near their limit",
                "Of budgets for each key or end user: how many have used 80 and 100 %. Who they are is in no metric: \
                 `tunegate spend --by key` and `tunegate budgets` name them.",
            ),
            Unit::Count,
            Link::to(Page::Spend).of_series(Filter::Budget),
        )
        .query("{{budget}}: above {{percent}} %", {
            let above = shared("tunegate_budget_counters_above", CHOSEN, "budget, percent");
            format!("max by (budget, percent) ({above})")
        })
        .query(
            "{{budget}}: all",
            max("budget", &shared("tunegate_budget_counters", CHOSEN, "budget")),
        )
        .decimals(0)
        .size(12, 9)
        .empty("no such budgets"),
    ]
}

fn trust() -> Vec<Panel> {
    let refreshed = shared("tunegate_spend_refreshed_timestamp_seconds", "", "");
    vec![
        Panel::stat(
            words(
                "Unconfirmed",
                "Entries of the ledger at an upper bound, because no bill was seen. `tunegate ledger unconfirmed` \
                 lists them; resolve them against the invoice.",
            ),
            Unit::Count,
            Link::to(Page::Routing),
        )
        .query("entries", sum("", &shared("tunegate_ledger_unconfirmed_entries", "", "")))
        .decimals(0)
        .steps(SOME),
        Panel::stat(
            words(
                "Unconfirmed cost",
                "The part of what was spent in this time range that is an upper bound, not a bill.",
            ),
            Unit::Usd,
            Link::to(Page::Routing),
        )
        .query("unconfirmed", growth("tunegate_unconfirmed_cost_usd_total", "", ""))
        .decimals(4)
        .steps(SOME),
        Panel::stat(
            words(
                "Unpriced",
                "Requests in this time range whose price nobody knows: they are in no sum on this dashboard. Add the \
                 price.",
            ),
            Unit::Count,
            Link::to(Page::Models),
        )
        .query("unpriced", growth("tunegate_unpriced_requests_total", "", ""))
        .decimals(0)
        .steps(ANY),
        Panel::stat(
            words(
                "Overshoots",
                "Bills in this time range that were higher than what was held: a hard budget may have been passed by \
                 as much. See which deployment below.",
            ),
            Unit::Count,
            Link::to(Page::Routing),
        )
        .query("overshoots", growth("tunegate_overshoots_total", "", ""))
        .decimals(0)
        .steps(SOME),
        Panel::stat(
            words("Overshot by", "How much those bills were beyond what was held, in this time range."),
            Unit::Usd,
            Link::to(Page::Routing),
        )
        .query("overshot", growth("tunegate_overshoot_usd_total", "", ""))
        .decimals(4)
        .steps(SOME),
        Panel::stat(
            words(
                "Age of these sums",
                "How long ago the sums were read from the ledger; every 15 s. Above a minute: the database is slow or \
                 away, and the totals stand still.",
            ),
            Unit::Seconds,
            Link::to(Page::Routing),
        )
        .query("age", format!("time() - min({refreshed})"))
        .decimals(0)
        .steps(Steps::rising(&[(60.0, "orange"), (300.0, "red")])),
        Panel::stat(
            words(
                "Thresholds reached",
                "Thresholds of budgets that were reached in this time range, each told once to whom it concerns.",
            ),
            Unit::Count,
            Link::to(Page::Routing),
        )
        .query("{{percent}} %", growth("tunegate_budget_alerts_total", "", "percent"))
        .decimals(0)
        .empty("none"),
        Panel::stat(
            words(
                "Nobody was told",
                "Alerts of budgets in this time range that were dropped, or whose webhook failed. Check its address.",
            ),
            Unit::Count,
            Link::to(Page::Routing),
        )
        .query("dropped", growth("tunegate_alerts_dropped_total", "", ""))
        .query("webhook failed", growth("tunegate_webhook_failures_total", "", ""))
        .decimals(0)
        .steps(ANY),
        Panel::graph(
            words(
                "Unconfirmed cost per hour",
                "Where upper bounds are booked: a deployment that often breaks its streams, or reports no usage.",
            ),
            Unit::Usd,
            Link::to(Page::Routing).of_series(Filter::Deployment),
        )
        .query(
            "{{deployment}}",
            format!("3600 * {}", rates("tunegate_unconfirmed_cost_usd_total", "", "deployment")),
        )
        .decimals(4)
        .size(8, 9),
        Panel::graph(
            words(
                "Unpriced requests",
                "Which deployment has no price. Add it to the table of prices, or refuse such requests in the \
                 configuration.",
            ),
            Unit::RequestsPerSecond,
            Link::to(Page::Models).of_series(Filter::Deployment),
        )
        .query("{{deployment}}", rates("tunegate_unpriced_requests_total", "", "deployment"))
        .size(8, 9),
        Panel::graph(
            words(
                "Overshoot per hour",
                "Which deployment bills more than was held. Its price or its cap of tokens is wrong: correct it.",
            ),
            Unit::Usd,
            Link::to(Page::Routing).of_series(Filter::Deployment),
        )
        .query("{{deployment}}", format!("3600 * {}", rates("tunegate_overshoot_usd_total", "", "deployment")))
        .decimals(4)
        .size(8, 9),
    ]
}
