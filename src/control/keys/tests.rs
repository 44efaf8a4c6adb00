use std::ops::Deref;

use super::*;
use crate::control::teams::{Teams, TeamsError};
use crate::control::{Directory, LiveKeys};
use crate::domain::key::{KeyHash, LiveKey};
use crate::domain::limit::RateLimits;
use crate::store::audit::AuditRows;
use crate::store::keys::KeyRows;
use crate::store::teams::TeamRows;
use crate::store::{DatabaseConfig, Store};
use arc_swap::ArcSwap;

const PEPPER: &str = "pepper";

struct Installation {
    folder: tempfile::TempDir,
}

/// Keys, teams, and what was published last.
struct Started {
    keys: Keys,
    teams: Teams,
    directory: Arc<Directory>,
    log: AuditRows,
    published: Arc<ArcSwap<LiveKeys>>,
}

impl Installation {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    async fn start(&self) -> Started {
        self.start_with(Vec::new()).await
    }

    async fn start_with(&self, declared: Vec<Team>) -> Started {
        let store = Store::open(&DatabaseConfig::in_folder(self.folder.path())).await.expect("opened");
        let published = Arc::new(ArcSwap::default());
        let publish = {
            let published = Arc::clone(&published);
            move |live| published.store(Arc::new(live))
        };
        let directory = Directory::open(KeyRows::new(&store), TeamRows::new(&store), declared, publish);
        let directory = Arc::new(directory.await.expect("read"));
        Started {
            keys: Keys::new(Arc::clone(&directory), Secret::new(PEPPER)),
            teams: Teams::new(Arc::clone(&directory)),
            directory,
            log: AuditRows::new(&store),
            published,
        }
    }
}

impl Started {
    fn live(&self, presented: &Secret) -> Option<LiveKey> {
        self.published.load().get(&KeyHash::of(presented.expose(), &Secret::new(PEPPER))).cloned()
    }

    fn find(&self, presented: &Secret) -> Option<VirtualKey> {
        self.live(presented).map(|live| VirtualKey::clone(&live.key))
    }

    async fn make(&self, alias: &str, now_ms: i64) -> (VirtualKey, Secret) {
        let (listed, secret) = self.create(&json!({"alias": alias}), now_ms).await.expect("made");
        (listed.key, secret)
    }
}

impl Deref for Started {
    type Target = Keys;

    fn deref(&self) -> &Keys {
        &self.keys
    }
}

fn problems<T>(result: Result<T, KeysError>) -> Vec<String> {
    match result {
        Err(KeysError::Invalid(problems)) => {
            problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
        }
        Err(other) => vec![other.to_string()],
        Ok(_) => Vec::new(),
    }
}

#[tokio::test]
async fn a_key_lives_from_create_to_revoke_and_over_a_restart() {
    let installation = Installation::new();
    let keys = installation.start().await;
    let (made, secret) = keys.make("support", 1_000).await;
    assert!(made.id.starts_with("key_") && made.id.len() == 28, "{}", made.id);
    assert!(secret.expose().ends_with(&made.last_four));
    assert_eq!(keys.find(&secret), Some(made.clone()));
    assert_eq!(keys.find(&Secret::new("sk-tg-other")), None);
    assert_eq!(installation.start().await.find(&secret), Some(made.clone()), "after a restart");

    let revoked = keys.revoke("support", 2_000).await.expect("revoked").key;
    assert_eq!(revoked.revoked_at_ms, Some(2_000));
    assert_eq!(keys.find(&secret), None, "gone at once");
    assert_eq!(installation.start().await.find(&secret), None, "after a restart");
    let again = keys.revoke(&made.id, 3_000).await.expect("once more");
    assert_eq!(again.key.revoked_at_ms, Some(2_000));
    assert!(matches!(keys.revoke("support", 3_000).await, Err(KeysError::Unknown(_))));
    assert!(matches!(keys.update(&made.id, &json!({}), 3_000).await, Err(KeysError::Revoked(_))));
    let all = keys.list(3_000).await.expect("listed");
    assert_eq!(all.into_iter().map(|listed| listed.key).collect::<Vec<_>>(), [revoked]);
}

