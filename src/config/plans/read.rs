//! From what is written to a draft.

use serde_json::Value;

use super::table::{Table, texts};
use super::{Choice, Draft, Kind, condition};
use crate::config::problem::{Checker, Place};
use crate::domain::route::{
    CHEAPEST_PROBES, Ceiling, Condition, FASTEST_PROBES, MAX_DEPTH, Measure, Ramp, StickyBy,
};

/// The kinds of plans: the key that says which, and what may stand beside it.
pub(super) const KINDS: [(&str, &[&str]); 6] = [
    ("ordered", &[]),
    ("weighted", &["sticky"]),
    ("cheapest", &["min_quality", "max_first_token_ms", "max_latency_ms", "probe_percent"]),
    ("fastest", &["by", "min_quality", "probe_percent"]),
    ("pool", &[]),
    ("when", &["otherwise"]),
];
/// What may stand in a choice of `weighted`.
pub(super) const CHOICE_KEYS: [&str; 3] = ["share", "to", "ramp"];
/// What may stand in `ramp`.
pub(super) const RAMP_KEYS: [&str; 3] = ["to", "from", "until"];
/// What may stand in a case of `when`.
pub(super) const CASE_KEYS: [&str; 2] = ["if", "to"];
/// What `by` may say.
pub(super) const MEASURES: [(&str, Measure); 3] = [
    ("whole", Measure::Whole),
    ("first_token", Measure::FirstToken),
    ("tokens_per_second", Measure::TokensPerSecond),
];
/// The largest share.
const MAX_SHARE: u64 = 1_000_000;

/// Reads a plan.
pub(in crate::config) fn read(place: &Place, value: &Value, checker: &mut Checker<'_>) -> Draft {
    Reader { around: Vec::new(), depth: 0 }.plan(place.clone(), value, checker)
}

/// A list of deployments, as `deployments = […]` of a model.
pub(in crate::config) fn listed(place: &Place, names: &[String], checker: &mut Checker<'_>) -> Draft {
    let to = |(index, name): (usize, &String)| Draft {
        place: place.index(index),
        kind: Kind::Deployment(name.clone()),
    };
    let plans: Vec<Draft> = names.iter().enumerate().map(to).collect();
    no_twins(&plans, checker);
    Draft { place: place.clone(), kind: Kind::Ordered(plans) }
}

/// Reads plans within plans.
struct Reader {
    /// The conditions that hold where we are.
    around: Vec<Condition>,
    depth: usize,
}

impl Reader {
    fn plan(&mut self, place: Place, value: &Value, checker: &mut Checker<'_>) -> Draft {
        self.depth += 1;
        let kind = match value {
            _ if self.depth > MAX_DEPTH => {
                checker.wrong(&place, too_deep());
                Kind::Broken
            }
            Value::String(name) if !name.trim().is_empty() => Kind::Name(name.trim().to_owned()),
            Value::Array(items) => {
                if items.is_empty() {
                    checker.wrong(&place, "an empty list leads nowhere: name at least one");
                }
                let items = items.iter().enumerate().map(|(index, item)| (place.index(index), item));
                Kind::Ordered(self.plans(items.collect(), checker))
            }
            Value::Object(_) => match Table::of(&place, value, checker) {
                Some(table) => self.table(&table, checker),
                None => Kind::Broken,
            },
            _ => {
                checker.wrong(&place, "a plan is the name of a deployment or model, a list, or a table");
                Kind::Broken
            }
        };
        self.depth -= 1;
        Draft { place, kind }
    }

    fn plans(&mut self, items: Vec<(Place, &Value)>, checker: &mut Checker<'_>) -> Vec<Draft> {
        let plans: Vec<Draft> =
            items.into_iter().map(|(place, item)| self.plan(place, item, checker)).collect();
        no_twins(&plans, checker);
        plans
    }

