//! Training jobs: what trains, how it learns, what it costs; the files, the kept traffic, the hosted deployments, the
//! registered models.

use crate::colours::Steps;
use crate::dashboard::{Dashboard, Row};
use crate::expr::{Over, growth, max, rates, ratio, shared, sum};
use crate::page::{Filter, Link, Page};
use crate::panel::{Panel, words};
use crate::table::{Column, Table};
use crate::unit::Unit;

/// What is on the screen, in metrics of providers.
const PICKED: &str = "provider=~\"$provider\"";
/// Statuses of a job that goes on.
const ACTIVE: &str = "status=~\"validating_files|queued|running|pausing|paused\"";
/// Any is too many.
const ANY: Steps = Steps::rising(&[(1e-9, "red")]);
/// A job that has not changed for so many seconds: queues take hours, but not days.
const SILENT: Steps = Steps::rising(&[(3_600.0, "orange"), (21_600.0, "red")]);
/// How full the folder of files is.
const FULL: Steps = Steps::rising(&[(0.8, "orange"), (0.95, "red")]);
/// Seconds that a hosted deployment is not used: a day, and Azure's fifteen less three.
const IDLE: Steps = Steps::rising(&[(86_400.0, "orange"), (1_036_800.0, "red")]);
/// Days until a hosted deployment ends.
const ENDS: Steps = Steps::falling(&[(1.0, "orange"), (7.0, "green")]);

/// Returns the dashboard.
pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        Page::Tuning,
        "Fine-tuning jobs on all providers: which ones go on, how they learn, what they cost and hold; the files they \
         learn from, traffic that is kept to become such files; deployments that cost by the hour; the models that came of it.",
        vec![
            Row::new("Now", now()),
            Row::new("Jobs", jobs()),
            Row::new("How they learn", learning()),
            Row::new("What they cost", cost()),
            Row::new("Files and checks", files()),
            Row::new("Kept traffic", traffic()),
            Row::new("Hosted deployments", hosting()),
            Row::new("Registered models", models()),
            Row::new("Evaluations", evaluations()),
        ],
    )
}

/// Jobs, which all gateways of a database say alike.
fn jobs_by(matchers: &str, by: &str) -> String {
    sum(by, &shared("tunegate_tuning_jobs", &format!("{PICKED}, {matchers}"), "provider, status"))
}

/// A gauge of hosted deployments.
fn hosted(metric: &str) -> String {
    max("deployment", &shared(metric, "", "deployment"))
}

/// A figure of each job whose progress is told.
fn of_job(metric: &str) -> String {
    max("ftjob", &shared(metric, "", "ftjob"))
}

fn spend() -> Link {
    Link::to(Page::Spend)
}

fn routing() -> Link {
    Link::to(Page::Routing)
}

fn one_provider() -> Link {
    Link::to(Page::Tuning).of_series(Filter::Provider)
}

fn one_deployment() -> Link {
    Link::to(Page::Models).of_series(Filter::Deployment)
}