#[tokio::test]
async fn a_change_elsewhere_is_seen_after_a_refresh() {
    let installation = Installation::new();
    let (here, there) = (installation.start().await, installation.start().await);
    let (_, secret) = there.make("support", 1).await;
    assert_eq!(here.find(&secret), None);
    here.refresh().await.expect("read");
    assert!(here.find(&secret).is_some());
}

#[tokio::test]
async fn an_alias_is_free_again_after_its_key() {
    let installation = Installation::new();
    let keys = installation.start().await;
    keys.make("a", 1).await;
    let (_, second) = keys.make("b", 1).await;
    assert!(matches!(keys.create(&json!({"alias": "a"}), 1).await, Err(KeysError::AliasTaken(_))));
    assert!(matches!(keys.update("b", &json!({"alias": "a"}), 1).await, Err(KeysError::AliasTaken(_))));
    keys.revoke("a", 2).await.expect("revoked");
    keys.update("b", &json!({"alias": "a"}), 3).await.expect("free again");
    assert_eq!(keys.find(&second).map(|key| key.alias), Some("a".into()), "seen at once");
}

#[tokio::test]
async fn the_first_key_is_made_once() {
    let installation = Installation::new();
    let keys = installation.start().await;
    let (first, secret) = keys.ensure_first_key(1).await.expect("asked").expect("made");
    assert_eq!((&*first.key.alias, keys.find(&secret).is_some()), (FIRST_ALIAS, true));
    assert!(keys.ensure_first_key(2).await.expect("asked").is_none());
    keys.revoke(&first.key.id, 3).await.expect("revoked");
    let later = installation.start().await.ensure_first_key(4).await;
    assert!(later.expect("asked").is_none(), "not after a revoke");
}

#[tokio::test]
async fn every_mistake_in_a_body_is_told_and_nothing_is_done() {
    let installation = Installation::new();
    let keys = installation.start().await;
    let now_ms = 1_800_000_000_000;
    for (body, wrong) in [
        (json!({}), &["alias: missing"][..]),
        (json!({"alias": "key_1"}), &["alias: an alias has"]),
        (
            json!({
                "alias": "", "team": "nobody", "expires_at": 1_700_000_000, "models": ["a*b*", ""],
                "rights": {"tuning": "all", "unbounded_cost_usd": "1e3", "root": true},
                "tags": ["a b"], "limits": {"requests_per_minute": 0, "rpm": 5}, "budget": 5,
                "prompts": ["a", "a@1", 2], "cache": "yes", "variables": {"a": {}},
            }),
            &[
                "alias: an alias has",
                "budget: no such member",
                "cache: not one of",
                "expires_at: in the past",
                "limits.requests_per_minute: not a whole number of 1",
                "limits.rpm: no such member",
                "models[0]: a pattern has one `*`",
                "models[1]: a model name can't be empty",
                "prompts[1]: no name of a prompt",
                "prompts[2]: not a text",
                "rights.root: no such member",
                "rights.tuning: not one of",
                "rights.unbounded_cost_usd: an amount is written",
                "tags[0]: a tag has",
                "team: there is no team",
                "variables: \"a\" is no text",
            ],
        ),
        (json!({"alias": "a", "variables": {"a": [1]}}), &["variables: \"a\" is no text"]),
        (json!({"alias": "a", "variables": {"a": "x".repeat(8 << 10)}}), &["variables: more than 64"]),
        (json!({"alias": "a", "expires_at": "tomorrow"}), &["expires_at: not a time"]),
        (json!({"alias": "a", "expires_at": i64::MAX}), &["expires_at: not a time"]),
    ] {
        let found = problems(keys.create(&body, now_ms).await);
        assert_eq!(found.len(), wrong.len(), "{found:#?}");
        for (found, start) in found.iter().zip(wrong) {
            assert!(found.starts_with(start), "{found}\nshould start\n{start}");
        }
    }
    assert!(keys.list(now_ms).await.expect("listed").is_empty());
    assert!(keys.log.page(None, 9).await.expect("read").is_empty());
}

