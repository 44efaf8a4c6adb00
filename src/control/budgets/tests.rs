use parking_lot::Mutex as Lock;

use super::*;
use crate::store::Store;
use crate::store::audit::AuditRows;
use crate::store::testing::TestDatabase;

const NOW: i64 = 1_795_000_000_000;

/// Budgets, and what was put in force last.
struct Started {
    budgets: Budgets,
    in_force: Arc<Lock<List>>,
    /// Whether the ledger can't be read.
    away: Arc<Lock<bool>>,
    store: Store,
}

impl Started {
    async fn on(database: &TestDatabase, declared: Vec<Budget>) -> Self {
        let store = database.open().await;
        let (in_force, away) = (Arc::<Lock<List>>::default(), Arc::<Lock<bool>>::default());
        let enforce: Enforce = {
            let (in_force, away) = (Arc::clone(&in_force), Arc::clone(&away));
            Box::new(move |list| {
                let done = if *away.lock() { Err("the ledger is away".to_owned()) } else { Ok(()) };
                if done.is_ok() {
                    *in_force.lock() = list;
                }
                Box::pin(async move { done })
            })
        };
        let unknown: Unknown = Box::new(|scope| match scope.model.as_deref() {
            Some("bot") | None => Vec::new(),
            Some(_) => vec![("model", "there is no such model".to_owned())],
        });
        let budgets = Budgets::open(BudgetRows::new(&store), declared, unknown, enforce).await.expect("read");
        Self { budgets, in_force, away, store }
    }

    fn names(&self) -> Vec<String> {
        self.in_force.lock().iter().map(|budget| budget.name.to_string()).collect()
    }

    async fn log(&self) -> Vec<(String, String)> {
        let rows = AuditRows::new(&self.store).page(None, 99).await.expect("read");
        let mut log: Vec<_> = rows.into_iter().map(|row| (row.action, row.subject)).collect();
        log.sort();
        log
    }
}

fn declared(name: &str, window: &str) -> Budget {
    let draft =
        Draft { limit_usd: Some("5".to_owned()), window: Some(window.to_owned()), ..Draft::default() };
    draft.check(name, true, &mut |path, what| panic!("{path}: {what}")).expect("a budget")
}

fn body(name: &str, window: &str) -> Value {
    json!({"name": name, "limit_usd": "10", "window": window})
}