fn now() -> Vec<Panel> {
    let folder = |metric: &str| max("", &shared(metric, "", ""));
    vec![
        Panel::stat(
            words("Jobs that go on", "Fine-tuning jobs that have not ended: `tunegate jobs list` names them."),
            Unit::Count,
            routing(),
        )
        .query("go on", jobs_by(ACTIVE, ""))
        .decimals(0),
        Panel::stat(
            words(
                "Failed",
                "Jobs that failed in this time range. `tunegate jobs show ID` has the provider's words and ours.",
            ),
            Unit::Count,
            routing(),
        )
        .query("failed", growth("tunegate_tuning_jobs_ended_total", &format!("{PICKED}, status=\"failed\""), ""))
        .decimals(0)
        .steps(ANY),
        Panel::stat(
            words(
                "Silent for",
                "How long the job that goes on and is silent for longest has not changed. Hours in a queue are usual, \
                 in training they are not: look at its events.",
            ),
            Unit::Seconds,
            routing(),
        )
        .query("silent", max("", &shared("tunegate_tuning_silent_seconds", PICKED, "provider")))
        .steps(SILENT),
        Panel::stat(
            words("Held", "What is held in budgets for jobs that have not been settled."),
            Unit::Usd,
            spend(),
        )
        .query("held", sum("", &shared("tunegate_tuning_held_usd", PICKED, "provider")))
        .decimals(2),
        Panel::stat(
            words("Cost of training", "What jobs have cost, in this time range."),
            Unit::Usd,
            spend(),
        )
        .query("training", growth("tunegate_tuning_cost_usd_total", PICKED, ""))
        .decimals(2),
        Panel::stat(
            words(
                "Hosting per hour",
                "What the hosted deployments cost each hour, used or not: `tunegate hosting` names the idle ones.",
            ),
            Unit::Usd,
            spend(),
        )
        .query("per hour", sum("", &hosted("tunegate_hosting_usd_per_hour")))
        .decimals(2)
        .empty("none is hosted"),
        Panel::stat(
            words(
                "Folder of files",
                "How much of `tuning.max_folder_bytes` is taken. Full: uploads are refused. Delete files, or give more \
                 room.",
            ),
            Unit::Share,
            routing(),
        )
        .query(
            "taken",
            ratio(&folder("tunegate_tuning_file_bytes"), &folder("tunegate_tuning_file_limit_bytes")),
        )
        .decimals(1)
        .steps(FULL),
        Panel::stat(
            words("In production", "Registered models that serve a route: `tunegate models list`."),
            Unit::Count,
            Link::to(Page::Models),
        )
        .query("models", sum("", &shared("tunegate_registered_models", "stage=\"production\"", "stage")))
        .decimals(0),
    ]
}

fn jobs() -> Vec<Panel> {
    let duration = "tunegate_tuning_job_duration_seconds";
    vec![
        Panel::stacked(
            words(
                "Jobs by status",
                "Those that go on. Many that wait in `validating_files`: their files are still being checked, here or \
                 at the provider.",
            ),
            Unit::Count,
            routing(),
        )
        .query("{{status}}", jobs_by(ACTIVE, "status"))
        .decimals(0),
        Panel::stacked(
            words(
                "Ended per hour",
                "Jobs that ended, by how. Failures with one provider alone: its words are in the jobs' events.",
            ),
            Unit::Count,
            one_provider(),
        )
        .query(
            "{{provider}} {{status}}",
            format!("3600 * {}", rates("tunegate_tuning_jobs_ended_total", PICKED, "provider, status")),
        ),
        Panel::graph(
            words(
                "Duration",
                "From a job's creation to its end: the middle one, and the one that nine of ten stay below.",
            ),
            Unit::Seconds,
            one_provider(),
        )
        .query("{{provider}} p50", Over::Interval.quantile(0.5, duration, PICKED, "provider"))
        .query("{{provider}} p90", Over::Interval.quantile(0.9, duration, PICKED, "provider"))
        .empty("none has ended"),
        Panel::graph(
            words(
                "Silent for, by provider",
                "Since the job that goes on and is silent for longest has changed. Straight up for hours: the provider \
                 has stalled, or does not answer; see the polls.",
            ),
            Unit::Seconds,
            one_provider(),
        )
        .query(
            "{{provider}}",
            max("provider", &shared("tunegate_tuning_silent_seconds", PICKED, "provider")),
        )
        .steps(SILENT),
        Panel::stacked(
            words(
                "Polls by result",
                "Questions how a job stands. `unreachable`, `refused`: its hold stays until the provider answers again; \
                 see to the network and the credential.",
            ),
            Unit::PerSecond,
            one_provider(),
        )
        .query("{{provider}} {{result}}", rates("tunegate_tuning_polls_total", PICKED, "provider, result")),
    ]
}

