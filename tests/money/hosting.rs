//! Deployments that cost by the hour, through the door: charged as they stand, once, whoever dies.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{nanos, paid};
use crate::support::journal::{Journal, Session};
use crate::support::provider::UPSTREAM_KEY;
use crate::support::provider::tuning::{Rounding, Route};
use crate::support::wait::within_limit;
use crate::support::{Call, Setup, SimulatedProvider, TestGateway, eventually};

const HOUR_NANOS: i64 = 7_000_000_000;
const TUNED: &str = "gpt-4.1-mini-2025-04-14.ft-0a1b";
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// The shortest lease there is: a successor goes on behind it.
const SHORT_LEASE: &str = "\n[ledger]\nlease_ms = 1000\n";

/// A deployment that stands for so many minutes already, in the configuration's words.
fn stands(name: &str, minutes: i64, billing: &str) -> String {
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
    format!(
        "\n[deployments.{name}]\nprovider = \"paid\"\nmodel = \"acme-{name}\"\nsku = \"Standard\"\n\
         hosted_from = \"{since}\"\n\
         price = {{ input_per_1m_usd = \"1\", output_per_1m_usd = \"2\", hosting_per_hour_usd = \"7\", \
         hosting_billing = \"{billing}\" }}\n"
    )
}

fn hours(journal: &Journal) -> usize {
    journal.0.iter().filter(|entry| entry.kind == "hosting").count()
}

/// Waits until all that is due is charged.
#[track_caller]
fn await_hours(gateway: &TestGateway, wanted: usize) -> Journal {
    eventually(&format!("{wanted} periods"), || {
        let journal = gateway.journal();
        (hours(&journal) >= wanted).then_some(journal)
    })
}

#[test]
fn pain_16_hours_are_charged_as_they_stand_and_none_twice() {
    let provider = SimulatedProvider::start();
    // ten hours have begun, and ten quarters of an hour
    let setup = paid(&provider)
        .and(&stands("idle", 9 * 60 + 30, "started_hours"))
        .and(&stands("quick", 140, "quarter_hours"))
        .and("\n[budgets.hosting]\nlimit_usd = \"50\"\nwindow = \"total\"\nscope = { purpose = \"hosting\" }\n")
        .and(SHORT_LEASE);
    let mut gateway = TestGateway::with(setup).start();
    for _ in 0..3 {
        // wherever it is with its hours
        gateway.kill();
        gateway.start_again();
    }
    let journal = await_hours(&gateway, 20);
    assert_eq!(hours(&journal), 20);
    let ids: BTreeSet<&str> = journal.0.iter().map(|entry| entry.request_id.as_str()).collect();
    assert_eq!(ids.len(), 20, "each period once");
    assert_eq!(journal.spent(), 10 * HOUR_NANOS + 10 * HOUR_NANOS / 4, "beyond what the budget has");
    journal.check();

    let listed = gateway.admin(Call::get("/admin/v1/hosting")).expect(200).json();
    let idle = listed["data"].as_array().expect("a list").iter().find(|one| one["deployment"] == "idle");
    let idle = idle.unwrap_or_else(|| panic!("{listed}"));
    assert_eq!(nanos(&idle["charged_usd"]), 10 * HOUR_NANOS);
    assert_eq!(
        (&idle["sku"], &idle["source"], &idle["until_ms"]),
        (&json!("Standard"), &json!("configuration"), &json!(null))
    );
    eventually("the budget's warning", || gateway.log().contains("costs more within a day").then_some(()));
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    assert!(metrics.contains("tunegate_hosting_usd_per_hour{deployment=\"idle\"} 7"), "{metrics}");
    gateway.is_audited();
}

