//! docs/METRICS.md, read: which metrics there are and which labels each has; and whether an expression keeps to it.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector, parse,
};

/// Names of labels.
pub(crate) type Labels = BTreeSet<String>;

/// What the document says of a metric.
#[derive(Debug, PartialEq)]
struct Metric {
    kind: String,
    labels: Labels,
}

/// Every metric of the document.
pub(crate) struct Contract {
    metrics: BTreeMap<String, Metric>,
    /// Names that stand for all that begin so: `process_*`.
    families: BTreeSet<String>,
    /// What recording rules have made of them, with its labels.
    recorded: BTreeMap<String, Labels>,
    /// Labels that Prometheus gives to all that it scrapes.
    scraped: Vec<&'static str>,
}

/// The words in backquotes; what stands in brackets is a label's values.
fn quoted(text: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut outside = String::new();
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => outside.push(c),
            _ => {}
        }
    }
    outside.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// `_spent_usd` behind `tunegate_budget_limit_usd` is `tunegate_budget_spent_usd`.
fn whole_name(first: &str, name: &str) -> String {
    if !name.starts_with('_') {
        return name.to_owned();
    }
    let replaced = name.matches('_').count();
    let mut kept: Vec<&str> = first.split('_').collect();
    kept.truncate(kept.len() - replaced);
    kept.join("_") + name
}

impl Contract {
    /// Reads the document of this repository.
    pub(crate) fn shipped() -> Self {
        Self::read(include_str!("../../docs/METRICS.md"))
    }