fn learning() -> Vec<Panel> {
    let step = of_job("tunegate_tuning_job_step");
    vec![
        Panel::graph(
            words(
                "Loss on training data",
                "The last twenty jobs at the most, until an hour after their end. It should fall and level off; one that \
                 jumps about wants a smaller learning rate.",
            ),
            Unit::Count,
            routing(),
        )
        .query("{{ftjob}}", of_job("tunegate_tuning_job_train_loss"))
        .decimals(3)
        .empty("no job tells"),
        Panel::graph(
            words(
                "Loss on validation data",
                "Of jobs that have a validation file. Rising while the other falls: it learns by heart; fewer epochs, or \
                 an earlier checkpoint (`tunegate jobs show ID`).",
            ),
            Unit::Count,
            routing(),
        )
        .query("{{ftjob}}", of_job("tunegate_tuning_job_valid_loss"))
        .decimals(3)
        .empty("no job tells"),
        Panel::graph(
            words(
                "Token accuracy",
                "Share of training tokens that were foretold. At 100 % soon: the data repeats itself, or is learned by \
                 heart.",
            ),
            Unit::Share,
            routing(),
        )
        .query("{{ftjob}}", of_job("tunegate_tuning_job_token_accuracy"))
        .decimals(1)
        .empty("no job tells"),
        Panel::graph(
            words("Progress", "Steps of a job that are done, of all that it has."),
            Unit::Share,
            routing(),
        )
        .query("{{ftjob}}", ratio(&step, &of_job("tunegate_tuning_job_steps")))
        .decimals(0)
        .max(1.0)
        .empty("no job tells"),
        Panel::table(
            words(
                "Jobs whose progress is told",
                "Whose each is and what it trains. A click on the provider shows its jobs alone.",
            ),
            Table::of(
                &["ftjob", "provider", "base"],
                vec![Column::new(
                    "Told",
                    Unit::Count,
                    0,
                    max(
                        "ftjob, provider, base",
                        &shared("tunegate_tuning_job_info", PICKED, "ftjob, provider, base"),
                    ),
                )],
            )
            .link("provider", Link::to(Page::Tuning).of_row(Filter::Provider)),
            routing(),
        )
        .empty(""),
    ]
}

fn cost() -> Vec<Panel> {
    vec![
        Panel::stacked(
            words(
                "Cost of training per hour",
                "What settled jobs cost, as dollars an hour: each is booked at once, at its end. Hourly prices are \
                 booked as they run.",
            ),
            Unit::Usd,
            spend(),
        )
        .query(
            "{{provider}}",
            format!("3600 * {}", rates("tunegate_tuning_cost_usd_total", PICKED, "provider")),
        )
        .decimals(2),
        Panel::stacked(
            words(
                "Held by provider",
                "What is held for jobs that have not been settled. Held for long after a job's end: see its events, and \
                 the ledger's alerts.",
            ),
            Unit::Usd,
            spend(),
        )
        .query("{{provider}}", sum("provider", &shared("tunegate_tuning_held_usd", PICKED, "provider")))
        .decimals(2),
        Panel::stacked(
            words("Trained tokens", "Tokens that are billed, as jobs end; those of each epoch count."),
            Unit::TokensPerSecond,
            one_provider(),
        )
        .query("{{provider}}", rates("tunegate_tuning_trained_tokens_total", PICKED, "provider")),
    ]
}