/// A gateway whose resource manager is the provider, and no deployment yet.
fn at_azure(provider: &SimulatedProvider) -> Setup {
    let sections = format!(
        r#"
[providers.azure]
kind = "azure"
base_url = "{0}"
api = "v1"
api_key = {{ file = "upstream.key" }}

[providers.azure.training.arm]
subscription_id = "11111111-2222-3333-4444-555555555555"
resource_group = "tuning"
account = "acme-swe"
endpoint = "{0}"
poll_ms = 100
entra = {{ kind = "client_secret", tenant_id = "tenant-1", client_id = "client-1", client_secret = {{ file = "secret" }}, authority = "{0}" }}
"#,
        provider.url()
    );
    Setup::bare()
        .file("upstream.key", UPSTREAM_KEY)
        .file("secret", "s3cret")
        .watched(provider)
        .and(&sections)
        .and(SHORT_LEASE)
}

/// A deployment of the configuration at 7 dollars an hour, and a model of its name.
fn deployed(name: &str, billing: &str) -> String {
    format!(
        "\n[deployments.{name}]\nprovider = \"azure\"\nmodel = \"{name}\"\nbase_model = \"{TUNED}\"\n\
         price = {{ input_per_1m_usd = \"1\", output_per_1m_usd = \"2\", hosting_per_hour_usd = \"7\", \
         hosting_per_hour_usd_by_sku = {{ DeveloperTier = \"0\" }}, hosting_billing = \"{billing}\" }}\n\
         \n[models.{name}]\ndeployments = [\"{name}\"]\n"
    )
}

/// What the provider has billed for hours, nano-dollars.
fn billed(provider: &SimulatedProvider) -> i64 {
    let all = provider.tuning().hosting_bill().into_iter().map(|stood| stood.nanos).sum::<u64>();
    i64::try_from(all).expect("a bill that a test can mean")
}

/// Waits until the books say what the bill says, and lets the list be read some more: neither moves on.
#[track_caller]
fn await_bill(gateway: &TestGateway, provider: &SimulatedProvider) {
    let agree = || (gateway.journal().spent() == billed(provider)).then_some(());
    within_limit(agree).unwrap_or_else(|| {
        let bill = provider.tuning().hosting_bill();
        let entries = gateway.journal().0;
        let booked: Vec<_> = entries.iter().map(|entry| (&entry.request_id, entry.cost)).collect();
        panic!("billed: {bill:#?}\nbooked: {booked:#?}")
    });
    await_readings(provider, 2);
    assert_eq!(gateway.journal().spent(), billed(provider));
    gateway.journal().check();
}

/// Waits until the list was asked for so often again.
#[track_caller]
fn await_readings(provider: &SimulatedProvider, readings: usize) {
    let lists = || provider.tuning().count(Route::ListDeployments);
    let before = lists();
    eventually("readings of the list", || (lists() > before + readings).then_some(()));
}

/// What `tunegate hosting` tells of a deployment.
#[track_caller]
fn told(gateway: &TestGateway, name: &str) -> Value {
    let listed = gateway.admin(Call::get("/admin/v1/hosting")).expect(200).json();
    let all = listed["data"].as_array().expect("a list");
    let one = all.iter().find(|one| one["deployment"] == name);
    one.cloned().unwrap_or_else(|| panic!("no {name}: {listed:#}"))
}

#[test]
fn pain_16_the_list_starts_and_stops_the_clock_and_the_bill_is_the_providers() {
    let provider = SimulatedProvider::start();
    let rules = [
        ("started_hours", Rounding::StartedHours),
        ("clock_hours", Rounding::ClockHours),
        ("quarter_hours", Rounding::QuarterHours),
        ("minutes", Rounding::Minutes),
    ];
    let tuning = provider.tuning();
    // a minute ends long after this test
    let made = tuning.time_ms() - 140 * MINUTE_MS + 50_000;
    let mut setup = at_azure(&provider);
    for (name, rounding) in rules {
        tuning.stands(name, TUNED, "Standard", made).hosts(name, HOUR_NANOS.unsigned_abs(), rounding);
        setup = setup.and(&deployed(name, name));
    }
    tuning.stands("base", "gpt-4.1-mini", "Standard", made).deployments_per_page(2);
    let gateway = TestGateway::with(setup).start();
    // three hours, ten quarters, nine quarters of whole minutes: what has begun is owed
    let owed = 6 * HOUR_NANOS / 2 + 10 * HOUR_NANOS / 4 + 9 * HOUR_NANOS / 4;
    eventually("what stands, charged since it was made", || {
        let journal = gateway.journal();
        let others: Vec<_> = journal.0.iter().filter(|entry| entry.deployment != "clock_hours").collect();
        (others.iter().map(|entry| entry.cost).sum::<i64>() == owed).then_some(())
    });
    assert_eq!(told(&gateway, "minutes")["since_ms"], json!(made));
    for (name, _) in rules {
        tuning.goes(name, tuning.time_ms());
    }
    await_bill(&gateway, &provider);
    for (name, _) in rules {
        assert!(told(&gateway, name)["until_ms"].is_i64(), "absence has stopped it");
    }
    let log = gateway.log();
    assert!(!log.contains("base"), "base models cost no hours: {log}");
}

