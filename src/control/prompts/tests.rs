use std::collections::BTreeSet;

use super::*;
use crate::domain::catalog::tests::deployment;
use crate::domain::ledger::{Attribution, Entry, EntryKind};
use crate::domain::money::Usd;
use crate::domain::prompt::Injected;
use crate::domain::prompt::cost::Traffic;
use crate::store::audit::AuditRows;
use crate::store::ledger::LedgerRows;
use crate::store::testing::{TestDatabase, for_each_database};

/// Prompts, and the book that was published last.
struct Opened {
    prompts: Prompts,
    published: Arc<ArcSwap<PromptBook>>,
    log: AuditRows,
}

async fn open(database: &TestDatabase, files: Vec<FileDraft>) -> Opened {
    let store = database.open().await;
    let published = Arc::new(ArcSwap::default());
    let publish = {
        let published = Arc::clone(&published);
        move |book| published.store(Arc::new(book))
    };
    let reports = Arc::new(Reports::new(&store, None));
    let prompts = Prompts::open(&store, reports, files, publish, 1).await.expect("opened");
    Opened { prompts, published, log: AuditRows::new(&store) }
}

impl Opened {
    /// The words that a data plane would find.
    fn words(&self, wanted: &str) -> Option<String> {
        let book = self.published.load();
        book.find(&PromptRef::parse(wanted).expect("a reference")).map(|version| version.text.to_string())
    }

    async fn add(&self, text: &str, label: Option<&str>) -> Put {
        let body = json!({"name": "support", "text": text, "label": label});
        self.prompts.create(&body, 2).await.expect("made")
    }
}

fn put(number: u32, made: bool) -> Put {
    Put { name: "support".into(), number, made }
}

fn file(name: &str, text: &str, label: &str) -> FileDraft {
    let draft = Draft::read(&json!({"name": name, "text": text, "label": label, "author": "file"}));
    FileDraft { file: format!("{name}.md"), draft: draft.expect("sound") }
}

#[tokio::test]
async fn versions_are_numbered_and_the_same_words_are_the_same_version() {
    for_each_database(async |database| {
        let opened = open(database, Vec::new()).await;
        assert_eq!(opened.add("Be kind.", Some("production")).await, put(1, true));
        assert_eq!(opened.add("Be brief.", None).await, put(2, true));
        assert_eq!(opened.add("Be kind.", None).await, put(1, false));
        assert_eq!(opened.words("support").as_deref(), Some("Be kind."));
        assert_eq!(opened.words("support@2").as_deref(), Some("Be brief."));
        // the same words with other variables are another version
        let body = json!({"name": "support", "text": "Be {{ how }}.", "variables": [{"name": "how"}]});
        assert_eq!(opened.prompts.create(&body, 3).await.expect("made"), put(3, true));
        let body = json!({"name": "support", "text": "Be {{ how }}.",
            "variables": [{"name": "how", "default": "kind"}]});
        assert_eq!(opened.prompts.create(&body, 3).await.expect("made"), put(4, true));
        let again = open(database, Vec::new()).await;
        assert_eq!(*again.published.load(), *opened.published.load(), "after a restart");
        let listed = again.prompts.get("support").await.expect("there");
        let first = &listed.prompt.versions[&1];
        assert_eq!((&*first.sha256, &*first.author), (&*sha256_of("Be kind."), "admin"));
        let log = opened.log.page(None, 20).await.expect("read");
        let mut told: Vec<&str> = log.iter().map(|row| &*row.subject).collect();
        told.sort_unstable();
        assert_eq!(told, ["support@1", "support@2", "support@3", "support@4", "support@production"]);
    })
    .await;
}

