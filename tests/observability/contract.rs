//! docs/METRICS.md as a test reads it: which metrics there are, of which type, with which labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{self, Expr, LabelModifier, VectorMatchCardinality};

/// Labels that Prometheus adds to what it scrapes; `up` has only these.
const TARGET: [&str; 3] = ["job", "instance", "namespace"];

/// A metric of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Documented {
    pub(super) histogram: bool,
    pub(super) labels: BTreeSet<String>,
}

/// All metrics of the document, by name.
pub(super) struct Contract {
    metrics: BTreeMap<String, Documented>,
}

/// What an expression asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Each name with the labels that it is chosen by.
    pub(super) selected: Vec<(String, BTreeSet<String>)>,
    /// Labels that it is grouped or joined by.
    pub(super) grouped: BTreeSet<String>,
}

impl Contract {
    /// Reads the document.
    pub(super) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::of(&text)
    }

    fn of(text: &str) -> Self {
        let mut metrics = BTreeMap::new();
        // what the words before a table say that all of its rows have
        let mut common: BTreeSet<String> = BTreeSet::new();
        let mut before: BTreeSet<String> = BTreeSet::new();
        let mut columns = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("All `gen_ai_client_*` have ") {
                common = outside_brackets(rest).collect();
            } else if !common.is_empty() && columns.is_empty() && !line.starts_with('|') {
                common.extend(outside_brackets(line).filter(|name| !name.is_empty()));
            }
            let Some(cells) = cells(line) else {
                columns.clear();
                continue;
            };
            let [names, kind, labels, ..] = cells.as_slice() else { continue };
            if names == "name" {
                columns.clone_from(labels);
                continue;
            }
            if names.starts_with("---") {
                continue;
            }
            let mut own: BTreeSet<String> = outside_brackets(labels).collect();
            if let Some(less) = labels.strip_prefix("the same") {
                let less: BTreeSet<String> = outside_brackets(less).collect();
                own = before.difference(&less).cloned().collect();
            } else {
                before.clone_from(&own);
            }
            if columns.starts_with("further") {
                own.extend(common.iter().cloned());
            }
            let histograms: Vec<bool> = kind.split(", ").map(|kind| kind == "histogram").collect();
            for (i, name) in full_names(names).into_iter().enumerate() {
                let histogram = *histograms.get(i).or(histograms.last()).expect("a type");
                metrics.insert(name, Documented { histogram, labels: own.clone() });
            }
        }
        Self { metrics }
    }

    /// What is wrong with an expression: a metric or a label that nobody documents. `recorded` are names of rules.
    pub(super) fn objections(&self, asked: &Asked, recorded: &BTreeSet<String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut known: BTreeSet<&str> = TARGET.into();
        for (name, labels) in &asked.selected {
            if recorded.contains(name) {
                continue;
            }
            let Some(has) = self.labels(name) else {
                wrong.push(format!("docs/METRICS.md has no {name}"));
                continue;
            };
            for label in labels
                .iter()
                .filter(|label| !has.contains(label.as_str()) && !TARGET.contains(&label.as_str()))
            {
                wrong.push(format!("{name} has no label {label}"));
            }
            known.extend(has);
        }
        let only_metrics = asked.selected.iter().all(|(name, _)| !recorded.contains(name));
        for label in asked.grouped.iter().filter(|label| only_metrics && !known.contains(label.as_str())) {
            wrong.push(format!("nothing in it has the label {label}"));
        }
        wrong
    }

    /// The labels of a series' name, also one of a histogram's.
    fn labels(&self, name: &str) -> Option<BTreeSet<&str>> {
        let of = |name: &str| -> Option<BTreeSet<&str>> {
            Some(self.metrics.get(name)?.labels.iter().map(String::as_str).collect())
        };
        if name == "up" || name.starts_with("process_") {
            return Some(BTreeSet::new());
        }
        for (suffix, has_le) in [("_bucket", true), ("_sum", false), ("_count", false)] {
            let base =
                name.strip_suffix(suffix).filter(|base| self.metrics.get(*base).is_some_and(|m| m.histogram));
            if let Some(mut labels) = base.and_then(of) {
                if has_le {
                    labels.insert("le");
                }
                return Some(labels);
            }
        }
        of(name).filter(|_| !self.metrics.get(name).is_some_and(|metric| metric.histogram))
    }
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix("| ").or_else(|| line.strip_prefix('|'))?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// Words in backquotes that stand outside round brackets: within are values.
fn outside_brackets(text: &str) -> impl Iterator<Item = String> + use<> {
    let mut depth = 0_usize;
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    let words: Vec<String> = plain.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    words.into_iter().filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
}