    /// Every metric by name, with its type and its labels; those that a star stands for aside.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = (&str, &str, &Labels)> {
        self.metrics.iter().map(|(name, metric)| (name.as_str(), metric.kind.as_str(), &metric.labels))
    }

    /// Whether a metric is in the document, also where only a star stands for it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.metrics.contains_key(name)
            || self.families.iter().any(|family| name.starts_with(family.as_str()))
    }

    /// Reads the tables of a document.
    fn read(text: &str) -> Self {
        let mut contract = Self {
            metrics: BTreeMap::new(),
            families: BTreeSet::new(),
            recorded: BTreeMap::new(),
            scraped: vec!["job", "instance"],
        };
        // labels that a paragraph gives to all of a prefix
        let mut common: Option<(String, Labels)> = None;
        let mut before = Labels::new();
        for paragraph in text.split("\n\n") {
            if let Some(rest) = paragraph.trim_start().strip_prefix("All `") {
                let (prefix, rest) = rest.split_once("*`").expect("a prefix with a star");
                let sentence = rest.split(". ").next().unwrap_or_default();
                common = Some((prefix.to_owned(), quoted(&format!("{sentence}.")).into_iter().collect()));
            }
            for line in paragraph.lines().filter(|line| line.starts_with("| `")) {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let [_, names, kinds, labels, ..] = cells[..] else { panic!("not a row: {line}") };
                let mut own: Labels = quoted(labels).into_iter().collect();
                if let Some(less) = labels.strip_prefix("the same") {
                    let less: Labels = quoted(less).into_iter().collect();
                    own = before.difference(&less).cloned().collect();
                }
                before = own.clone();
                contract.add(&quoted(names), kinds, &own, common.as_ref());
            }
        }
        contract
    }

    fn add(&mut self, names: &[String], kinds: &str, labels: &Labels, common: Option<&(String, Labels)>) {
        let kinds: Vec<&str> = kinds.split(',').map(str::trim).filter(|kind| *kind != "1").collect();
        let first = names.first().expect("a name").clone();
        for (i, name) in names.iter().enumerate() {
            if let Some(family) = name.strip_suffix('*') {
                self.families.insert(family.to_owned());
                continue;
            }
            let name = whole_name(&first, name);
            let mut labels = labels.clone();
            if let Some((prefix, shared)) = common
                && name.starts_with(prefix.as_str())
            {
                labels.extend(shared.iter().cloned());
            }
            let kind = kinds.get(i).or(kinds.first()).copied().unwrap_or_default().to_owned();
            let known = self.metrics.insert(name.clone(), Metric { kind, labels });
            assert!(known.is_none(), "docs/METRICS.md has {name} twice");
        }
    }

    /// Returns the labels of a series, Prometheus' own among them; nothing where no metric is called so.
    fn labels_of(&self, series: &str) -> Option<Labels> {
        let with = |labels: &Labels, more: &[&str]| {
            let own = self.scraped.iter().chain(more).map(|label| (*label).to_owned());
            labels.iter().cloned().chain(own).collect()
        };
        // made by Prometheus of our alerts
        if series == "ALERTS" {
            return Some(with(&Labels::new(), &["alertname", "alertstate", "severity"]));
        }
        if series == "up" {
            return Some(with(&Labels::new(), &[]));
        }
        if let Some(labels) = self.recorded.get(series) {
            return Some(labels.clone());
        }
        if let Some(metric) = self.metrics.get(series).filter(|metric| metric.kind != "histogram") {
            return Some(with(&metric.labels, &[]));
        }
        if self.families.iter().any(|family| series.starts_with(family.as_str())) {
            return Some(with(&Labels::new(), &[]));
        }
        let (name, more): (_, &[&str]) = match series.rsplit_once('_')? {
            (name, "bucket") => (name, &["le"]),
            (name, "sum" | "count") => (name, &[]),
            _ => return None,
        };
        let metric = self.metrics.get(name).filter(|metric| metric.kind == "histogram")?;
        Some(with(&metric.labels, more))
    }

    /// The same where targets have one more label.
    pub(crate) fn scraped_with(mut self, label: &'static str) -> Self {
        self.scraped.push(label);
        self
    }

    /// Takes in what a recording rule makes; from then on it can be asked for.
    pub(crate) fn record(&mut self, name: &str, expr: &str, own: &Labels) -> Result<(), String> {
        let labels = self.check(expr)?.union(own).cloned().collect();
        match self.recorded.insert(name.to_owned(), labels) {
            None => Ok(()),
            Some(_) => Err(format!("{name} is recorded twice")),
        }
    }

    /// Returns the labels that an expression's series have, or what of it is not in the document.
    pub(crate) fn check(&self, expr: &str) -> Result<Labels, String> {
        self.follow(&parse(expr)?)
    }

    fn follow(&self, expr: &Expr) -> Result<Labels, String> {
        match expr {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
            Expr::Paren(paren) => self.follow(&paren.expr),
            Expr::Unary(unary) => self.follow(&unary.expr),
            Expr::Subquery(query) => self.follow(&query.expr),
            Expr::VectorSelector(selector) => self.selected(selector),
            Expr::MatrixSelector(selector) => self.selected(&selector.vs),
            Expr::Aggregate(aggregate) => self.aggregated(aggregate),
            Expr::Call(call) => self.called(call),
            Expr::Binary(binary) => self.joined(binary),
            Expr::Extension(_) => Err("an extension".to_owned()),
        }
    }

    fn selected(&self, selector: &VectorSelector) -> Result<Labels, String> {
        let name = selector.name.as_deref().ok_or("a selector without a name")?;
        let labels = self.labels_of(name).ok_or_else(|| format!("no metric {name} in docs/METRICS.md"))?;
        let Matchers { matchers, .. } = &selector.matchers;
        for matcher in matchers {
            present(&matcher.name, &labels, name)?;
        }
        Ok(labels)
    }

    fn aggregated(&self, aggregate: &AggregateExpr) -> Result<Labels, String> {
        let inner = self.follow(&aggregate.expr)?;
        let kept = match &aggregate.modifier {
            Some(LabelModifier::Include(by)) => {
                for label in &by.labels {
                    present(label, &inner, "what is aggregated")?;
                }
                by.labels.iter().cloned().collect()
            }
            Some(LabelModifier::Exclude(without)) => {
                inner.iter().filter(|label| !without.labels.contains(label)).cloned().collect()
            }
            None => Labels::new(),
        };
        // they choose series and keep them as they are
        let chooses = matches!(aggregate.op.to_string().as_str(), "topk" | "bottomk");
        Ok(if chooses { inner } else { kept })
    }

    fn called(&self, call: &Call) -> Result<Labels, String> {
        let series = call
            .args
            .args
            .iter()
            .find(|arg| matches!(arg.value_type(), ValueType::Vector | ValueType::Matrix));
        let mut labels = series.map_or_else(|| Ok(Labels::new()), |arg| self.follow(arg))?;
        let name = call.func.name;
        if name == "histogram_quantile" && !labels.remove("le") {
            return Err("histogram_quantile of something without `le`".to_owned());
        }
        if matches!(name, "label_replace" | "label_join") {
            return Err(format!("{name}: its labels are not followed here"));
        }
        // nothing is left of the series but whether it is there, or its value
        if matches!(name, "absent" | "absent_over_time" | "scalar") {
            return Ok(Labels::new());
        }
        Ok(labels)
    }

    fn joined(&self, binary: &BinaryExpr) -> Result<Labels, String> {
        let (left, right) = (self.follow(&binary.lhs)?, self.follow(&binary.rhs)?);
        if binary.lhs.value_type() == ValueType::Scalar {
            return Ok(right);
        }
        if binary.rhs.value_type() == ValueType::Scalar {
            return Ok(left);
        }
        match binary.op.to_string().as_str() {
            "or" => return Ok(left.union(&right).cloned().collect()),
            "and" | "unless" => return Ok(left),
            _ => {}
        }
        let Some(modifier) = &binary.modifier else { return alike(left, &right) };
        let matched = match &modifier.matching {
            None => return alike(left, &right),
            Some(LabelModifier::Exclude(_)) => return Err("ignoring(): say on()".to_owned()),
            Some(LabelModifier::Include(on)) => &on.labels,
        };
        for label in matched {
            present(label, &left, "the left side")?;
            present(label, &right, "the right side")?;
        }
        let (mut many, one, more) = match &modifier.card {
            VectorMatchCardinality::ManyToOne(more) => (left, right, more),
            VectorMatchCardinality::OneToMany(more) => (right, left, more),
            _ => return Ok(matched.iter().cloned().collect()),
        };
        for label in &more.labels {
            present(label, &one, "the side with one")?;
            many.insert(label.clone());
        }
        Ok(many)
    }
}