#[tokio::test]
async fn a_label_moves_only_from_where_it_is_expected() {
    for_each_database(async |database| {
        let opened = open(database, Vec::new()).await;
        opened.add("one", Some("production")).await;
        opened.add("two", None).await;
        let moved = async |body: Value| opened.prompts.move_label("support", "production", &body, 5).await;
        let error = moved(json!({"version": 2, "expected": 2})).await.expect_err("it is at 1");
        assert!(matches!(&error, PromptsError::Moved { at: Some(1), .. }), "{error}");
        let error = moved(json!({"version": 2, "expected": null})).await.expect_err("it is there");
        assert!(matches!(&error, PromptsError::Moved { at: Some(1), .. }), "{error}");
        let error = moved(json!({"version": 3})).await.expect_err("there is none");
        assert!(matches!(&error, PromptsError::NoVersion(_)), "{error}");
        for (body, wrong) in
            [(json!({}), 1), (json!({"version": null}), 1), (json!({"version": "2", "note": 1, "x": 1}), 3)]
        {
            let error = moved(body).await.expect_err("wrong");
            let PromptsError::Invalid(problems) = &error else { panic!("{error}") };
            assert_eq!(problems.len(), wrong, "{problems:?}");
        }
        assert_eq!(opened.words("support").as_deref(), Some("one"));
        let body = json!({"version": 2, "expected": 1, "author": "ann", "note": "better"});
        let listed = moved(body.clone()).await.expect("moved");
        assert_eq!((listed.labels["production"].version, &*listed.labels["production"].author), (2, "ann"));
        assert_eq!(opened.words("support").as_deref(), Some("two"), "at once");
        moved(json!({"version": 2})).await.expect("it is there already");
        let moves = opened.prompts.moves("support").await.expect("read");
        let told: Vec<_> = moves.iter().map(|one| (one.from, one.to, one.note.as_str())).collect();
        assert_eq!(told, [(Some(1), Some(2), "better"), (None, Some(1), "")]);
        let gone = opened.prompts.remove_label("support", "production", &Catalog::default(), 6).await;
        assert!(gone.expect("removed").labels.is_empty());
        assert_eq!(opened.words("support"), None);
        let again = opened.prompts.remove_label("support", "production", &Catalog::default(), 6).await;
        assert!(matches!(again, Err(PromptsError::NoLabel(_))), "{again:?}");
    })
    .await;
}

/// Two gateways that write at once: numbers have no gap, the same words are one version, and nobody's move is lost.
#[tokio::test]
async fn racing_gateways_agree() {
    for_each_database(async |database| {
        let (here, there) = (open(database, Vec::new()).await, open(database, Vec::new()).await);
        for round in 0..6 {
            let both = format!("both {round}");
            let own = [format!("here {round}"), format!("there {round}")];
            let (one, other) = tokio::join!(here.add(&both, None), there.add(&both, None));
            assert_eq!(one.number, other.number, "one version");
            assert!(one.made != other.made, "made once");
            tokio::join!(here.add(&own[0], Some("production")), there.add(&own[1], Some("production")));
        }
        let listed = here.prompts.get("support").await.expect("there");
        assert_eq!(listed.prompt.versions.keys().copied().collect::<Vec<_>>(), (1..=18).collect::<Vec<_>>());
        let moves = here.prompts.moves("support").await.expect("read");
        assert_eq!(moves.len(), 12);
        // a chain from nothing to where it points
        let froms: BTreeSet<_> = moves.iter().map(|one| one.from).collect();
        let tos: BTreeSet<_> = moves.iter().map(|one| one.to).collect();
        assert_eq!((froms.len(), tos.len()), (12, 12));
        let at = Some(listed.prompt.labels["production"]);
        assert_eq!(tos.difference(&froms).copied().collect::<Vec<_>>(), [at]);
        there.prompts.refresh(9).await.expect("read");
        assert_eq!(*here.published.load(), *there.published.load());
    })
    .await;
}

#[tokio::test]
async fn files_are_carried_out_once_and_their_labels_are_theirs() {
    for_each_database(async |database| {
        let files = vec![file("sales", "Sell.", "production"), file("support", "Help.", "candidate")];
        let (here, there) = tokio::join!(open(database, files.clone()), open(database, files.clone()));
        for opened in [&here, &there] {
            opened.prompts.refresh(3).await.expect("read");
            assert_eq!(opened.words("sales").as_deref(), Some("Sell."));
            assert_eq!(
                opened.published.load().prompts["support"].versions.len(),
                1,
                "two starts, one version"
            );
        }
        let move_it = async |label: &str| {
            here.add("Other.", None).await;
            here.prompts.move_label("support", label, &json!({"version": 2}), 4).await
        };
        let error = move_it("candidate").await.expect_err("the file's");
        assert!(error.to_string().contains("support.md"), "{error}");
        move_it("production").await.expect("nobody's");
        let body = json!({"name": "support", "text": "Other.", "label": "candidate"});
        let error = here.prompts.create(&body, 4).await.expect_err("the file's");
        assert!(matches!(error, PromptsError::InFile { .. }), "{error}");
        let body = json!({"prompts": [{"name": "new", "text": "x"}, body]});
        here.prompts.put_all(&body, 4).await.expect_err("the file's");
        assert_eq!(here.words("new@1"), None, "nothing of it");
        let same = json!({"name": "support", "text": "Help.", "label": "candidate"});
        assert_eq!(here.prompts.create(&same, 4).await.expect("as it is"), put(1, false));
        let error = here.prompts.archive("support", &Catalog::default(), 4).await.expect_err("the file's");
        assert!(matches!(error, PromptsError::InFile { .. }), "{error}");

        // the file changes, then is gone
        here.prompts.declare(vec![file("support", "Help well.", "candidate")]);
        assert_eq!(here.words("support@candidate").as_deref(), Some("Help."), "not before the refresh");
        here.prompts.refresh(5).await.expect("carried out");
        assert_eq!(here.words("support@candidate").as_deref(), Some("Help well."));
        assert_eq!(here.words("sales").as_deref(), Some("Sell."), "what is there stays");
        here.prompts.declare(Vec::new());
        here.prompts.move_label("support", "candidate", &json!({"version": 1}), 6).await.expect("free again");
        here.prompts.refresh(7).await.expect("read");
        assert_eq!(here.words("support@candidate").as_deref(), Some("Help."), "files are carried out once");
    })
    .await;
}