#[test]
fn pain_16_what_happened_while_nobody_was_there_is_on_the_bill_once() {
    let provider = SimulatedProvider::start();
    let names = ["stays", "goes", "anew", "comes"];
    let setup = names.iter().fold(at_azure(&provider), |setup, name| {
        provider.tuning().hosts(name, HOUR_NANOS.unsigned_abs(), Rounding::StartedHours);
        setup.and(&deployed(name, "started_hours"))
    });
    let tuning = provider.tuning();
    let now = tuning.time_ms();
    for name in &names[..3] {
        tuning.stands(name, TUNED, "Standard", now - 80 * MINUTE_MS);
    }
    let mut gateway = TestGateway::with(setup).start();
    await_bill(&gateway, &provider);
    assert_eq!(gateway.journal().spent(), 6 * HOUR_NANOS);

    gateway.kill();
    tuning.advance(Duration::from_secs(330 * 60));
    tuning.goes("anew", now + 3 * HOUR_MS);
    tuning.stands("anew", TUNED, "Standard", now + 3 * HOUR_MS);
    tuning.stands("comes", TUNED, "Standard", now + 4 * HOUR_MS);
    // the first list without it is of the same hour
    tuning.goes("goes", now + 320 * MINUTE_MS);
    let later = jiff::Timestamp::from_millisecond(tuning.time_ms()).expect("a moment");
    gateway.start_again_at(&later.to_string());
    await_bill(&gateway, &provider);
    // 80 minutes and five hours and a half, ten minutes less, 80 minutes and three hours, two and a half, one and a half
    assert_eq!(gateway.journal().spent(), (7 + 7 + 5 + 3 + 2) * HOUR_NANOS);
    assert_eq!(told(&gateway, "anew")["since_ms"].as_i64().map(|at| at >= now - 80 * MINUTE_MS), Some(true));
    gateway.kill();
    gateway.start_again();
    await_bill(&gateway, &provider);
    gateway.is_audited();
}