fn present(label: &str, labels: &Labels, place: &str) -> Result<(), String> {
    if labels.contains(label) { Ok(()) } else { Err(format!("no label {label} in {place}: {labels:?}")) }
}

/// Without `on`, both sides must have the same labels, or nothing finds its partner.
fn alike(left: Labels, right: &Labels) -> Result<Labels, String> {
    if left == *right { Ok(left) } else { Err(format!("sides with other labels: {left:?} and {right:?}")) }
}

/// Returns each selector of an expression with the function that it is directly an argument of.
pub(crate) fn selectors(expr: &Expr) -> Vec<Selected<'_>> {
    let mut found = Vec::new();
    gather(expr, "", &mut found);
    found
}

/// A selector, and where it stands.
pub(crate) struct Selected<'a> {
    /// The selector.
    pub(crate) vector: &'a VectorSelector,
    /// The range behind it, in milliseconds.
    pub(crate) range_ms: Option<u128>,
    /// The function whose argument it is.
    pub(crate) function: &'a str,
}

impl Selected<'_> {
    /// Whether it is narrowed by `label=~"value"`.
    pub(crate) fn is_narrowed(&self, label: &str, value: &str) -> bool {
        self.vector.matchers.matchers.iter().any(|matcher| {
            matcher.name == label && matcher.value == value && matches!(matcher.op, MatchOp::Re(_))
        })
    }
}