#[tokio::test]
async fn a_list_is_put_whole_or_not_at_all() {
    let database = TestDatabase::sqlite();
    let opened = open(&database, Vec::new()).await;
    opened.add("one", Some("production")).await;
    let body = json!({"prompts": [
        {"name": "support", "text": "two", "label": "production"},
        {"name": "sales", "text": "Sell.", "label": "production"},
    ]});
    let done = opened.prompts.put_all(&body, 3).await.expect("put");
    assert_eq!(done, [put(2, true), Put { name: "sales".into(), number: 1, made: true }]);
    assert_eq!(opened.words("support").as_deref(), Some("two"));
    let again = opened.prompts.put_all(&body, 3).await.expect("put");
    assert!(again.iter().all(|put| !put.made), "{again:?}");
    let wrong = json!({"prompts": [{"name": "new", "text": "x"}, {"name": "bad", "text": "{{"}]});
    opened.prompts.put_all(&wrong, 3).await.expect_err("wrong");
    assert_eq!(opened.prompts.list().await.expect("read").len(), 2);
}

#[tokio::test]
async fn an_archived_prompt_is_nobodys_and_comes_back() {
    let database = TestDatabase::sqlite();
    let opened = open(&database, Vec::new()).await;
    opened.add("one", Some("production")).await;
    opened.prompts.archive("support", &Catalog::default(), 3).await.expect("archived");
    assert_eq!(opened.words("support@1"), None);
    assert!(opened.prompts.list().await.expect("read").is_empty());
    let again = opened.prompts.archive("support", &Catalog::default(), 3).await;
    assert!(matches!(again, Err(PromptsError::Unknown(_))), "{again:?}");
    assert_eq!(opened.add("one", None).await, put(1, false));
    assert_eq!(opened.words("support@1").as_deref(), Some("one"), "back");
    assert_eq!(opened.words("support"), None, "its labels are gone");
    opened.prompts.archive("support", &Catalog::default(), 3).await.expect("archived");
    assert_eq!(opened.add("two", None).await, put(2, true), "numbers go on");
}

fn catalog() -> Catalog {
    use crate::domain::prompt::{Injection, Mode, Role};
    let named = |prompt: &str| {
        let prompt = PromptRef::parse(prompt).expect("a reference");
        Arc::new(Injection { prompt, mode: Mode::default(), role: Role::default() })
    };
    let mut catalog = Catalog::default();
    for (name, prompt, trained_with) in
        [("a", Some("support@candidate"), None), ("b", None, Some("sales@2")), ("c", None, None)]
    {
        let mut made = Arc::unwrap_or_clone(deployment(name, "gpt-4o"));
        made.prompt = prompt.map(named);
        made.trained_with =
            trained_with.map(|prompt| TrainedWith::Version(PromptRef::parse(prompt).expect("a reference")));
        catalog.deployments.insert(name.into(), Arc::new(made));
    }
    catalog
}

#[tokio::test]
async fn what_the_configuration_names_stays() {
    let database = TestDatabase::sqlite();
    let opened = open(&database, Vec::new()).await;
    opened.add("one", Some("candidate")).await;
    opened
        .prompts
        .create(&json!({"name": "sales", "text": "x", "label": "production"}), 1)
        .await
        .expect("made");
    let catalog = catalog();
    for (name, by) in [("support", "the deployment a"), ("sales", "the deployment b")] {
        let error = opened.prompts.archive(name, &catalog, 3).await.expect_err("in use");
        assert!(error.to_string().contains(by), "{error}");
    }
    let error = opened.prompts.remove_label("support", "candidate", &catalog, 3).await.expect_err("in use");
    assert!(error.to_string().contains("the deployment a"), "{error}");
    opened
        .prompts
        .remove_label("sales", "production", &catalog, 3)
        .await
        .expect("a version is named, no label");
}