#[tokio::test]
async fn terms_are_set_changed_and_taken_back() {
    let installation = Installation::new();
    let keys = installation.start().await;
    keys.teams.create(&json!({"alias": "support", "tags": ["t"]}), 1).await.expect("made");
    let body = json!({
        "alias": "app", "team": "support", "expires_at": "2027-01-31T00:00:00Z", "models": ["b", "a/*"],
        "rights": {"tuning": "write", "unbounded_cost_usd": 0.5}, "tags": ["z", "a", "z"],
        "limits": {"requests_per_minute": 3, "concurrent": 2}, "cache": "off", "prompts": ["s-*", "a"],
        "variables": {"tone": "kind", "n": 1.5, "list": ["a"], "on": true},
    });
    let (made, secret) = keys.create(&body, 1).await.expect("made");
    let live = keys.live(&secret).expect("published");
    assert_eq!(live.team.as_deref().map(|team| &*team.alias), Some("support"));
    let told = terms_json(&made.key.terms, made.team.as_deref());
    let mut want = json!({
        "team": "support", "expires_at": 1_801_353_600, "models": ["a/*", "b"],
        "rights": {"tuning": "write", "unbounded_cost_usd": "0.50"}, "tags": ["a", "z"],
        "limits": {"requests_per_minute": 3, "tokens_per_minute": null, "concurrent": 2},
        "prompts": ["a", "s-*"], "variables": {"tone": "kind", "n": 1.5, "list": ["a"], "on": true}, "cache": "off",
    });
    assert_eq!(told, want);
    let change = json!({"limits": {"requests_per_minute": null, "tokens_per_minute": 9}, "team": null});
    let changed = keys.update("app", &change, 2).await.expect("changed");
    want["team"] = Value::Null;
    want["limits"] = json!({"requests_per_minute": null, "tokens_per_minute": 9, "concurrent": 2});
    assert_eq!(terms_json(&changed.key.terms, changed.team.as_deref()), want);
    let change = json!({"limits": null, "rights": null, "models": null, "tags": [], "expires_at": null,
        "prompts": null, "variables": null, "cache": null});
    let changed = keys.update("app", &change, 2).await.expect("changed");
    assert_eq!(changed.key.terms, Terms::default());
    assert_eq!(keys.find(&secret), Some(changed.key));
}

