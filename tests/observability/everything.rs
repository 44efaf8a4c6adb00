//! A gateway that has everything there is to see, and traffic of every kind: served, refused, retried, shed, broken off,
//! answered from the cache, with words put in.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::support::multipart::Form;
use crate::support::provider::tuning::{Pace, Status};
use crate::support::provider::{Trouble, UPSTREAM_KEY};
use crate::support::setup::FINE_TUNED;
use crate::support::{
    Call, Connection, Gate, Reply, Setup, SimulatedProvider, TestGateway, eventually, training_rows,
};

const CHAT: &str = "/v1/chat/completions";
const JOBS: &str = "/admin/v1/fine_tuning/jobs";
/// The worker's model.
const LOCAL: &str = "smollm2-135m";
/// Another fine-tune of the same base.
const OTHER_TUNED: &str = "ft:gpt-4.1-mini-2025-04-14:acme:writer:C3yZ";
/// Models that a usual provider answers for.
const WELL: [&str; 6] = ["support-bot", "writer", "mini", "thinker", "lora", "mystery"];
/// Events of a stream that come before it breaks or is left.
const EVENTS: usize = 3;
/// Models whose answers are kept; questions that mean the same are nothing to the first, served at the second, measured
/// at the third.
const KEPT: [&str; 3] = ["faq", "faq-alike", "faq-shadow"];
/// Models whose requests get a stored prompt.
const PROMPTED: [&str; 2] = ["prompted", "bound"];
/// What no stored prompt is, by its SHA-256.
const OTHER_WORDS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The gateway, those behind it, and its keys.
pub(super) struct Everything {
    pub(super) gateway: TestGateway,
    /// Whose answers are as they should be.
    well: SimulatedProvider,
    /// Whose next answers are set by the traffic.
    ill: SimulatedProvider,
    /// Takes one request at a time.
    narrow: SimulatedProvider,
    /// One of each team, and one without.
    keys: Vec<String>,
    /// Rounds of traffic so far: what no round before has asked.
    rounds: AtomicU32,
}

impl Everything {
    #[track_caller]
    pub(super) fn start() -> Self {
        let [well, ill, dead, narrow, busy] = [(); 5].map(|()| SimulatedProvider::start());
        well.charges("acme-writer", 0, 1_000_000);
        // of the worker among its roles alone is it believed
        well.computes(Some(300_000));
        well.tuning().pace(Pace::EveryPoll(1));
        let shut_down = json!({"id": FINE_TUNED, "object": "model", "shutdown_date": "2077-01-14"});
        well.lists(Reply::json(200, &json!({"object": "list", "data": [shut_down]})));
        dead.always(Reply::trouble(Trouble::server_error()));
        busy.always(Reply::trouble(Trouble::rate_limited_for_ms(20)));
        let all = [&well, &ill, &dead, &narrow, &busy];
        let setup = Setup::bare()
            .patient()
            .file("upstream.key", UPSTREAM_KEY)
            .retirements("poll_ms = 1000")
            .worker(&format!(
                "model_file = {:?}\nname = \"{LOCAL}\"\nembedding_model = {:?}\nthreads = 1",
                model_file(),
                embedding_model()
            ))
            .and(&catalog(&all.map(SimulatedProvider::url)))
            .and(BUDGETS)
            // so slow as this machine may be just now
            .and("\n[cache]\nembed_timeout_ms = 1000\n")
            .and("\n[tuning]\npoll_ms = 50\npoll_max_ms = 200\n");
        let setup = all.into_iter().fold(setup, Setup::watched);
        let gateway = TestGateway::with(setup).start();
        let keys = ["support", "sales", ""].map(|team| {
            let mut body = json!({"alias": format!("key-of-{team}")});
            if !team.is_empty() {
                body["team"] = team.into();
            }
            let made = gateway.admin(Call::post("/admin/v1/keys", &body)).expect(201).json();
            made["key"].as_str().expect("a key").to_owned()
        });
        let everything = Self { gateway, well, ill, narrow, keys: keys.into(), rounds: AtomicU32::new(0) };
        everything.prompt("production", "You answer for Acme, kindly and in one sentence.");
        eventually("an answer of the worker", || {
            (everything.gateway.post(CHAT, &question(LOCAL, "first")).status == 200).then_some(())
        });
        everything
    }