#[tokio::test]
async fn a_version_is_rendered_and_counted_for_each_deployment() {
    let database = TestDatabase::sqlite();
    let opened = open(&database, Vec::new()).await;
    let body = json!({"name": "support", "text": "Be {{ how }}.", "label": "production",
        "variables": [{"name": "how"}]});
    opened.prompts.create(&body, 1).await.expect("made");
    let render = async |body: Value| opened.prompts.render("support", &body, &catalog()).await;
    let rendered = render(json!({"variables": {"how": "kind"}})).await.expect("rendered");
    assert_eq!((&*rendered.words, rendered.number), ("Be kind.", 1));
    assert_eq!(rendered.tokens.values().copied().collect::<Vec<_>>(), [3, 3, 3]);
    for (body, path) in [
        (json!({}), "variables.how"),
        (json!({"variables": {"how": 1}, "version": 1}), "variables.how"),
        (json!({"variables": []}), "variables"),
        (json!({"version": 1, "label": "production"}), "label"),
    ] {
        let error = render(body.clone()).await.expect_err("wrong");
        let PromptsError::Invalid(problems) = &error else { panic!("{error}") };
        assert_eq!(
            problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(),
            [path],
            "{body}"
        );
    }
    let error = render(json!({"label": "nowhere"})).await.expect_err("no such label");
    assert!(matches!(error, PromptsError::NoVersion(_)), "{error}");
}

/// Counted by hand: `Be kind and brief.` has five tokens of gpt-4o's, `Be kind.` three, and `Be {{ how }}.` without its
/// value two.
#[tokio::test]
async fn a_cost_says_what_a_shorter_version_would_have_saved() {
    const NOON: i64 = 1_795_348_800_000;
    for_each_database(async |database| {
        let opened = open(database, Vec::new()).await;
        opened.add("Be kind and brief.", Some("production")).await;
        opened.add("Be kind.", None).await;
        let variable = json!({"name": "support", "text": "Be {{ how }}.", "variables": [{"name": "how"}]});
        opened.prompts.create(&variable, 3).await.expect("made");
        let store = database.open().await;
        let entry = |seq: i64, prompt: &str, deployment: &str, days_ago: i64, tokens, nanos| {
            let on =
                Attribution { deployment: deployment.into(), model: "m".into(), ..Attribution::default() };
            let drafted =
                Entry::drafted(EntryKind::Usage, NOON - days_ago * 86_400_000, "req".into(), Arc::new(on));
            let injected = Injected { prompt: prompt.into(), tokens, cost: Usd::from_nanos(nanos) };
            Entry { seq, injected: Some(Arc::new(injected)), ..drafted }
        };
        let entries = [
            entry(1, "support@1", "a", 0, 5, 10),
            entry(2, "support@1", "a", 0, 5, 11),
            // of a deployment that is gone; half of it came out of the provider's cache
            entry(3, "support@1", "gone", 0, 5, 6),
            // two tokens of its own and four of a value
            entry(4, "support@3", "a", 1, 6, 12),
            entry(5, "support@1", "a", 40, 5, 10),
            entry(6, "support-2@1", "a", 0, 7, 7),
        ];
        LedgerRows::new(&store).append(&entries).await.expect("written");
        let today = NOON / 86_400_000;
        let query = CostQuery { from_day: today - 29, to_day: today, compare: None };
        let report = opened.prompts.cost("support", query, &catalog()).await.expect("reported");
        let sums = Traffic { requests: 4, tokens: 21, cost: Usd::from_nanos(39) };
        assert_eq!((report.sums, report.days.len()), (sums, 3));
        let told: Vec<_> = report
            .versions
            .iter()
            .flat_map(|used| {
                let one = |other: &Instead| (used.version, other.version, other.tokens, other.saved.nanos());
                used.instead.iter().map(one).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(
            told,
            [
                // on a: 4 of 10 tokens at 2.1 nanos, rounded down; where it is gone: 2 of 5 at 1.2
                (1, 2, 9, 8 + 2),
                (1, 3, 6, 12 + 3),
                // three tokens more, and one more, at 2 nanos
                (3, 1, 9, -6),
                (3, 2, 7, -2),
            ]
        );
        let one = CostQuery { compare: Some(2), ..query };
        let report = opened.prompts.cost("support", one, &catalog()).await.expect("reported");
        let cost = Usd::from_nanos(27 - 10);
        let instead = Instead { version: 2, tokens: 9, cost, saved: Usd::from_nanos(10) };
        assert_eq!(report.versions[0].instead, [instead]);
        let none = CostQuery { compare: Some(9), ..query };
        let error = opened.prompts.cost("support", none, &catalog()).await.expect_err("there is none");
        assert!(matches!(error, PromptsError::NoVersion(_)), "{error}");
    })
    .await;
}