#[tokio::test]
async fn an_old_secret_is_good_for_its_grace_and_not_longer() {
    let installation = Installation::new();
    let keys = installation.start().await;
    let (made, first) = keys.make("app", 0).await;
    let (rotated, second) = keys.rotate("app", &json!({"grace_ms": 500}), 1_000).await.expect("rotated");
    assert_eq!((rotated.key.id.clone(), rotated.old_secret_until_ms), (made.id.clone(), Some(1_500)));
    let ended = |secret: &Secret, now_ms| keys.live(secret).expect("known").ended_at_ms(now_ms);
    assert_eq!((ended(&first, 1_499), ended(&first, 1_500)), (None, Some(1_500)));
    assert_eq!(ended(&second, i64::MAX), None);
    assert_eq!(keys.get("app", 1_500).await.expect("found").old_secret_until_ms, None);
    let (_, third) = keys.rotate(&made.id, &json!({"grace_ms": 0}), 1_100).await.expect("rotated");
    assert!(keys.live(&first).is_none() && keys.live(&second).is_none(), "ended at once");
    assert!(keys.live(&third).is_some());
    let wrong = keys.rotate("app", &json!({"grace": 1}), 1).await;
    assert_eq!(problems(wrong), ["grace: no such member"]);
    assert!(installation.start().await.live(&third).is_some(), "after a restart");
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_without_a_secret() {
    let installation = Installation::new();
    let keys = installation.start().await;
    let (made, first) = keys.make("app", 1).await;
    keys.update("app", &json!({"tags": ["a"]}), 2).await.expect("changed");
    let (_, second) = keys.rotate("app", &json!({}), 3).await.expect("rotated");
    keys.revoke("app", 4).await.expect("revoked");
    keys.revoke(&made.id, 5).await.expect("nothing more");
    let rows = keys.log.page(None, 9).await.expect("read");
    let told: Vec<(&str, i64)> = rows.iter().map(|row| (row.action.as_str(), row.at_ms)).collect();
    assert_eq!(told, [("key.revoke", 4), ("key.rotate", 3), ("key.update", 2), ("key.create", 1)]);
    let text = format!("{rows:?}");
    assert!(rows.iter().all(|row| *row.subject == *made.id && row.actor == "admin"), "{text}");
    assert!(!text.contains(first.expose()) && !text.contains(second.expose()), "{text}");
    let detail: Value = serde_json::from_str(&rows[2].detail).expect("JSON");
    assert_eq!((&detail["before"]["tags"], &detail["after"]["tags"]), (&json!([]), &json!(["a"])));
}

#[tokio::test]
async fn a_team_with_live_keys_is_not_archived() {
    let installation = Installation::new();
    let keys = installation.start().await;
    let team = keys.teams.create(&json!({"alias": "support"}), 1).await.expect("made").team;
    assert!(team.id.starts_with("team_") && team.id.len() == 29, "{}", team.id);
    assert!(matches!(
        keys.teams.create(&json!({"alias": "support"}), 1).await,
        Err(TeamsError::AliasTaken(_))
    ));
    keys.create(&json!({"alias": "app", "team": "support"}), 1).await.expect("made");
    let refused = keys.teams.archive("support", 2).await.expect_err("it owns a key").to_string();
    assert!(refused.contains("owns live keys (app)"), "{refused}");
    keys.revoke("app", 3).await.expect("revoked");
    let archived = keys.teams.archive("support", 4).await.expect("archived").team;
    assert_eq!(archived.archived_at_ms, Some(4));
    let refused = keys.create(&json!({"alias": "b", "team": &*team.id}), 5).await;
    assert_eq!(problems(refused), [format!("team: the team {} is archived", team.id)]);
    assert!(matches!(keys.teams.update(&team.id, &json!({}), 5).await, Err(TeamsError::Archived(_))));
    keys.teams.create(&json!({"alias": "support"}), 6).await.expect("the alias is free again");
}

#[tokio::test]
async fn a_declared_team_is_read_only_and_stays_while_it_owns_keys() {
    let installation = Installation::new();
    let declared = |limit| {
        let limits = RateLimits { requests_per_minute: Some(limit), ..RateLimits::default() };
        vec![Team::declared("ops", limits, Vec::new())]
    };
    let keys = installation.start_with(declared(3)).await;
    for refused in [
        keys.teams.update("ops", &json!({}), 1).await,
        keys.teams.archive("team_ops", 1).await,
        keys.teams.create(&json!({"alias": "ops"}), 1).await,
    ] {
        assert!(matches!(refused, Err(TeamsError::Declared(_) | TeamsError::AliasTaken(_))), "{refused:?}");
    }
    let (_, secret) = keys.create(&json!({"alias": "app", "team": "ops"}), 1).await.expect("made");
    let limit = || keys.live(&secret).expect("live").team.expect("a team").limits.requests_per_minute;
    assert_eq!(limit(), Some(3));
    keys.directory.declare(declared(4)).expect("another limit");
    keys.refresh().await.expect("read");
    assert_eq!(limit(), Some(4));
    let refused = keys.directory.declare(Vec::new()).expect_err("it owns a key");
    assert!(refused[0].starts_with("teams.ops: gone, but 1 live keys belong to it"), "{refused:?}");
    assert_eq!(limit(), Some(4));
    keys.revoke("app", 2).await.expect("revoked");
    keys.directory.declare(Vec::new()).expect("nobody's");
}