fn problems(error: &BudgetsError) -> Vec<String> {
    let BudgetsError::Invalid(problems) = error else { panic!("{error}") };
    problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

#[tokio::test]
async fn a_budget_is_in_force_from_create_to_delete_and_over_a_restart() {
    let database = TestDatabase::sqlite();
    let here = Started::on(&database, vec![declared("file", "month")]).await;
    let made = here.budgets.create(&body("a", "day"), NOW).await.expect("made");
    assert_eq!(
        (made.limit, made.declared, here.names()),
        (Usd::dollars(10), false, vec!["file".into(), "a".into()])
    );
    let there = Started::on(&database, vec![declared("file", "month")]).await;
    assert_eq!(there.names(), ["file", "a"], "after a restart");

    let change = json!({"limit_usd": 12.5, "window": "day", "scope": {"model": "bot", "each": "key"}, "action": "clamp"});
    let changed = here.budgets.replace("a", &change, NOW).await.expect("changed");
    assert_eq!((changed.limit, changed.action), (Usd::from_nanos(12_500_000_000), Action::Clamp));
    assert!(here.in_force.lock().contains(&changed), "in force at once");
    there.budgets.refresh().await.expect("read");
    assert!(there.in_force.lock().contains(&changed), "elsewhere after a refresh");

    here.budgets.delete("a", NOW).await.expect("deleted");
    assert_eq!(here.names(), ["file"]);
    assert!(matches!(here.budgets.delete("a", NOW).await, Err(BudgetsError::Unknown(_))));
    assert!(
        matches!(there.budgets.replace("a", &change, NOW).await, Err(BudgetsError::Unknown(_))),
        "seen there, too"
    );
    let log = ["create", "delete", "replace"].map(|verb| (format!("budget.{verb}"), "a".to_owned()));
    assert_eq!(here.log().await, log);
}

#[tokio::test]
async fn what_is_declared_is_read_only() {
    let database = TestDatabase::sqlite();
    let here = Started::on(&database, vec![declared("file", "month")]).await;
    let raise = json!({"by_usd": "1", "until": "2027-01-01T00:00:00Z"});
    for refused in [
        here.budgets.replace("file", &body("file", "month"), NOW).await,
        here.budgets.delete("file", NOW).await,
        here.budgets.raise("file", &raise, NOW).await,
        here.budgets.end_raise("file", NOW).await,
    ] {
        let words = refused.expect_err("declared").to_string();
        assert!(words.contains("change [budgets.file] there, then reload"), "{words}");
    }
    let taken = here.budgets.create(&body("file", "day"), NOW).await.expect_err("taken");
    assert!(matches!(taken, BudgetsError::NameTaken(_)), "{taken}");
    assert_eq!(here.log().await, []);
}

#[tokio::test]
async fn a_raise_ends_by_hand_or_by_another_and_stays_over_a_replacement() {
    let database = TestDatabase::sqlite();
    let here = Started::on(&database, Vec::new()).await;
    here.budgets.create(&body("a", "day"), NOW).await.expect("made");
    let raise = |by: &str| json!({"by_usd": by, "until": "2027-01-01T00:00:00Z"});
    let limit = |budget: &Budget| budget.limit_at(NOW);
    assert_eq!(limit(&here.budgets.raise("a", &raise("2"), NOW).await.expect("raised")), Usd::dollars(12));
    assert_eq!(limit(&here.budgets.raise("a", &raise("3"), NOW).await.expect("raised")), Usd::dollars(13));
    let kept = here.budgets.replace("a", &body("a", "day"), NOW).await.expect("replaced");
    assert_eq!((limit(&kept), limit(&here.in_force.lock()[0])), (Usd::dollars(13), Usd::dollars(13)));
    assert_eq!(limit(&here.budgets.end_raise("a", NOW).await.expect("ended")), Usd::dollars(10));
    assert!(matches!(here.budgets.end_raise("a", NOW).await, Err(BudgetsError::NotRaised(_))));

    let before = here.log().await;
    for (body, want) in [
        (json!({}), &["by_usd: missing", "until: missing"][..]),
        (
            json!({"by_usd": true, "until": 5, "x": 1}),
            &["by_usd: not an amount", "until: not a text", "x: no such"],
        ),
        (json!({"by_usd": "1", "until": "2020-01-01T00:00:00Z"}), &["until: this moment is over"]),
        (
            json!({"by_usd": "999999999", "until": "2027-01-01T00:00:00Z"}),
            &["by_usd: limit and raise together"],
        ),
    ] {
        let said = problems(&here.budgets.raise("a", &body, NOW).await.expect_err("wrong"));
        let as_wanted = said.iter().zip(want).all(|(said, want)| said.starts_with(want));
        assert!(said.len() == want.len() && as_wanted, "{body}: {said:?}");
    }
    assert_eq!(here.log().await, before, "nothing was done");
}

#[tokio::test]
async fn every_problem_of_a_body_is_told_and_nothing_is_done() {
    let database = TestDatabase::sqlite();
    let here = Started::on(&database, vec![declared("file", "month")]).await;
    here.budgets.create(&body("a", "day"), NOW).await.expect("made");
    for (body, want) in [
        (json!([]), &[": not a JSON object", "limit_usd: missing", "name: missing", "window: missing"][..]),
        (
            json!({"name": "b/c", "limit_usd": [], "window": 5}),
            &["limit_usd: not an amount", "name: a budget's name", "window: not a text"],
        ),
        (
            json!({"name": "b", "limit_usd": "-1", "window": "day", "time_zone": "Mars/Base", "raise": {}, "scope": {
                "model": "x", "teem": "y", "purpose": "fun", "each": "planet"}, "action": "explode",
                "alert_at_percent": [0.5]}),
            &[
                "action: unknown variant `explode`",
                "alert_at_percent: each is",
                "limit_usd: an amount is",
                "raise: no such member",
                "scope.each: unknown variant `planet`",
                "scope.model: there is no such model",
                "scope.purpose: unknown variant `fun`",
                "scope.teem: no such member",
                "time_zone: there is no time zone",
            ],
        ),
        // contradictions, with a declared budget and with a stored one
        (body("b", "month"), &["scope: counts the same money in the same windows as the budget file"]),
        (body("b", "day"), &["scope: counts the same money in the same windows as the budget a"]),
    ] {
        let said = problems(&here.budgets.create(&body, NOW).await.expect_err("wrong"));
        let as_wanted = said.iter().zip(want).all(|(said, want)| said.starts_with(want));
        assert!(said.len() == want.len() && as_wanted, "{body}: {said:#?}");
    }
    let renamed = here.budgets.replace("a", &body("b", "day"), NOW).await.expect_err("renamed");
    assert_eq!(problems(&renamed), ["name: a budget keeps its name: make another one"]);
    assert!(matches!(here.budgets.create(&body("a", "hour"), NOW).await, Err(BudgetsError::NameTaken(_))));
    assert_eq!(here.names(), ["file", "a"]);
    assert_eq!(here.log().await.len(), 1);
}

#[tokio::test]
async fn what_could_not_be_put_in_force_is_tried_again() {
    let database = TestDatabase::sqlite();
    let here = Started::on(&database, Vec::new()).await;
    *here.away.lock() = true;
    let error = here.budgets.create(&body("a", "day"), NOW).await.expect_err("away");
    assert!(matches!(error, BudgetsError::NotInForce(_)), "{error}");
    assert_eq!(here.budgets.list().len(), 1, "it is kept");
    assert!(here.budgets.refresh().await.is_err());
    *here.away.lock() = false;
    here.budgets.refresh().await.expect("read");
    assert_eq!(here.names(), ["a"]);
}

#[tokio::test]
async fn a_configuration_that_contradicts_stored_budgets_is_refused() {
    let database = TestDatabase::sqlite();
    let here = Started::on(&database, Vec::new()).await;
    here.budgets.create(&body("a", "day"), NOW).await.expect("made");
    let said = here.budgets.declare(vec![declared("a", "hour"), declared("b", "day")]).expect_err("two");
    assert!(said[0].starts_with("budgets.a: there is a stored budget of that name: delete it"), "{said:?}");
    assert!(said[1].starts_with("budgets.b: counts the same money"), "{said:?}");
    here.budgets.declare(vec![declared("b", "hour")]).expect("no contradiction");
    here.budgets.refresh().await.expect("read");
    assert_eq!(here.names(), ["b", "a"]);
}