#[test]
fn a_developer_deployment_costs_nothing_and_is_out_of_the_routes_behind_its_end() {
    let provider = SimulatedProvider::start();
    let tuning = provider.tuning();
    let made = tuning.time_ms() - 23 * HOUR_MS - 30 * MINUTE_MS;
    tuning.stands("trial", TUNED, "DeveloperTier", made);
    tuning.stands("steady", TUNED, "Standard", made + 10 * MINUTE_MS);
    tuning.hosts("steady", HOUR_NANOS.unsigned_abs(), Rounding::StartedHours);
    let both = "\n[models.support]\ndeployments = [\"trial\", \"steady\"]\n";
    let setup = at_azure(&provider)
        .and(&deployed("trial", "started_hours"))
        .and(&deployed("steady", "started_hours"))
        .and(both);
    let mut gateway = TestGateway::with(setup).start();
    await_bill(&gateway, &provider);
    let end = made + 24 * HOUR_MS;
    assert_eq!(told(&gateway, "trial")["ends_at_ms"], json!(end));
    let asked = |gateway: &TestGateway| {
        let body = json!({"model": "support", "messages": [{"role": "user", "content": "hi"}]});
        let told = gateway.admin(Call::post("/admin/v1/routes/support/explain", &body)).expect(200).json();
        let order = told["order"].as_array().expect("an order").clone();
        order.iter().filter_map(|one| one["deployment"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    eventually("its last hour", || (asked(&gateway) == ["steady", "trial"]).then_some(()));
    let metrics = gateway.admin(Call::get("/metrics")).expect(200).text();
    let gauge = format!("tunegate_hosted_ends_timestamp_seconds{{deployment=\"trial\"}} {}", end / 1_000);
    assert!(metrics.contains(&gauge), "{gauge}: {metrics}");

    gateway.kill();
    tuning.advance(Duration::from_secs(40 * 60));
    let later = jiff::Timestamp::from_millisecond(tuning.time_ms()).expect("a moment");
    gateway.start_again_at(&later.to_string());
    await_bill(&gateway, &provider);
    assert_eq!(told(&gateway, "trial")["until_ms"], json!(end), "nobody looked, and its kind has an end");
    eventually("nobody behind its end", || (asked(&gateway) == ["steady"]).then_some(()));
    let ids: Vec<_> = gateway.journal().0.into_iter().map(|entry| entry.deployment).collect();
    assert!(ids.iter().all(|name| name == "steady"), "{ids:?}");
}

#[test]
fn what_nobody_uses_is_said_and_taken_away_where_that_is_wished() {
    let provider = SimulatedProvider::start();
    let tuning = provider.tuning();
    let made = tuning.time_ms() - 80 * HOUR_MS + 30 * MINUTE_MS;
    // what the configuration does not have may be used by others: it is charged, and stays
    for (name, nanos) in [("idle", HOUR_NANOS.unsigned_abs()), ("foreign", 1_700_000_000)] {
        tuning.stands(name, TUNED, "Standard", made).hosts(name, nanos, Rounding::StartedHours);
    }
    let setup = at_azure(&provider).and(&deployed("idle", "started_hours"));
    let policy = "\n[tuning]\nidle_after_hours = 72\nundeploy_idle = true\n";
    let begun = tuning.time_ms();
    let mut gateway = TestGateway::with(setup.and(policy)).start();
    await_bill(&gateway, &provider);
    // who used it before there was a gateway is not known
    assert_eq!(told(&gateway, "idle")["idle"], json!(false));
    assert!(told(&gateway, "idle")["idle_since_ms"].as_i64() >= Some(begun));
    assert_eq!(tuning.count(Route::DeleteDeployment), 0);
    gateway.kill();
    // as if it had been watched for 80 hours
    let mut operator = Session::on(&gateway.database_url());
    operator.run("UPDATE hosted SET idle_from_ms = idle_from_ms - 288000000");
    drop(operator);
    gateway.start_again();
    eventually("it is taken away", || (tuning.count(Route::DeleteDeployment) > 0).then_some(()));
    let log = eventually("a word about it", || {
        Some(gateway.log()).filter(|log| log.contains("nobody uses it") && log.contains("idle_hours="))
    });
    // the moments in which nobody watched are left out
    let hours = ["idle_hours=79", "idle_hours=80"].iter().any(|hours| log.contains(hours));
    assert!(hours, "{log}");
    tuning.step();
    await_bill(&gateway, &provider);
    assert_eq!(billed(&provider), 80 * HOUR_NANOS + 80 * 1_700_000_000);
    let states: Vec<_> =
        tuning.deployments().into_iter().map(|one| (one.name, one.gone_ms.is_some())).collect();
    assert_eq!(states, [("idle".to_owned(), true), ("foreign".to_owned(), false)]);
    assert_eq!(tuning.count(Route::DeleteDeployment), 1);
    assert!(told(&gateway, "idle")["until_ms"].is_i64());
    assert_eq!(told(&gateway, "azure/foreign")["idle_since_ms"], json!(null));
}