    /// A round of traffic of every kind.
    #[track_caller]
    pub(super) fn traffic(&self) {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        self.prompt("candidate", &format!("You answer for Acme. Draft {round}."));
        for key in &self.keys {
            self.served(key);
            self.kept(key, round);
        }
        self.shared(round);
        self.refused();
        self.fallen_ill();
        self.full();
        self.left();
        self.odd_bills();
        self.trained();
        self.gateway.post(CHAT, &streamed(LOCAL, "local")).expect(200);
        self.gateway.reload().expect(200);
    }

    /// Every model and endpoint, whole and streamed.
    fn served(&self, key: &str) {
        let ask = |path: &str, body: &Value| {
            self.gateway
                .call(Call::post(path, body).bearer(key).header("x-tunegate-tags", "live"))
                .expect(200)
        };
        for model in WELL.into_iter().chain(PROMPTED) {
            ask(CHAT, &question(model, "ann"));
            ask(CHAT, &streamed(model, "bob"));
        }
        ask("/v1/embeddings", &json!({"model": "embedder", "input": "one two"}));
        ask("/v1/moderations", &json!({"model": "any/omni-moderation-latest", "input": "a kind word"}));
        for stream in [false, true] {
            ask(
                "/v1/completions",
                &json!({"model": "mini", "prompt": "hi", "max_tokens": 9, "stream": stream}),
            );
            let input = json!({"model": "mini", "input": "hi", "max_output_tokens": 20, "stream": stream});
            ask("/v1/responses", &input);
        }
    }

    /// Makes a version of a stored prompt, and points a label at it.
    #[track_caller]
    fn prompt(&self, label: &str, text: &str) {
        let version = json!({"name": "support", "text": text, "label": label});
        let made = self.gateway.admin(Call::post("/admin/v1/prompts", &version));
        assert!([200, 201].contains(&made.status), "{}", made.text());
    }

    /// Questions that are asked twice, and in other words.
    fn kept(&self, key: &str, round: u32) {
        let ask = |body: &Value| self.gateway.call(Call::post(CHAT, body).bearer(key)).expect(200);
        for model in KEPT {
            for words in [
                "How do I reset my password?",
                "How do I reset my password?",
                "I forgot my password. How do I reset it?",
                "How long does it take to ship to Norway?",
            ] {
                let mut body = exact(model, &format!("{words} ({round})"));
                ask(&body);
                body["stream"] = true.into();
                let told = ask(&body);
                let result = told.header("x-tunegate-cache");
                assert!(model != "faq" || result == Some("hit"), "{result:?}: {words}");
            }
        }
        ask(&question("faq", "ann"));
    }

    /// Two that ask the same at once; a call that nobody could have joined with profit.
    fn shared(&self, round: u32) {
        let words = format!("What is joined? ({round})");
        let gate = Gate::new();
        self.well.replies(Reply::usual().waits_for(&gate));
        let before = posts(&self.well);
        let mut leads = self.gateway.send(CHAT, &exact("faq", &words));
        await_posts(&self.well, before + 1);
        let mut joins = self.gateway.send(CHAT, &exact("faq", &words));
        let follows = "\ntunegate_cache_followers 1\n";
        eventually("one that joins", || self.exposition().contains(follows).then_some(()));
        gate.open();
        leads.answer().expect(200);
        assert_eq!(joins.answer().expect(200).header("x-tunegate-cache"), Some("joined"));
        self.ill.always(Reply::trouble(Trouble::server_error()));
        self.gateway.post(CHAT, &exact("shaky", &words));
    }

    /// Every way in which we say no before anybody is asked.
    fn refused(&self) {
        let chat = |body: &Value| self.gateway.post(CHAT, body);
        chat(&question("spent", "ann")).expect(429);
        chat(&question("unheard-of", "ann")).expect(404);
        chat(&question("unpriced", "ann"));
        chat(&question("retired", "ann"));
        chat(&json!({"model": "mini"})).expect(400);
        self.gateway.call(Call::post(CHAT, &question("mini", "ann")).bearer("sk-tg-made-up")).expect(401);
        self.gateway.call(Call::get("/v1/nothing-here"));
    }