fn gather<'a>(expr: &'a Expr, function: &'a str, found: &mut Vec<Selected<'a>>) {
    match expr {
        Expr::VectorSelector(vector) => found.push(Selected { vector, range_ms: None, function }),
        Expr::MatrixSelector(matrix) => {
            found.push(Selected { vector: &matrix.vs, range_ms: Some(matrix.range.as_millis()), function });
        }
        Expr::Paren(paren) => gather(&paren.expr, function, found),
        Expr::Unary(unary) => gather(&unary.expr, "", found),
        Expr::Subquery(query) => gather(&query.expr, "", found),
        Expr::Aggregate(aggregate) => {
            gather(&aggregate.expr, "", found);
            if let Some(param) = &aggregate.param {
                gather(param, "", found);
            }
        }
        Expr::Binary(binary) => {
            gather(&binary.lhs, "", found);
            gather(&binary.rhs, "", found);
        }
        Expr::Call(call) => {
            for arg in &call.args.args {
                gather(arg, call.func.name, found);
            }
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

const SAMPLE: &str = "All `up_*` have `model`, and of others `kind` (`a`, `b`), `place`. One\nobservation.\n\n\
    | name | type | further labels | |\n|---|---|---|---|\n\
    | `up_seconds` | histogram | `error` | from `x` to `y` |\n\n\
    | name | type | labels | |\n|---|---|---|---|\n\
    | `t_cost_total` | counter | `team`, `kind` (`c`, `d`) | spent |\n\
    | `t_credit_total` | counter | the same | back |\n\
    | `t_saved_total` | counter | the same, less `kind` | saved |\n\
    | `t_limit_usd`, `_spent_usd` | gauge | `budget` | how it stands |\n\
    | `t_writes_total`, `t_write_seconds` | counter, histogram | | writes |\n\
    | `t_info` | gauge, 1 | `version` | |\n\
    | `process_*` | | | others |\n";

#[test]
fn tables_are_read_with_their_short_forms() {
    let contract = Contract::read(SAMPLE);
    for (series, labels) in [
        ("up_seconds_bucket", Some("error kind le model place")),
        ("up_seconds_count", Some("error kind model place")),
        ("up_seconds", None),
        ("t_cost_total", Some("kind team")),
        ("t_credit_total", Some("kind team")),
        ("t_saved_total", Some("team")),
        ("t_limit_usd", Some("budget")),
        ("t_spent_usd", Some("budget")),
        ("t_writes_total", Some("")),
        ("t_writes_total_bucket", None),
        ("t_write_seconds_sum", Some("")),
        ("t_info", Some("version")),
        ("process_open_fds", Some("")),
        ("t_other", None),
    ] {
        let found = contract.labels_of(series).map(|labels| {
            let own = labels.into_iter().filter(|label| label != "job" && label != "instance");
            own.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(found.as_deref(), labels, "{series}");
    }
}

#[test]
fn an_expression_is_followed_label_by_label() {
    let contract = Contract::read(SAMPLE);
    for (expr, labels) in [
        ("sum by (team) (rate(t_cost_total[5m]))", Ok("team")),
        ("sum(rate(t_cost_total[5m])) / 3", Ok("")),
        ("topk(3, sum by (kind) (t_cost_total))", Ok("kind")),
        ("sum without (job, instance, kind) (t_cost_total)", Ok("team")),
        ("histogram_quantile(0.9, sum by (model, le) (rate(up_seconds_bucket[5m])))", Ok("model")),
        ("sum by (team) (t_cost_total) or sum by (kind) (t_cost_total)", Ok("kind team")),
        (
            "max by (team, kind) (t_cost_total) * on (team) group_left () sum by (team) (t_cost_total)",
            Ok("kind team"),
        ),
        (
            "sum by (team) (t_cost_total) * on (team) group_left (kind) max by (team, kind) (t_cost_total)",
            Ok("kind team"),
        ),
        ("vector(time())", Ok("")),
        ("sum(t_gone_total)", Err("t_gone_total")),
        ("t_cost_total{model=\"x\"}", Err("model")),
        ("sum by (model) (t_cost_total)", Err("model")),
        ("histogram_quantile(0.9, sum by (model) (rate(up_seconds_bucket[5m])))", Err("le")),
        ("sum by (team) (t_cost_total) / sum by (kind) (t_cost_total)", Err("sides")),
        ("sum by (team) (t_cost_total) * on (budget) sum by (budget) (t_limit_usd)", Err("budget")),
        ("sum(", Err("")),
    ] {
        let found = contract.check(expr).map(|labels| labels.into_iter().collect::<Vec<_>>().join(" "));
        match labels {
            Ok(labels) => assert_eq!(found.as_deref(), Ok(labels), "{expr}"),
            Err(about) => {
                assert!(found.as_ref().is_err_and(|said| said.contains(about)), "{expr}: {found:?}");
            }
        }
    }
}
