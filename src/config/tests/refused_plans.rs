//! Models and plans that are refused: each mistake, and all that is said of it.

use super::models::DEPLOYMENTS;
use super::*;

const KINDS: &str = "ordered, weighted, cheapest, fastest, pool, when";
const ALL: &str = "of deployments, there is a, b, c, star; of models, there is any/*, m";

fn refused(text: &str, said: &[&str]) {
    let said: Vec<String> =
        said.iter().map(|line| line.replace("{KINDS}", KINDS).replace("{ALL}", ALL)).collect();
    assert_eq!(wrong(&format!("{DEPLOYMENTS}{text}")), said, "{text}");
}

#[test]
fn what_is_no_plan() {
    for (plan, said) in [
        ("7", &[": a plan is the name of a deployment or model, a list, or a table"][..]),
        ("\" \"", &[": a plan is the name of a deployment or model, a list, or a table"]),
        ("[]", &[": an empty list leads nowhere: name at least one"]),
        ("{}", &[": missing: a plan has exactly one of {KINDS}"]),
        ("{ ordered = [] }", &[".ordered: an empty list leads nowhere: name at least one"]),
        ("{ pool = \"a\" }", &[".pool: a list stands here: [ … ]"]),
        (
            "{ wieghted = [], stick = 1 }",
            &[
                ".stick: unknown key: a plan has exactly one of {KINDS}",
                ".wieghted: unknown key: a plan has exactly one of {KINDS}",
            ],
        ),
        (
            "{ ordered = [\"a\"], pool = [\"b\"] }",
            &[": `ordered` and `pool` contradict: a plan has exactly one of {KINDS}"],
        ),
        ("{ pool = [\"a\"], sticky = \"key\" }", &[".sticky: unknown key: here stand pool"]),
        (
            "{ cheapest = [\"a\"], min_qualty = 1 }",
            &[
                ".min_qualty: unknown key: here stand cheapest, min_quality, max_first_token_ms, max_latency_ms, probe_percent",
            ],
        ),
        ("[\"a\", \"b\", \"a\"]", &["[2]: a is listed twice"]),
        (
            "[\"a\", 1, [true]]",
            &[
                "[1]: a plan is the name of a deployment or model, a list, or a table",
                "[2][0]: a plan is the name of a deployment or model, a list, or a table",
            ],
        ),
        ("\"x\"", &[": there is no deployment and no model \"x\"; {ALL}"]),
        (
            "[\"x\", { pool = [\"b\", \"y\"] }]",
            &[
                "[0]: there is no deployment and no model \"x\"; {ALL}",
                "[1].pool[1]: there is no deployment and no model \"y\"; {ALL}",
            ],
        ),
        ("\"deployment:x\"", &[": there is no [deployments.x]: there is a, b, c, star"]),
        ("\"model:x\"", &[": there is no [models.x]: there is any/*, m"]),
        ("\"model:a\"", &[": there is no [models.a]: there is any/*, m"]),
        ("\"m@x\"", &[": m has no label \"x\": there are none"]),
        ("\"star\"", &[": star needs what a pattern's `*` matched, but this model's name has none"]),
        ("[\"any/*\"]", &["[0]: star needs what a pattern's `*` matched, but this model's name has none"]),
    ] {
        let said: Vec<String> = said.iter().map(|line| format!("models.m.plan{line}")).collect();
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        refused(&format!("[models.m]\nplan = {plan}"), &said);
    }
}