/// Names of a cell; `_spent_usd` behind `tunegate_budget_limit_usd` is the latter with another end.
fn full_names(cell: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for word in cell.split('`').skip(1).step_by(2) {
        let full = match (word.strip_prefix('_'), names.first()) {
            (Some(end), Some(first)) => {
                let parts: Vec<&str> = first.split('_').collect();
                let kept = parts.len().saturating_sub(end.split('_').count());
                format!("{}_{end}", parts[..kept].join("_"))
            }
            _ => word.to_owned(),
        };
        names.push(full);
    }
    names
}

/// Reads an expression.
pub(super) fn asked(expression: &str) -> Result<Asked, String> {
    let mut found = Asked::default();
    walk(&parser::parse(expression)?, &mut found);
    Ok(found)
}

fn walk(expression: &Expr, found: &mut Asked) {
    match expression {
        Expr::Aggregate(inner) => {
            if let Some(LabelModifier::Include(labels)) = &inner.modifier {
                found.grouped.extend(labels.labels.iter().cloned());
            }
            walk(&inner.expr, found);
        }
        Expr::Binary(inner) => {
            if let Some(modifier) = &inner.modifier {
                if let Some(LabelModifier::Include(labels)) = &modifier.matching {
                    found.grouped.extend(labels.labels.iter().cloned());
                }
                if let VectorMatchCardinality::ManyToOne(labels) | VectorMatchCardinality::OneToMany(labels) =
                    &modifier.card
                {
                    found.grouped.extend(labels.labels.iter().cloned());
                }
            }
            walk(&inner.lhs, found);
            walk(&inner.rhs, found);
        }
        Expr::Unary(inner) => walk(&inner.expr, found),
        Expr::Paren(inner) => walk(&inner.expr, found),
        Expr::Subquery(inner) => walk(&inner.expr, found),
        Expr::Call(inner) => inner.args.args.iter().for_each(|argument| walk(argument, found)),
        Expr::VectorSelector(selector) => select(selector.name.as_deref(), &selector.matchers, found),
        Expr::MatrixSelector(selector) => select(selector.vs.name.as_deref(), &selector.vs.matchers, found),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

fn select(name: Option<&str>, matchers: &Matchers, found: &mut Asked) {
    let by_name =
        matchers.matchers.iter().find(|matcher| matcher.name == "__name__" && matcher.op == MatchOp::Equal);
    let name = name.or(by_name.map(|matcher| matcher.value.as_str())).unwrap_or("a selector without a name");
    let labels =
        matchers.matchers.iter().map(|matcher| matcher.name.clone()).filter(|label| label != "__name__");
    found.selected.push((name.to_owned(), labels.collect()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_read_as_it_is_written() {
        let contract = Contract::read();
        for (name, labels) in [
            ("tunegate_requests_total", "ending endpoint model"),
            ("tunegate_budget_left_usd", "budget subject"),
            ("tunegate_budget_reset_timestamp_seconds", "budget"),
            ("tunegate_budget_counters_above", "budget percent"),
            ("tunegate_credit_usd_total", "deployment kind model provider team"),
            ("tunegate_ledger_failures_total", ""),
            ("tunegate_ledger_write_duration_seconds_bucket", "le"),
            ("tunegate_worker_kv_tokens_limit", ""),
            (
                "gen_ai_client_operation_duration_seconds_bucket",
                "deployment error_type gen_ai_operation_name gen_ai_provider_name gen_ai_request_model le model \
                 server_address",
            ),
            (
                "gen_ai_server_time_to_first_token_seconds_count",
                "gen_ai_operation_name gen_ai_provider_name gen_ai_request_model",
            ),
        ] {
            let found = contract.labels(name).unwrap_or_else(|| panic!("{name} is not found"));
            assert_eq!(found.into_iter().collect::<Vec<_>>().join(" "), labels, "{name}");
        }
        for name in ["tunegate_made_up", "tunegate_overhead_seconds", "tunegate_requests_total_bucket"] {
            assert_eq!(contract.labels(name), None, "{name}");
        }
    }

    #[test]
    fn what_nobody_documents_is_found() {
        let contract = Contract::read();
        let recorded = BTreeSet::from(["job:known:max".to_owned()]);
        for (expression, objection) in [
            ("sum by (job, model) (rate(tunegate_requests_total{ending=\"served\"}[5m]))", None),
            ("job:known:max > 3", None),
            ("up == 0", None),
            ("tunegate_request_total", Some("docs/METRICS.md has no tunegate_request_total")),
            (
                "rate(tunegate_requests_total{team=\"a\"}[5m])",
                Some("tunegate_requests_total has no label team"),
            ),
            ("sum by (team) (tunegate_requests_total)", Some("nothing in it has the label team")),
            ("job:unknown:max", Some("docs/METRICS.md has no job:unknown:max")),
            (
                "max_over_time((up == bool tunegate_nothing)[5m:1m])",
                Some("docs/METRICS.md has no tunegate_nothing"),
            ),
        ] {
            let found = contract.objections(&asked(expression).expect("PromQL"), &recorded);
            assert_eq!(found.first().map(String::as_str), objection, "{expression}");
        }
    }
}
