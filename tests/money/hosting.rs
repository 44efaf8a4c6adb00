//! Deployments that cost by the hour, through the door: charged as they stand, once, whoever dies.

use std::collections::BTreeSet;

use serde_json::json;

use super::{nanos, paid};
use crate::support::journal::Journal;
use crate::support::{Call, SimulatedProvider, TestGateway, eventually};

const HOUR_NANOS: i64 = 7_000_000_000;
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