#[test]
fn splits_that_are_refused() {
    for (inner, said) in [
        (
            "weighted = [{ share = 0, to = \"a\" }, { share = 0, to = \"b\" }]",
            &["weighted: the shares sum to nothing, now and for ever: give at least one a share above 0"][..],
        ),
        (
            "weighted = [{ share = 0, to = \"a\" }, { share = 5, to = \"b\", ramp = { to = 0, from = \"2020-01-01\", until = \"2020-02-01\" } }]",
            &["weighted: the shares sum to nothing, now and for ever: give at least one a share above 0"],
        ),
        (
            "weighted = [{ share = -1, to = \"a\" }, { share = 1, to = \"b\" }]",
            &["weighted[0].share: a whole number from 0 to 1000000 stands here"],
        ),
        (
            "weighted = [{ shares = 1 }, \"b\"]",
            &[
                "weighted[0].share: missing: write a whole number such as 90",
                "weighted[0].shares: unknown key: here stand share, to, ramp",
                "weighted[0].to: missing: write the name of a deployment or model, or a plan",
                "weighted[1]: a table stands here: { … }",
            ],
        ),
        (
            "weighted = [{ share = 1, to = \"a\" }, { share = 1, to = \"a\" }]",
            &["weighted[1].to: a is listed twice"],
        ),
        (
            "weighted = [{ share = 1, to = \"a\", ramp = {} }, { share = 1, to = \"b\" }]",
            &[
                "weighted[0].ramp.from: missing: write a day such as \"2026-12-01\"",
                "weighted[0].ramp.to: missing: write the share at its end, such as 100",
                "weighted[0].ramp.until: missing: write a day such as \"2026-12-01\"",
            ],
        ),
        (
            "weighted = [{ share = 1, to = \"a\", ramp = { to = 0, from = \"2026-12-20\", until = \"2026-12-01\" } }, { share = 1, to = \"b\" }]",
            &["weighted[0].ramp.until: a ramp ends after it begins: `until` is later than `from`"],
        ),
        (
            "weighted = [{ share = 1, to = \"a\", ramp = { to = 0, from = \"now\", until = 5, by = 1 } }, { share = 1, to = \"b\" }]",
            &[
                "weighted[0].ramp.by: unknown key: here stand to, from, until",
                "weighted[0].ramp.from: no day: write one such as \"2026-12-01\" (0:00 UTC), or \"2026-12-01T12:00:00Z\"",
                "weighted[0].ramp.until: no day: write one such as \"2026-12-01\" (0:00 UTC), or \"2026-12-01T12:00:00Z\"",
            ],
        ),
        (
            "weighted = [{ share = 1, to = \"a\" }, { share = 1, to = \"b\" }], sticky = [\"ip\", \"key\", \"key\", \"header:a b\", \"header:Authorization\"]",
            &[
                "sticky[0]: one of key, end_user and header:NAME stands here",
                "sticky[2]: key is listed twice",
                "sticky[3]: \"a b\" is no name of a header",
                "sticky[4]: authorization holds a credential: routes do not look at it",
            ],
        ),
        (
            "cheapest = [\"b\", \"c\"], min_quality = 0.6",
            &["min_quality: no deployment here has such a `quality`: this plan would never lead anywhere"],
        ),
        (
            "fastest = [\"c\"], min_quality = 0.0, by = \"luck\", probe_percent = 101",
            &[
                "by: one of whole, first_token, tokens_per_second stands here",
                "min_quality: no deployment here has such a `quality`: this plan would never lead anywhere",
                "probe_percent: a number from 0 to 100 stands here, with at most one decimal",
            ],
        ),
        (
            "cheapest = [\"a\"], min_quality = 85, max_latency_ms = 0, max_first_token_ms = \"1\", probe_percent = 0.25",
            &[
                "max_first_token_ms: a whole number from 1 to 86400000 stands here",
                "max_latency_ms: a whole number from 1 to 86400000 stands here",
                "min_quality: a number from 0 to 1 stands here, with at most three decimals",
                "probe_percent: a number from 0 to 100 stands here, with at most one decimal",
            ],
        ),
    ] {
        let said: Vec<String> = said.iter().map(|line| format!("models.m.plan.{line}")).collect();
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        refused(&format!("[models.m]\nplan = {{ {inner} }}"), &said);
    }
}

