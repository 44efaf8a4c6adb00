//! A report for people: Markdown that a pull request or a wiki shows.

use std::fmt::Write as _;

use super::interval::Estimate;
use super::measure::Measure;
use super::report::{ModelReport, NOT_AVAILABLE, Report, Role};

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("# Evaluation {}\n\n", report.evaluation);
    if let Some(file) = &report.file {
        let _ = writeln!(
            text,
            "{} of {} rows of `{}` (SHA-256 `{}`), drawn by seed {}.",
            file.rows, file.of, file.id, file.sha256, report.seed
        );
    }
    if report.general > 0 {
        let _ = writeln!(text, "{} questions of the general set.", report.general);
    }
    let _ = writeln!(text, "All of it cost {} USD. Intervals are of 95 %.\n", report.cost_usd);
    quality(report, &mut text);
    text.push_str(
        "| Model | answered | p50 | p95 | USD per 1,000 | cost, USD |\n|---|--:|--:|--:|--:|--:|\n",
    );
    for model in &report.models {
        let ms = |took: Option<u64>| took.map_or_else(|| "–".to_owned(), |ms| format!("{ms} ms"));
        let _ = writeln!(
            text,
            "| {} | {} of {} | {} | {} | {} | {} |",
            name(model),
            model.asked - model.failed,
            model.asked,
            ms(model.latency.p50_ms),
            ms(model.latency.p95_ms),
            model.usd_per_1000.map_or_else(|| "–".to_owned(), |usd| usd.to_string()),
            model.cost_usd
        );
    }
    compared(report, &mut text);
    gate(report, &mut text);
    for model in report.models.iter().filter(|model| !model.failures.is_empty()) {
        let _ = writeln!(text, "\n{} rows of {} went unanswered:", model.failed, escaped(&model.model));
        for why in &model.failures {
            let _ = writeln!(text, "- {}", escaped(why));
        }
    }
    text
}

fn quality(report: &Report, text: &mut String) {
    let has = |measure: &Measure| report.models.iter().any(|model| model.measures.contains_key(measure));
    let measures: Vec<Measure> = Measure::ALL.into_iter().filter(has).collect();
    let heads: String = measures.iter().map(|measure| format!(" {} |", measure.name())).collect();
    let _ = writeln!(text, "| Model |{heads}\n|---|{}", "--:|".repeat(measures.len()));
    for model in &report.models {
        let cells = measures.iter().map(|measure| format!(" {} |", cell(model.measures.get(measure))));
        let _ = writeln!(text, "| {} |{}", name(model), cells.collect::<String>());
    }
    text.push('\n');
    losses(report, text);
    for model in report.models.iter().filter(|model| !model.general.is_empty()) {
        let languages = model.general.iter().map(|(language, of)| format!("{language} {}", cell(Some(of))));
        let all = languages.collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "General set, {}: {all}\n", escaped(&model.model));
    }
}

fn losses(report: &Report, text: &mut String) {
    for (model, loss) in report.models.iter().filter_map(|model| Some((model, model.loss.as_ref()?))) {
        let model = escaped(&model.model);
        let _ = match (loss.available, &loss.perplexity) {
            (false, _) => writeln!(text, "Loss, {model}: {NOT_AVAILABLE}.\n"),
            (true, perplexity) => {
                let _ = write!(text, "Perplexity, {model}: {}", cell(perplexity.as_ref()));
                if loss.unmeasured > 0 {
                    let why = escaped(&loss.failures.join("; "));
                    let _ = write!(text, "; {} rows could not be measured: {why}", loss.unmeasured);
                }
                writeln!(text, ". Finding it cost {} USD.\n", loss.cost_usd)
            }
        };
    }
}

fn compared(report: &Report, text: &mut String) {
    let Some(base) = report.base().filter(|_| !report.comparisons.is_empty()) else { return };
    let _ = writeln!(
        text,
        "\n## Against {}, row by row\n\n| Model | measure | difference | better | worse |\n|---|---|--:|--:|--:|",
        escaped(&base.model)
    );
    for one in &report.comparisons {
        let of = &one.difference;
        let _ = writeln!(
            text,
            "| {} | {} | {:+.3} ({:+.3} to {:+.3}) | {} | {} |",
            escaped(&one.model),
            one.measure.name(),
            of.value,
            of.low,
            of.high,
            one.better,
            one.worse
        );
    }
}

fn gate(report: &Report, text: &mut String) {
    if report.gate.is_empty() {
        return;
    }
    text.push_str("\n## Gate\n");
    for verdict in &report.gate {
        let word = if verdict.passed { "passes" } else { "does not pass" };
        let _ = writeln!(text, "\n{} {word}.\n", escaped(&verdict.model));
        for rule in &verdict.rules {
            let mark = if rule.passed { "kept" } else { "**not kept**" };
            let _ = writeln!(text, "- `{}`: {mark}, {}", rule.rule, escaped(&rule.words));
        }
    }
}

fn name(model: &ModelReport) -> String {
    let base = if model.role == Role::Base { " (base)" } else { "" };
    format!("{}{base}", escaped(&model.model))
}

fn cell(of: Option<&Estimate>) -> String {
    of.map_or_else(|| "–".to_owned(), |of| format!("{:.3} ({:.3}–{:.3})", of.value, of.low, of.high))
}

/// Words of others as Markdown that is no markup.
fn escaped(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut safe = String::with_capacity(one_line.len());
    for letter in one_line.chars() {
        if matches!(letter, '|' | '*' | '_' | '`' | '<' | '[' | '\\' | '#') {
            safe.push('\\');
        }
        safe.push(letter);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::gate::Gate;
    use super::super::report::tests::{losses, report};
    use super::*;

    #[test]
    fn a_loss_that_nobody_can_tell_is_said_so() {
        let text = markdown(&losses(&[[2.0, 2.0, 2.0], [0.0; 3]], &[true, false]));
        for line in [
            "| Model | exact | loss |",
            "| m1 | 1.000 (0.207–1.000) | – |",
            "Perplexity, m0: 7.389 (7.389–7.389). Finding it cost 0.00003 USD.",
            "Loss, m1: not available at this provider.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn all_figures_stand_in_tables() {
        let mut found = report(8, &[(2, 1)]);
        let gate = Gate::new(vec!["min exact 0.9".parse().expect("a rule")]);
        found.gate.extend(gate.judge(&found, "new-0"));
        found.models[1].failures = vec!["a | b\n<c>".to_owned()];
        let text = markdown(&found);
        for line in [
            "# Evaluation eval_1",
            "| Model | exact |",
            "| old (base) | 0.800 (0.490–0.943) |",
            "| new-0 | 10 of 10 | 20 ms | 20 ms | 0.01 | 0.0001 |",
            "## Against old, row by row",
            "new-0 does not pass.",
            "- `min exact 0.9`: **not kept**, 0.7 (0.396778 to 0.892209, 10 rows)",
            "- a \\| b \\<c>",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