    /// An upstream that fails in every way; another one stands in.
    fn fallen_ill(&self) {
        let usual = Reply::usual;
        let ills = [
            Reply::trouble(Trouble::server_error()),
            Reply::trouble(Trouble::unauthorized()),
            Reply::trouble(Trouble::bad_request()),
            usual().resets(),
            usual().resets_after_bytes(40),
            usual().resets_after_events(EVENTS),
            usual().hangs(),
            usual().states_length_off_by(10),
            Reply::body(200, "text/html", b"<html>Welcome</html>".to_vec()),
        ];
        for ill in ills {
            self.ill.always(ill);
            self.gateway.post(CHAT, &question("backed", "ann"));
            self.gateway.post(CHAT, &streamed("ill", "ann"));
        }
        self.gateway.post(CHAT, &question("crowded", "ann")).expect(200);
        for _ in 0..3 {
            self.gateway.post(CHAT, &question("dead", "ann"));
        }
    }

    /// More than a deployment takes: one is served, one waits, one is sent away.
    fn full(&self) {
        let gate = Gate::new();
        self.narrow.replies(Reply::usual().waits_for(&gate));
        let before = posts(&self.narrow);
        let mut inside = self.gateway.send(CHAT, &question("narrow", "inside"));
        await_posts(&self.narrow, before + 1);
        let mut waits = self.gateway.send(CHAT, &question("narrow", "waits"));
        let waiting = r#"tunegate_deployment_waiting{deployment="narrow"} 1"#;
        eventually("one that waits", || self.exposition().contains(waiting).then_some(()));
        self.gateway.post(CHAT, &question("narrow", "too-many")).expect(429);
        gate.open();
        inside.answer().expect(200);
        waits.answer().expect(200);
    }

    /// Clients that leave.
    fn left(&self) {
        for model in ["support-bot", "thinker"] {
            self.well.replies(Reply::usual().hangs_after_events(EVENTS));
            let mut open = self.gateway.open(CHAT, &streamed(model, "leaves"));
            open.await_events(EVENTS);
            drop(open);
            self.gateway.notice_departures();
            self.well.await_fate();
        }
        let mut long = streamed(LOCAL, "leaves");
        long["max_tokens"] = 500.into();
        let mut open = self.gateway.open(CHAT, &long);
        open.await_events(EVENTS);
        drop(open);
        self.gateway.notice_departures();
    }

    /// A bill beyond its bound, and an answer that does not say what it used.
    fn odd_bills(&self) {
        let usage = json!({"prompt_tokens": 1, "completion_tokens": 75, "total_tokens": 76});
        let beyond = json!({"object": "chat.completion", "choices": [], "usage": usage});
        self.well.replies(Reply::json(200, &beyond).billed(1, 75));
        self.gateway.post(CHAT, &question("beyond", "ann")).expect(200);
        let delta = json!({"choices": [{"index": 0, "delta": {"content": "Four."}, "finish_reason": null}]});
        let pieces = vec![format!("data: {delta}\n\n").into_bytes(), b"data: [DONE]\n\n".to_vec()];
        self.well.replies(Reply::stream(pieces, 1, 2).without_usage());
        self.gateway.post(CHAT, &streamed("mini", "untold")).expect(200);
    }

    /// A job that makes a model and one that fails, on a file that was checked.
    fn trained(&self) {
        let file = |rows: usize| {
            let rows = training_rows(rows);
            let form = Form::new().field("purpose", "fine-tune").file("file", "t.jsonl", &rows);
            let upload = Call::new("POST", "/admin/v1/files").body(&form.content_type(), &form.bytes());
            let file = self.gateway.admin(upload).expect(200).json();
            file["id"].as_str().expect("an id").to_owned()
        };
        let (training, validation) = (file(11), file(10));
        let job = || {
            let order = json!({"model": "openai/gpt-4.1-mini", "training_file": training,
                "validation_file": validation, "hyperparameters": {"n_epochs": 2}});
            self.gateway.admin(Call::post(JOBS, &order)).expect(200).json()
        };
        self.ends(&job(), "succeeded");
        self.well.tuning().next_job_fails(Status::Running, "server_error", "The job failed.");
        self.ends(&job(), "failed");
    }