    fn table(&mut self, table: &Table<'_>, checker: &mut Checker<'_>) -> Kind {
        let Some((kind, beside)) = kind_of(table, checker) else { return Kind::Broken };
        let known: Vec<&str> = std::iter::once(kind).chain(beside.iter().copied()).collect();
        table.only(&known, checker);
        match kind {
            "weighted" => self.weighted(table, checker),
            "when" => self.when(table, checker),
            _ => {
                let among = self.plans(table.list(kind, checker), checker);
                match kind {
                    "cheapest" => cheapest(table, among, checker),
                    "fastest" => fastest(table, among, checker),
                    "pool" => Kind::Pool(among),
                    _ => Kind::Ordered(among),
                }
            }
        }
    }

    fn weighted(&mut self, table: &Table<'_>, checker: &mut Checker<'_>) -> Kind {
        let mut choices = Vec::new();
        for (place, value) in table.list("weighted", checker) {
            let Some(choice) = Table::of(&place, value, checker) else { continue };
            choice.only(&CHOICE_KEYS, checker);
            choice.required("share", "a whole number such as 90", checker);
            let share = choice.count("share", 0..=MAX_SHARE, checker);
            let to = self.to(&choice, checker);
            choices.push(Choice { weight: weight(share), ramp: ramp(&choice, checker), to });
        }
        let names: Vec<&Draft> = choices.iter().map(|choice| &choice.to).collect();
        twins(&names, checker);
        if choices.len() == 1 {
            checker.notice(
                &table.place.key("weighted"),
                "one choice gets everything, whatever its share: name two",
            );
        }
        Kind::Weighted { choices, sticky: sticky(table, checker) }
    }

    fn when(&mut self, table: &Table<'_>, checker: &mut Checker<'_>) -> Kind {
        let mut cases: Vec<(Option<Condition>, Draft)> = Vec::new();
        for (place, value) in table.list("when", checker) {
            let Some(case) = Table::of(&place, value, checker) else { continue };
            case.only(&CASE_KEYS, checker);
            let condition = case
                .required("if", "a condition such as { stream = true }", checker)
                .and_then(|(place, value)| condition::read(&place, value, checker));
            if let Some(condition) = &condition {
                let around: Vec<&Condition> = self.around.iter().collect();
                let before: Vec<&Condition> = cases.iter().filter_map(|(known, _)| known.as_ref()).collect();
                if let Some(never) = condition.never(&around, &before) {
                    checker.wrong(&place.key("if"), format!("no request can meet it: {never}"));
                }
            }
            let around = self.around.len();
            self.around.extend(condition.clone());
            let to = self.to(&case, checker);
            self.around.truncate(around);
            cases.push((condition, to));
        }
        let otherwise = table.get("otherwise");
        let otherwise = otherwise.map(|(place, value)| Box::new(self.plan(place, value, checker)));
        Kind::When { cases, otherwise }
    }

    /// The plan at `to`.
    fn to(&mut self, table: &Table<'_>, checker: &mut Checker<'_>) -> Draft {
        match table.required("to", "the name of a deployment or model, or a plan", checker) {
            Some((place, value)) => self.plan(place, value, checker),
            None => Draft { place: table.place.key("to"), kind: Kind::Broken },
        }
    }
}

/// What is said of plans that nest too deep.
pub(super) fn too_deep() -> String {
    format!("plans nest deeper than {MAX_DEPTH}")
}