fn files() -> Vec<Panel> {
    let check = "tunegate_dataset_check_duration_seconds";
    let folder = |metric: &str| max("", &shared(metric, "", ""));
    vec![
        Panel::stacked(
            words(
                "Files by status",
                "`error`: the check found what a provider would refuse; `tunegate files show ID` says what, line by \
                 line.",
            ),
            Unit::Count,
            routing(),
        )
        .query("{{status}}", sum("status", &shared("tunegate_tuning_files", "", "status")))
        .decimals(0),
        Panel::graph(
            words("Room for files", "Bytes of all files, and how many there may be (`tuning.max_folder_bytes`)."),
            Unit::Bytes,
            routing(),
        )
        .query("files", folder("tunegate_tuning_file_bytes"))
        .query("bound", folder("tunegate_tuning_file_limit_bytes")),
        Panel::stacked(
            words("Checks by result", "Data sets that were checked, uploads and those of operators."),
            Unit::PerSecond,
            routing(),
        )
        .query("{{result}}", rates("tunegate_dataset_checks_total", "", "result")),
        Panel::graph(
            words(
                "Time of a check",
                "Until a data set was checked: the middle one, and the one that nine of ten stay below. A job on a file \
                 waits for it.",
            ),
            Unit::Seconds,
            routing(),
        )
        .query("p50", Over::Interval.quantile(0.5, check, "", ""))
        .query("p90", Over::Interval.quantile(0.9, check, "", ""))
        .empty("none was checked"),
    ]
}

fn traffic() -> Vec<Panel> {
    let kept = |metric: &str| max("model", &shared(metric, "", "model"));
    let one_model = || Link::to(Page::Models).of_series(Filter::Model);
    vec![
        Panel::stacked(
            words(
                "Answers drawn, by result",
                "What became of answers that a model's `capture` has drawn. `dropped` and `failed`: the database does not \
                 keep up, and the requests were served all the same; docs/DISTIL.md has the others.",
            ),
            Unit::PerSecond,
            Link::to(Page::Models),
        )
        .query("{{result}}", rates("tunegate_captures_total", "", "result"))
        .empty("no traffic is kept"),
        Panel::graph(
            words(
                "Kept exchanges by model",
                "What `tunegate dataset from-traffic` can make a file of. It ends at `max_rows`, and shrinks as \
                 `retention_days` are over.",
            ),
            Unit::Count,
            one_model(),
        )
        .query("{{model}}", kept("tunegate_captured_rows"))
        .decimals(0)
        .empty("no traffic is kept"),
        Panel::graph(
            words("Room for kept exchanges", "Bytes of what is kept, in the gateway's database."),
            Unit::Bytes,
            one_model(),
        )
        .query("{{model}}", kept("tunegate_captured_bytes"))
        .empty("no traffic is kept"),
        Panel::stacked(
            words(
                "Feedback by rating",
                "What people said about answers, of traffic that is not kept, too. Many downs after a move: look at the \
                 route's candidate.",
            ),
            Unit::PerSecond,
            Link::to(Page::Models),
        )
        .query("{{rating}}", rates("tunegate_feedback_total", "", "rating")),
    ]
}