    #[track_caller]
    fn ends(&self, job: &Value, status: &str) {
        let path = format!("{JOBS}/{}", job["id"].as_str().expect("an id"));
        eventually("the end of a job", || {
            let shown = self.gateway.admin(Call::get(&path)).expect(200).json();
            (shown["status"] == status).then_some(())
        });
    }

    /// What `GET /metrics` says.
    #[track_caller]
    pub(super) fn exposition(&self) -> String {
        Connection::to(self.gateway.admin_address()).call(&Call::get("/metrics")).expect(200).text()
    }
}

/// How many questions came to a provider: the gateway looks at its lists meanwhile.
fn posts(provider: &SimulatedProvider) -> usize {
    provider.requests().iter().filter(|request| request.method == "POST").count()
}

#[track_caller]
fn await_posts(provider: &SimulatedProvider, count: usize) {
    eventually("a question at the provider", || (posts(provider) >= count).then_some(()));
}

fn model_file() -> PathBuf {
    let asked = std::env::var_os("TUNEGATE_TEST_MODEL").map(PathBuf::from);
    let file = asked.unwrap_or_else(|| models().join("SmolLM2-135M-Instruct.Q4_1.gguf"));
    assert!(file.is_file(), "no model at {}: run `make model`", file.display());
    file
}

