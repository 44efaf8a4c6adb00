//! Whoever asks, for whatever, in whichever way: the number of series stays what the catalog makes it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::promtool_is_content;
use crate::support::exposition::Exposition;
use crate::support::{Call, Connection, Setup, SimulatedProvider, TestGateway, eventually};

const CHAT: &str = "/v1/chat/completions";
/// Of everything that is made up.
const MANY: usize = 10_000;
/// That ask at once.
const CLIENTS: usize = 16;
/// Teams, and budgets, that get a label of their own unless the configuration says otherwise.
const MAX_LABEL_VALUES: usize = 500;

const EACH: &str = "\n[budgets.users]\nlimit_usd = \"1\"\nwindow = \"day\"\nscope = { each = \"end_user\" }\n\
                    \n[budgets.keys]\nlimit_usd = \"1000\"\nwindow = \"month\"\nscope = { each = \"key\" }\n";

fn exposition(gateway: &TestGateway) -> Exposition {
    let answer = Connection::to(gateway.admin_address()).call(&Call::get("/metrics")).expect(200);
    Exposition::read(&answer.text())
}

/// The names of all series.
fn series(gateway: &TestGateway) -> BTreeSet<String> {
    let read = exposition(gateway);
    read.0.iter().flat_map(|family| &family.samples).map(ToString::to_string).collect()
}

fn question(model: &str, user: &str) -> Value {
    json!({"model": model, "max_tokens": 9, "user": user, "messages": [{"role": "user", "content": "hi"}]})
}

/// Everything that a client can make up, under one number: a model's name, a key, an end user with tags, and a path with
/// its method.
fn made_up(gateway: &TestGateway, number: usize) -> [(Call, u16); 4] {
    let tags = format!("tag-{number},batch-{}", number / 7);
    let user = question("support-bot", &format!("user-{number}"));
    let unknown = question(&format!("model-{number}"), &format!("user-{number}"));
    let strange = Call::new(&format!("VERB{number}"), &format!("/v1/path-{number}?query={number}"));
    [
        (gateway.signed(Call::post(CHAT, &unknown)), 404),
        (Call::post(CHAT, &question("support-bot", "ann")).bearer(&format!("sk-tg-made-up-{number}")), 401),
        (gateway.signed(Call::post(CHAT, &user).header("x-tunegate-tags", &tags)), 200),
        (gateway.signed(strange), 404),
    ]
}

/// Asks all of it, many at once.
fn ask(gateway: &TestGateway, numbers: std::ops::Range<usize>) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let numbers = numbers.clone().skip(client).step_by(CLIENTS);
            scope.spawn(move || {
                let mut connection = gateway.connect();
                for (call, status) in numbers.flat_map(|number| made_up(gateway, number)) {
                    let answer = connection.call(&call);
                    assert_eq!(answer.status, status, "{call:?}: {}", answer.text());
                    if answer.header("connection").is_some_and(|word| word.eq_ignore_ascii_case("close")) {
                        connection = gateway.connect();
                    }
                }
            });
        }
    });
}

#[test]
fn ten_thousand_models_keys_users_tags_and_paths_that_are_made_up_make_no_series() {
    let provider = SimulatedProvider::start();
    let setup = Setup::in_front_of(&provider).and(EACH);
    let gateway = TestGateway::with(setup).start();
    ask(&gateway, 0..CLIENTS);
    gateway.outcomes();
    let before = series(&gateway);
    ask(&gateway, CLIENTS..MANY);
    gateway.outcomes();
    let after = series(&gateway);
    assert_eq!(after.symmetric_difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    let text = after.iter().map(String::as_str).collect::<String>();
    for word in ["model-", "made-up", "user-", "tag-", "batch-", "path-", "VERB"] {
        assert!(!text.contains(word), "{word} is in a label");
    }
    println!("{} series before and after {} requests", after.len(), 4 * MANY);
}

#[test]
fn more_teams_and_budgets_than_labels_share_the_last_one() {
    const TEAMS: usize = 600;
    let provider = SimulatedProvider::start();
    let team = |at: usize| format!("team-{at:03}");
    let declared = (0..TEAMS).map(team).map(|team| {
        format!(
            "[teams.{team}]\n[budgets.of-{team}]\nlimit_usd = \"1\"\nwindow = \"month\"\nscope = {{ team = \"{team}\" }}\n"
        )
    });
    let setup = Setup::in_front_of(&provider).and(&format!("\n{}", declared.collect::<String>()));
    let gateway = TestGateway::with(setup).start();
    let ask_as = |at: usize| {
        let body = json!({"alias": format!("key-{at}"), "team": team(at)});
        let made = gateway.admin(Call::post("/admin/v1/keys", &body)).expect(201).json();
        let key = made["key"].as_str().expect("a key");
        gateway.call(Call::post(CHAT, &question("support-bot", "ann")).bearer(key)).expect(200);
    };
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || (client..TEAMS).step_by(CLIENTS).for_each(ask_as));
        }
    });
    let journal = gateway.settled_journal(|journal| journal.usages().len() == TEAMS);
    let read = eventually("all of it counted", || {
        let read = exposition(&gateway);
        let counted = read.nanos("tunegate_cost_usd_total", &[]);
        (counted == journal.spent().into()).then_some(read)
    });
    let values = |label: &str, name: &str| -> BTreeSet<String> {
        let samples = read.samples(name, &[]);
        samples.into_iter().map(|sample| sample.label(label).to_owned()).collect()
    };
    let teams = values("team", "tunegate_cost_usd_total");
    assert!(teams.contains("other") && teams.contains("none"), "{teams:?}");
    assert_eq!(teams.len(), MAX_LABEL_VALUES + 2, "own labels, `other` and `none`");
    let shared = read.nanos("tunegate_cost_usd_total", &[("team", "other")]);
    let of_one = i128::from(journal.spent()) / TEAMS as i128;
    assert_eq!(shared, of_one * (TEAMS - MAX_LABEL_VALUES) as i128, "what the teams without a label spent");
    assert!(read.sum("tunegate_label_overflows_total", &[("label", "team")]) > 0.0);
    let budgets = values("budget", "tunegate_budget_spent_usd");
    assert_eq!((budgets.len(), budgets.contains("other")), (MAX_LABEL_VALUES + 1, true));
    let spent = read.nanos("tunegate_budget_spent_usd", &[]);
    assert_eq!(spent, journal.spent().into(), "every budget is in some series");
}

#[test]
fn promtool_has_nothing_to_say_about_the_exposition() {
    let provider = SimulatedProvider::start();
    let gateway = TestGateway::with(Setup::in_front_of(&provider).and(EACH)).start();
    ask(&gateway, 0..CLIENTS);
    gateway.outcomes();
    let text = gateway.admin(Call::get("/metrics")).expect(200).text();
    promtool_is_content(&text);
}