fn hosting() -> Vec<Panel> {
    let per_hour = hosted("tunegate_hosting_usd_per_hour");
    let idle = hosted("tunegate_hosted_idle_seconds");
    vec![
        Panel::table(
            words(
                "Hosted deployments",
                "What each costs, used or not, and for how long nobody has used it. Azure deletes what was not used for \
                 15 days. `tunegate models undeploy` ends one; the model stays.",
            ),
            Table::of(
                &["deployment"],
                vec![
                    Column::new("$ / hour", Unit::Usd, 2, per_hour.clone()),
                    Column::new("$ / 30 days", Unit::Usd, 0, format!("720 * {per_hour}")),
                    Column::new("Idle for", Unit::Seconds, 0, idle.clone()).coloured(IDLE),
                    Column::new("Idle, $", Unit::Usd, 2, format!("{per_hour} * {idle} / 3600")),
                ],
            )
            .greatest_first("Idle, $")
            .link("deployment", Link::to(Page::Models).of_row(Filter::Deployment)),
            spend(),
        )
        .empty(""),
        Panel::stacked(
            words("Hosting per hour by deployment", "What the deployments that stand cost each hour."),
            Unit::Usd,
            one_deployment(),
        )
        .query("{{deployment}}", per_hour)
        .decimals(2)
        .empty("none is hosted"),
        Panel::graph(
            words(
                "Idle for, by deployment",
                "Since it was used last. It costs all the same: undeploy it, or let `tuning.undeploy_idle` do it.",
            ),
            Unit::Seconds,
            one_deployment(),
        )
        .query("{{deployment}}", idle)
        .steps(IDLE)
        .empty("none is hosted"),
        Panel::bars(
            words(
                "Days to its end",
                "Until a hosted deployment ends by itself: a developer tier's after 24 hours, others as configured. Deploy \
                 the next before that.",
            ),
            Unit::Days,
            one_deployment(),
        )
        .query(
            "{{deployment}}",
            format!("({} - time()) / 86400", hosted("tunegate_hosted_ends_timestamp_seconds")),
        )
        .decimals(1)
        .steps(ENDS)
        .empty("none ends by itself"),
        Panel::stacked(
            words(
                "Hosting cost per hour, as booked",
                "What the ledger books for hours, as dollars an hour. A gap and then a peak: it was caught up after a \
                 downtime.",
            ),
            Unit::Usd,
            spend(),
        )
        .query(
            "{{deployment}}",
            format!("3600 * {}", rates("tunegate_hosting_cost_usd_total", PICKED, "deployment")),
        )
        .decimals(2)
        .empty("none is hosted"),
        Panel::stacked(
            words(
                "Readings of the list of deployments",
                "With credentials of Azure's resource manager its list is read every ten minutes: it starts and stops the \
                 clock. `failed`: see the log for why.",
            ),
            Unit::PerSecond,
            one_provider(),
        )
        .query("{{provider}} {{result}}", rates("tunegate_hosting_reads_total", PICKED, "provider, result"))
        .empty("none is read"),
    ]
}

fn models() -> Vec<Panel> {
    vec![
        Panel::stacked(
            words(
                "Models by stage",
                "What jobs have made: candidate, canary, production, retired. `tunegate models promote` moves one on, \
                 `rollback` back.",
            ),
            Unit::Count,
            Link::to(Page::Models),
        )
        .query("{{stage}}", sum("stage", &shared("tunegate_registered_models", "", "stage")))
        .decimals(0),
        Panel::stacked(
            words(
                "Moves per hour",
                "Models that were moved, by the stage that they came to: `tunegate models history` says by whom.",
            ),
            Unit::Count,
            Link::to(Page::Models),
        )
        .query("{{to}}", format!("3600 * {}", rates("tunegate_model_moves_total", "", "to"))),
    ]
}

fn evaluations() -> Vec<Panel> {
    vec![
        Panel::graph(
            words(
                "Evaluations that wait or run",
                "One is asked after the other, by one gateway of all that share a database: `tunegate evaluations list`.",
            ),
            Unit::Count,
            Link::to(Page::Models),
        )
        .query("{{status}}", sum("status", &shared("tunegate_evaluations", "", "status")))
        .decimals(0),
        Panel::stacked(
            words(
                "Evaluations per hour, by their end",
                "`failed`: it could not go on, as for lack of money; `tunegate evaluations show` says why.",
            ),
            Unit::Count,
            Link::to(Page::Models),
        )
        .query("{{result}}", format!("3600 * {}", rates("tunegate_evaluations_total", "", "result"))),
        Panel::stacked(
            words(
                "Questions of evaluations",
                "Questions that models were asked. `failed`: no answer came, which counts as a wrong one.",
            ),
            Unit::PerSecond,
            Link::to(Page::Models),
        )
        .query("{{result}}", rates("tunegate_evaluation_answers_total", "", "result")),
        Panel::stacked(
            words(
                "Gates per hour",
                "Models that evaluations held against a gate, and promotions onto routes that have one. `forced`: past the \
                 gate, as the audit log tells.",
            ),
            Unit::Count,
            Link::to(Page::Models),
        )
        .query("evaluated: {{verdict}}", format!("3600 * {}", rates("tunegate_evaluation_gates_total", "", "verdict")))
        .query("promotion: {{result}}", format!("3600 * {}", rates("tunegate_gated_promotions_total", "", "result"))),
    ]
}