#[test]
fn conditions_that_are_refused() {
    const EMPTY: &str =
        "when[0].if: a condition names at least one fact; for all other requests write `otherwise`";
    const NEVER: &str = "no request can meet it: ";
    for (cases, said) in [
        ("[]", vec!["when: an empty list leads nowhere: name at least one".to_owned()]),
        ("[{ if = {}, to = \"a\" }]", vec![EMPTY.to_owned()]),
        ("[{ to = \"x\" }]", vec![
            "when[0].if: missing: write a condition such as { stream = true }".to_owned(),
                "when[0].to: there is no deployment and no model \"x\"; {ALL}".to_owned(),
        ]),
        ("[{ if = { stream = true }, then = \"a\" }]", vec![
            "when[0].then: unknown key: here stand if, to".to_owned(),
            "when[0].to: missing: write the name of a deployment or model, or a plan".to_owned(),
        ]),
        (
            "[{ if = { steam = true, stream = \"yes\", tools = 1 }, to = \"a\" }]",
            vec![
                "when[0].if.steam: unknown key: here stand team, key, tag, header, endpoint, input_tokens, tools, images, json_schema, stream".to_owned(),
                "when[0].if.stream: true or false stands here".to_owned(),
                "when[0].if.tools: true or false stands here".to_owned(),
            ],
        ),
        (
            "[{ if = { team = \"team_1\", key = [\"a b\"], tag = \"a,b\", endpoint = \"chat\" }, to = \"a\" }]",
            vec![
                "when[0].if.endpoint: \"chat\" is no endpoint: there is chat.completions, completions, embeddings, responses, moderations".to_owned(),
                "when[0].if.key[0]: a key is named by its alias: 1 to 64 of A-Z a-z 0-9 . _ -, no id (key_…)".to_owned(),
                "when[0].if.tag: a tag has 1 to 64 of A-Z a-z 0-9 . _ - : / =".to_owned(),
                "when[0].if.team: a team is named by its alias: 1 to 64 of A-Z a-z 0-9 . _ -, no id (team_…)".to_owned(),
            ],
        ),
        (
            "[{ if = { team = [], header = { \"a b\" = \"1\", Cookie = true, x-a = false, x-b = [\"\"] } }, to = \"a\" }]",
            vec![
                "when[0].if.header.\"a b\": \"a b\" is no name of a header".to_owned(),
                "when[0].if.header.Cookie: cookie holds a credential: routes do not look at it".to_owned(),
                "when[0].if.header.x-a: only true stands here, for any value; or a text, or a list of texts".to_owned(),
                "when[0].if.header.x-b[0]: a text stands here, or a list of texts, and none is empty".to_owned(),
                "when[0].if.team: an empty list matches nothing: leave the key out".to_owned(),
            ],
        ),
        (
            "[{ if = { header = {}, input_tokens = {} }, to = \"a\" }]",
            vec![
                "when[0].if.header: an empty table matches nothing: leave the key out".to_owned(),
                "when[0].if.input_tokens: says nothing: write { at_least = 1000 }, { at_most = 8000 } or both".to_owned(),
            ],
        ),
        (
            "[{ if = { input_tokens = { at_least = 9, at_most = 8 } }, to = \"a\" }]",
            vec![format!("when[0].if: {NEVER}`input_tokens` is an empty range: at_least is above at_most")],
        ),
        (
            "[{ if = { endpoint = \"embeddings\", stream = true }, to = \"a\" }]",
            vec![format!("when[0].if: {NEVER}no endpoint that it names can have `stream`")],
        ),
        (
            "[{ if = { team = [\"x\", \"y\"] }, to = \"a\" }, { if = { team = \"y\", stream = true }, to = \"b\" }]",
            vec![format!("when[1].if: {NEVER}a case before it holds for every request that this one holds for")],
        ),
        (
            "[{ if = { stream = true }, to = [\"a\", { when = [{ if = { stream = false }, to = \"b\" }] }] }]",
            vec![format!(
                "when[0].to[1].when[0].if: {NEVER}`stream` contradicts a condition around it: no request meets both"
            )],
        ),
    ] {
        let said: Vec<String> = said.iter().map(|line| format!("models.m.plan.{line}")).collect();
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        refused(&format!("[models.m]\nplan = {{ when = {cases} }}"), &said);
    }
}

#[test]
fn circles_are_spelled_out() {
    for (text, said) in [
        ("[models.m]\nplan = \"m\"", "models.m.plan: a circle: models.m.plan → models.m.plan"),
        (
            "[models.m]\nplan = [\"a\", \"n\"]\n[models.n]\nplan = { pool = [\"m\", \"b\"] }",
            "models.n.plan.pool[0]: a circle: models.m.plan → models.n.plan → models.m.plan",
        ),
        (
            "[models.m]\nplan = \"m@x\"\nlabels.x = [\"n\"]\n[models.n]\nplan = \"m@x\"",
            "models.n.plan: a circle: models.m.labels.x → models.n.plan → models.m.labels.x",
        ),
    ] {
        refused(text, &[said]);
    }
}

#[test]
fn plans_have_a_size() {
    let mut chain = String::from("[models.m0]\nplan = [\"a\", \"b\", \"c\"]\n");
    for level in 1..=5 {
        let inner = level - 1;
        chain.push_str(&format!(
            "[models.m{level}]\nplan = [[\"m{inner}\"], {{ pool = [\"m{inner}\"] }}, {{ ordered = [\"m{inner}\"] }}]\n"
        ));
    }
    refused(&chain, &["models.m5.plan: has 729 places for deployments, at most 256 may be"]);
    let nested = format!("[models.m]\nplan = {}\"a\"{}", "[".repeat(16), "]".repeat(16));
    refused(
        &nested,
        &["models.m.plan[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]: plans nest deeper than 16"],
    );
    let half = "[".repeat(8);
    let through =
        format!("[models.m]\nplan = {half}\"n\"{0}\n[models.n]\nplan = {half}\"a\"{0}", "]".repeat(8));
    refused(&through, &["models.m.plan: plans nest deeper than 16"]);
    let names: String = (0..40).map(|at| format!("[models.x{at:02}]\nplan = \"x{:02}\"\n", at + 1)).collect();
    refused(
        &format!("{names}[models.x40]\nplan = \"a\""),
        &["models.x15.plan: plans nest deeper than 16", "models.x31.plan: plans nest deeper than 16"],
    );
}