/// Which kind of plan a table is, and what may stand beside its key.
fn kind_of(table: &Table<'_>, checker: &mut Checker<'_>) -> Option<(&'static str, &'static [&'static str])> {
    let all = KINDS.map(|(kind, _)| kind).join(", ");
    let found: Vec<_> = KINDS.into_iter().filter(|(kind, _)| table.get(kind).is_some()).collect();
    match found.as_slice() {
        [one] => Some(*one),
        [] => {
            for (key, _) in table.members() {
                checker.wrong(&table.place.key(key), format!("unknown key: a plan has exactly one of {all}"));
            }
            if table.members().next().is_none() {
                checker.wrong(&table.place, format!("missing: a plan has exactly one of {all}"));
            }
            None
        }
        [(one, _), (other, _), ..] => {
            checker.wrong(
                &table.place,
                format!("`{one}` and `{other}` contradict: a plan has exactly one of {all}"),
            );
            None
        }
    }
}

fn cheapest(table: &Table<'_>, among: Vec<Draft>, checker: &mut Checker<'_>) -> Kind {
    Kind::Cheapest {
        among,
        min_quality: table.score("min_quality", checker),
        ceiling: Ceiling {
            first_token: table.ms("max_first_token_ms", checker),
            whole: table.ms("max_latency_ms", checker),
        },
        probe_per_mille: table.percent("probe_percent", checker).unwrap_or(CHEAPEST_PROBES),
    }
}

fn fastest(table: &Table<'_>, among: Vec<Draft>, checker: &mut Checker<'_>) -> Kind {
    let by = table.get("by").and_then(|(place, value)| {
        let found = MEASURES.into_iter().find(|(name, _)| value.as_str() == Some(*name));
        if found.is_none() {
            let all = MEASURES.map(|(name, _)| name).join(", ");
            checker.wrong(&place, format!("one of {all} stands here"));
        }
        found.map(|(_, measure)| measure)
    });
    Kind::Fastest {
        among,
        by: by.unwrap_or_default(),
        min_quality: table.score("min_quality", checker),
        probe_per_mille: table.percent("probe_percent", checker).unwrap_or(FASTEST_PROBES),
    }
}

fn ramp(choice: &Table<'_>, checker: &mut Checker<'_>) -> Option<Ramp> {
    let (place, value) = choice.get("ramp")?;
    let table = Table::of(&place, value, checker)?;
    table.only(&RAMP_KEYS, checker);
    table.required("to", "the share at its end, such as 100", checker);
    let to = table.count("to", 0..=MAX_SHARE, checker);
    let (from, until) = (table.moment("from", checker), table.moment("until", checker));
    let (from_ms, until_ms) = (from?, until?);
    if until_ms <= from_ms {
        checker.wrong(&place.key("until"), "a ramp ends after it begins: `until` is later than `from`");
    }
    Some(Ramp { to: weight(to), from_ms, until_ms })
}

/// A share that was checked to be at most [`MAX_SHARE`]; one that was not read counts as some.
fn weight(share: Option<u64>) -> u32 {
    share.and_then(|share| u32::try_from(share).ok()).unwrap_or(1)
}

fn sticky(table: &Table<'_>, checker: &mut Checker<'_>) -> Vec<StickyBy> {
    let Some((place, value)) = table.get("sticky") else { return Vec::new() };
    let mut found: Vec<StickyBy> = Vec::new();
    for (place, text) in texts(&place, value, checker) {
        let by = match text.split_once(':') {
            None if text == "key" => Some(StickyBy::Key),
            None if text == "end_user" => Some(StickyBy::EndUser),
            Some(("header", name)) => {
                let Some(name) = condition::header_name(&place, name, checker) else { continue };
                Some(StickyBy::Header(name))
            }
            _ => None,
        };
        match by {
            None => {
                checker.wrong(&place, "one of key, end_user and header:NAME stands here");
            }
            Some(by) if found.contains(&by) => checker.wrong(&place, format!("{text} is listed twice")),
            Some(by) => found.push(by),
        }
    }
    found
}

fn no_twins(plans: &[Draft], checker: &mut Checker<'_>) {
    twins(&plans.iter().collect::<Vec<_>>(), checker);
}

/// Notes names that stand twice in one list.
fn twins(plans: &[&Draft], checker: &mut Checker<'_>) {
    let name_of = |draft: &Draft| match &draft.kind {
        Kind::Deployment(name) | Kind::Name(name) => Some(name.clone()),
        _ => None,
    };
    let mut seen = std::collections::BTreeSet::new();
    for draft in plans {
        let Some(name) = name_of(draft) else { continue };
        if !seen.insert(name.clone()) {
            checker.wrong(&draft.place, format!("{name} is listed twice"));
        }
    }
}