fn embedding_model() -> PathBuf {
    let folder = models().join("all-MiniLM-L6-v2");
    assert!(folder.is_dir(), "no model at {}: run `make model`", folder.display());
    folder
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

fn question(model: &str, user: &str) -> Value {
    json!({"model": model, "max_tokens": 20, "user": user, "messages": [{"role": "user", "content": "hi"}]})
}

/// One whose answer may be kept.
fn exact(model: &str, words: &str) -> Value {
    let mut body = question(model, "ann");
    body["temperature"] = 0.into();
    body["messages"][0]["content"] = words.into();
    body
}

fn streamed(model: &str, user: &str) -> Value {
    let mut body = question(model, user);
    body["stream"] = true.into();
    body
}

/// Fine-tuned and base deployments of OpenAI, Azure and a worker elsewhere; routes of several kinds; the unpriced, the
/// narrow, the retired and the dead, and one that costs by the hour.
fn catalog(urls: &[String; 5]) -> String {
    let [well, ill, dead, narrow, busy] = urls;
    let key = "api_key = { file = \"upstream.key\" }";
    let mut text = String::from("[teams.support]\n[teams.sales]\n");
    for (name, url) in [("openai", well), ("ill", ill), ("dead", dead), ("narrow", narrow), ("busy", busy)] {
        text.push_str(&format!("\n[providers.{name}]\nkind = \"openai\"\nbase_url = \"{url}/v1\"\n{key}\n"));
    }
    text.push_str(&format!(
        "\n[providers.azure]\nkind = \"azure\"\nbase_url = \"{well}\"\napi = \"v1\"\n{key}\n"
    ));
    text.push_str(&format!("\n[providers.gpu-node]\nkind = \"candle\"\nbase_url = \"{well}/v1\"\n{key}\n"));
    let mini = "gpt-4.1-mini-2025-04-14";
    let free = "price = { input_per_1m_usd = \"0\", output_per_1m_usd = \"0\" }";
    let breaker =
        "breaker = { consecutive_failures = 3, cooldown_ms = 600000, longest_cooldown_ms = 600000 }";
    let tough = "breaker = { consecutive_failures = 10000, failure_percent = 100, least_requests = 10000 }\n\
                 timeouts = { first_byte_ms = 300, between_chunks_ms = 300 }";
    // the hour that has just begun is the only one in this scene, and today's
    let now = jiff::Timestamp::now();
    let hosted = format!(
        "price = {{ input_per_1m_usd = \"1\", output_per_1m_usd = \"2\", hosting_per_hour_usd = \"1.70\" }}\n\
         hosted_from = \"{}\"\nhosted_until = \"{}\"\nsku = \"Standard\"",
        now - jiff::SignedDuration::from_secs(1),
        now + jiff::SignedDuration::from_hours(5 * 24)
    );
    let bound = format!("trained_with = {{ sha256 = \"{OTHER_WORDS}\" }}\nprompt = {{ name = \"support\" }}");
    for (name, provider, model, lines) in [
        ("support-v3", "openai", FINE_TUNED, ""),
        ("support-azure", "azure", "support-eu", "base_model = \"gpt-4.1-mini-2025-04-14\""),
        ("hosted", "azure", "hosted-eu", &hosted),
        ("writer-v2", "openai", OTHER_TUNED, "retires = \"2027-01-14\""),
        ("mini", "openai", mini, ""),
        ("thinker", "openai", "o4-mini-2025-04-16", ""),
        ("lora", "gpu-node", "support-lora", free),
        (
            "embedder",
            "openai",
            "acme-embeddings",
            "price = { input_per_1m_usd = \"0.02\", output_per_1m_usd = \"0\" }",
        ),
        ("mystery", "openai", "acme-mystery", "on_unpriced = \"allow\""),
        ("unpriced", "openai", "acme-unpriced", ""),
        (
            "beyond",
            "openai",
            "acme-writer",
            "price = { input_per_1m_usd = \"0\", output_per_1m_usd = \"1000\" }",
        ),
        ("any", "openai", "*", "on_unpriced = \"cap\"\ncap_price = \"gpt-4\""),
        ("retired", "openai", mini, "retires = \"2026-01-14\""),
        ("bound", "openai", OTHER_TUNED, &bound),
        ("ill", "ill", mini, tough),
        ("dead", "dead", mini, breaker),
        ("busy", "busy", mini, tough),
        ("narrow", "narrow", mini, "limits.concurrent = 1\nqueue = { places = 1, wait_ms = 20000 }"),
    ] {
        text.push_str(&format!(
            "\n[deployments.{name}]\nprovider = \"{provider}\"\nmodel = \"{model}\"\n{lines}\n"
        ));
    }
    for (name, lines) in [
        (
            "support-bot",
            "plan = { weighted = [{ share = 70, to = \"support-v3\" }, { share = 30, to = \"support-azure\" }] }\n\
             capture = { sample = 1.0 }",
        ),
        ("writer", "deployments = [\"writer-v2\", \"mini\"]"),
        (
            "backed",
            "deployments = [\"ill\", \"mini\"]\nretry = { attempts = 3, same = 1, first_wait_ms = 5, longest_wait_ms = 50 }",
        ),
        ("crowded", "deployments = [\"busy\", \"mini\"]"),
        ("prompted", "deployments = [\"mini\"]\nprompt = { name = \"support\" }"),
        ("faq", "deployments = [\"mini\"]\ncache = { ttl_s = 3600 }"),
        ("faq-alike", "deployments = [\"mini\"]\ncache = { ttl_s = 3600, semantic = { threshold = 0.7 } }"),
        (
            "faq-shadow",
            "deployments = [\"mini\"]\ncache = { ttl_s = 3600, semantic = { threshold = 0.7, shadow = true } }",
        ),
        ("shaky", "deployments = [\"ill\"]\ncache = { ttl_s = 3600 }"),
        ("any/*", "deployments = [\"any\"]"),
        ("spent", "deployments = [\"mini\"]"),
    ] {
        text.push_str(&format!("\n[models.\"{name}\"]\n{lines}\n"));
    }
    for name in [
        "mini", "thinker", "lora", "embedder", "mystery", "unpriced", "beyond", "retired", "bound", "ill",
        "dead", "narrow",
    ] {
        text.push_str(&format!("\n[models.{name}]\ndeployments = [\"{name}\"]\n"));
    }
    text
}

/// Plain ones and for each of everything; calendar, rolling and total windows; one with nothing in it.
const BUDGETS: &str = r#"
[budgets.everything]
limit_usd = "500"
window = "month"

[budgets.daily]
limit_usd = "40"
window = "day"
scope = { provider = "openai" }

[budgets.launch]
limit_usd = "100"
window = "total"
scope = { model = "support-bot" }

[budgets.teams]
limit_usd = "20"
window = "rolling 24h"
scope = { each = "team" }

[budgets.models]
limit_usd = "50"
window = "week"
scope = { each = "model" }

[budgets.keys]
limit_usd = "10"
window = "rolling 1h"
scope = { each = "key" }

[budgets.users]
limit_usd = "1"
window = "day"
scope = { each = "end_user", team = "support" }

[budgets.spent]
limit_usd = "0"
window = "month"
scope = { model = "spent" }
"#;
