//! Routes in short words: one line for each model.

use crate::domain::catalog::{Deployment, Model};
use crate::domain::route::{Condition, Plan, Share, StickyBy};

/// A model's names, and where they lead.
pub(super) fn line(model: &Model) -> String {
    let aliases = model.aliases.iter().map(|alias| alias.as_str().to_owned());
    let labels = model.labels.keys().map(|label| format!("@{label}"));
    let names = aliases.chain(labels).collect::<Vec<_>>();
    let also = if names.is_empty() { String::new() } else { format!(" (also {})", names.join(", ")) };
    format!("{}{also}: {}", model.name, words(&model.route.plan))
}

fn words(plan: &Plan) -> String {
    match plan {
        Plan::To(deployment) => name(deployment),
        Plan::Ordered(plans) => list(plans, ", then "),
        Plan::Pool(plans) => format!("the pool of {}", list(plans, ", ")),
        Plan::Cheapest(cheapest) => format!("the cheapest of {}", list(&cheapest.among, ", ")),
        Plan::Fastest(fastest) => format!("the fastest of {}", list(&fastest.among, ", ")),
        Plan::Weighted(weighted) => {
            let choices = weighted.choices.iter();
            let choices = choices.map(|(share, plan)| format!("{} {}", weight(share), part(plan)));
            let sticky: Vec<String> = weighted.sticky.iter().map(sticky).collect();
            let sticky = match sticky.as_slice() {
                [] => String::new(),
                by => format!(", sticky by {}", by.join(", else ")),
            };
            format!("by shares {}{sticky}", choices.collect::<Vec<_>>().join(", "))
        }
        Plan::When(when) => {
            let cases = when.cases.iter();
            let cases = cases.map(|(condition, plan)| format!("if {} {}", facts(condition), part(plan)));
            let otherwise = when.otherwise.as_deref().map(|plan| format!("else {}", part(plan)));
            cases.chain(otherwise).collect::<Vec<_>>().join("; ")
        }
    }
}

/// A plan within another one.
fn part(plan: &Plan) -> String {
    match plan {
        Plan::To(deployment) => name(deployment),
        Plan::Ordered(plans) if plans.len() == 1 => words(plan),
        _ => format!("({})", words(plan)),
    }
}

fn list(plans: &[Plan], between: &str) -> String {
    plans.iter().map(part).collect::<Vec<_>>().join(between)
}

fn name(deployment: &Deployment) -> String {
    deployment.name.to_string()
}

fn weight(share: &Share) -> String {
    match share.ramp {
        None => share.weight.to_string(),
        Some(ramp) => format!("{}→{}", share.weight, ramp.to),
    }
}

fn sticky(by: &StickyBy) -> String {
    match by {
        StickyBy::Key => "key".to_owned(),
        StickyBy::EndUser => "end user".to_owned(),
        StickyBy::Header(name) => format!("header {name}"),
    }
}

/// Which facts a condition looks at.
fn facts(condition: &Condition) -> String {
    let flag = |wanted: Option<bool>, name: &str| {
        wanted.map(|wanted| if wanted { name.to_owned() } else { format!("no {name}") })
    };
    let named = |is_named: bool, name: &str| is_named.then(|| name.to_owned());
    let all = [
        named(!condition.teams.is_empty(), "team"),
        named(!condition.keys.is_empty(), "key"),
        named(!condition.tags.is_empty(), "tag"),
        named(!condition.headers.is_empty(), "header"),
        named(!condition.endpoints.is_empty(), "endpoint"),
        named(condition.input_tokens.is_some(), "input tokens"),
        flag(condition.tools, "tools"),
        flag(condition.images, "images"),
        flag(condition.json_schema, "schema"),
        flag(condition.stream, "stream"),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::config;

    #[test]
    fn models_on_one_line_each() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tunegate.toml");
        let text = r#"
            worker.enabled = false
            providers.p = { kind = "openai", base_url = "http://127.0.0.1:1/v1" }
            deployments.a = { provider = "p", model = "gpt-4.1" }
            deployments.b = { provider = "p", model = "ft:gpt-4.1:acme::x" }
            models.listed.deployments = ["a", "b"]
            models.one.plan = "a"
            models.one.aliases = ["uno"]
            models.one.labels = { old = "b" }
            models.pooled.plan = { pool = ["a", { cheapest = ["a", ["b"]] }] }
            models.quick.plan = { fastest = ["a", "b"] }
            [models.split.plan]
            weighted = [{ share = 9, to = "a", ramp = { to = 0, from = "2026-12-01", until = "2026-12-02" } }, { share = 1, to = ["b", "a"] }]
            sticky = ["header:x-c", "end_user", "key"]
            [models.which.plan]
            when = [
              { if = { team = "t", key = "k", tag = "g", header = { x = true }, endpoint = "responses", input_tokens = { at_least = 1 } }, to = "a" },
              { if = { tools = true, images = false, json_schema = true, stream = false }, to = ["b", "a"] },
            ]
            otherwise = "b"
        "#;
        std::fs::write(&path, text).expect("written");
        let config = config::load(Some(&path), &BTreeMap::new()).unwrap_or_else(|error| panic!("{error}"));
        let lines: Vec<String> = config.catalog.models().map(|model| line(model)).collect();
        assert_eq!(
            lines,
            [
                "ft:gpt-4.1:acme::x: b",
                "listed: a, then b",
                "one (also uno, @old): a",
                "pooled: the pool of a, (the cheapest of a, b)",
                "quick: the fastest of a, b",
                "split: by shares 9→0 a, 1 (b, then a), sticky by header x-c, else end user, else key",
                "which: if team and key and tag and header and endpoint and input tokens a; \
                 if tools and no images and schema and no stream (b, then a); else b",
            ]
        );
    }
}