#[test]
fn names_that_are_refused() {
    for (text, said) in [
        (
            "[models.m]\nplan = \"a\"\naliases = [\"n\", \"any/*\", \"o\", \"o\", \"\", \"m@x\", \"p\"]\nlabels.x = \"b\"\n\
             [models.n]\nplan = \"a\"\naliases = [\"p\"]",
            &[
                "models.m.aliases[0]: n is taken: the model n has that name",
                "models.m.aliases[1]: an alias is an exact name, without `*`",
                "models.m.aliases[1]: any/* is taken: the model any/* has that name",
                "models.m.aliases[3]: o is listed twice",
                "models.m.aliases[4]: a model name can't be empty",
                "models.m.aliases[5]: m@x is taken: the label x of m has that name",
                "models.m.aliases[6]: p is taken: it is an alias of n, too",
                "models.n.aliases[0]: p is taken: it is an alias of m, too",
            ][..],
        ),
        (
            "[models.m]\nplan = \"a\"\nlabels = { \"a b\" = \"b\", x = \"b\", y = \"z\" }\n[models.\"m@x\"]\nplan = \"a\"",
            &[
                "models.m.labels.\"a b\": a name has 1 to 64 of A-Z a-z 0-9 . _ -",
                "models.m.labels.x: m@x is taken: the model m@x has that name",
                "models.m.labels.y: there is no deployment and no model \"z\"; of deployments, there is a, b, c, star; of models, there is any/*, m, m@x",
            ],
        ),
        (
            "[models.\"m*\"]\nplan = \"a\"\nlabels.x = \"b\"\naliases = [\"n\"]",
            &[
                "models.\"m*\".aliases: a pattern has none: only an exact name has",
                "models.\"m*\".labels: a pattern has none: only an exact name has",
            ],
        ),
        (
            "[models.m]\nplan = \"a\"\ndeployments = [\"b\"]",
            &["models.m.plan: contradicts `deployments`: keep one"],
        ),
        (
            "[models.m]\ndeployments = []",
            &["models.m.deployments: missing: name at least one of [deployments], or write a `plan`"],
        ),
        (
            "[models.m]\ndeployments = [\"any/*\"]",
            &["models.m.deployments[0]: there is no [deployments.any/*]: there is a, b, c, star"],
        ),
    ] {
        refused(text, said);
    }
}

#[test]
fn what_a_model_asks_of_its_deployments_and_of_retries() {
    const ASKED: &str = "which `requires` of this model asks of every deployment";
    for (text, said) in [
        (
            "[models.m]\nplan = [\"a\", { pool = [\"b\", \"c\"] }]\nrequires = [\"images\", \"tools\"]\n\
             labels.x = \"n\"\nlonger_context = \"b\"\ncontent_filtered = \"b\"\n[models.n]\nplan = [\"a\", \"b\"]",
            vec![
                format!("models.m.content_filtered: b can't do images, {ASKED}"),
                format!("models.m.labels.x: b can't do images, {ASKED}"),
                format!("models.m.longer_context: b can't do images, {ASKED}"),
                "models.m.longer_context: no deployment here has a larger context_window than 2000, the largest of the plan's".to_owned(),
                format!("models.m.plan[1].pool[0]: b can't do images, {ASKED}"),
            ],
        ),
        (
            "[models.m]\nplan = \"a\"\nrequires = [\"sight\"]",
            vec![
                "models.m.requires[0]: \"sight\" is no capability: there is tools, images, json_schema, audio"
                    .to_owned(),
            ],
        ),
        (
            "[models.m]\nplan = [\"a\", \"b\", \"c\"]\nlonger_context = [\"a\", \"b\"]",
            vec![
                "models.m.longer_context: no deployment here has a larger context_window than 2000, the largest of the plan's"
                    .to_owned(),
            ],
        ),
        (
            "[models.m]\nplan = \"a\"\nretry = { attempts = 21, same = 11, first_wait_ms = 6000, tries = 1 }",
            vec![
                "models.m.retry.attempts: 21 is out of bounds: 1 to 20".to_owned(),
                "models.m.retry.first_wait_ms: more than longest_wait_ms, 5000".to_owned(),
                "models.m.retry.same: 11 is out of bounds: 0 to 10".to_owned(),
                "models.m.retry.tries: unknown key; config/full.toml lists every key".to_owned(),
            ],
        ),
    ] {
        refused(text, &said.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let unknown = "[models.m]\nplan = \"a\"\nlonger_context = \"c\"";
    assert!(
        load_text(&format!("{DEPLOYMENTS}{unknown}"), &Variables::new()).is_ok(),
        "its window may be larger"
    );
}
