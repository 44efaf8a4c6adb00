//! Refusals that say where to go instead: a prompt that is too long goes to a longer context, one that a filter has
//! stopped where the operator says. Each attempt is booked as its provider bills it.

use serde_json::{Value, json};

use super::{CHAT, deployment, lab, model, question, streamed};
use crate::support::provider::Trouble;
use crate::support::{Reply, Setup, SimulatedProvider, TestGateway};

/// What was booked, in order: the deployment and how its usage is known.
#[track_caller]
fn booked(gateway: &TestGateway, count: usize) -> Vec<(String, String)> {
    let journal = gateway.settled_journal(|journal| journal.usages().len() >= count);
    journal.usages().into_iter().map(|usage| (usage.deployment, usage.source)).collect()
}

fn pair(deployment: &str, source: &str) -> (String, String) {
    (deployment.to_owned(), source.to_owned())
}

#[test]
fn a_prompt_that_is_too_long_goes_to_the_longer_context() {
    let [short, other, long] = [(); 3].map(|()| SimulatedProvider::start());
    let url = |provider: &SimulatedProvider| format!("{}/v1", provider.url());
    let route = "deployments = [\"short\", \"other\"]";
    let setup = lab()
        .and(&deployment("short", &url(&short), "context_window = 8000"))
        .and(&deployment("other", &url(&other), "context_window = 8000"))
        .and(&deployment("long", &url(&long), "context_window = 100000"))
        .and(&model("bot", &format!("{route}\nlonger_context = \"long\"")))
        .and(&model("shy", route))
        .watched(&short)
        .watched(&other)
        .watched(&long);
    let gateway = TestGateway::with(setup).start();
    for body in [question("bot", "one"), streamed("bot", "two")] {
        short.fails(Trouble::bad_request());
        let answer = gateway.post(CHAT, &body).expect(200);
        assert_eq!(answer.header("x-tunegate-deployment"), Some("long"));
    }
    short.fails(Trouble::bad_request());
    let answer = gateway.post(CHAT, &question("shy", "three")).expect(400);
    assert_eq!(answer.json(), Trouble::bad_request().body, "nobody is longer: the client hears it");
    assert_eq!((short.requests().len(), other.requests().len(), long.requests().len()), (3, 0, 2));
    assert_eq!(booked(&gateway, 2), vec![pair("long", "reported"); 2], "what was refused costs nothing");
}

#[test]
fn who_cannot_do_it_is_not_asked_and_nothing_is_lost_on_the_way() {
    let [small, plain, able] = [(); 3].map(|()| SimulatedProvider::start());
    let url = |provider: &SimulatedProvider| format!("{}/v1", provider.url());
    let dropping = "context_window = 8000\nunsupported = [\"seed\"]\non_unsupported = \"drop\"";
    let setup = lab()
        .and(&deployment("small", &url(&small), "context_window = 60"))
        .and(&deployment("plain", &url(&plain), "capabilities = [\"json_schema\"]\nunsupported = [\"seed\"]"))
        .and(&deployment("able", &url(&able), dropping))
        .and(&model("bot", "deployments = [\"small\", \"plain\", \"able\"]"))
        .watched(&small)
        .watched(&plain)
        .watched(&able);
    let gateway = TestGateway::with(setup).start();
    let ask = |change: &dyn Fn(&mut Value)| {
        let mut body = question("bot", "somebody");
        change(&mut body);
        let answer = gateway.post(CHAT, &body).expect(200);
        answer.header("x-tunegate-deployment").map(str::to_owned)
    };
    assert_eq!(ask(&|_| ()).as_deref(), Some("small"));
    let long = "word ".repeat(100);
    assert_eq!(ask(&|body| body["messages"][0]["content"] = long.clone().into()).as_deref(), Some("plain"));
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {}}}]);
    let both = |body: &mut Value| {
        body["messages"][0]["content"] = long.clone().into();
        body["tools"] = tools.clone();
    };
    assert_eq!(ask(&both).as_deref(), Some("able"), "plain has no tools");
    let seeded = |body: &mut Value| {
        body["messages"][0]["content"] = long.clone().into();
        body["seed"] = 7.into();
    };
    assert_eq!(ask(&seeded).as_deref(), Some("able"), "plain refuses a seed");
    assert_eq!(able.last_request().json()["seed"], json!(null), "and able does not get it");
    assert_eq!((small.requests().len(), plain.requests().len(), able.requests().len()), (1, 1, 2));
}

/// An Azure deployment, `strict`, and another provider's, `lax`.
fn filtered(azure: &SimulatedProvider, lax: &SimulatedProvider, lines: &str) -> Setup {
    let strict = format!(
        "\n[providers.azure]\nkind = \"azure\"\nbase_url = \"{}\"\napi = \"v1\"\n\
         api_key = {{ file = \"upstream.key\" }}\n\
         \n[deployments.strict]\nprovider = \"azure\"\nmodel = \"support-eu\"\nbase_model = \"{}\"\n",
        azure.url(),
        super::MODEL
    );
    lab()
        .and(&strict)
        .and(&deployment("lax", &format!("{}/v1", lax.url()), ""))
        .and(&model("bot", &format!("deployments = [\"strict\"]\n{lines}")))
        .watched(azure)
        .watched(lax)
}

/// Azure stops the prompt, and bills it.
fn stopped() -> Reply {
    Reply::trouble(Trouble::azure_content_filtered()).billed(1, 0).without_usage()
}

#[test]
fn what_a_filter_has_stopped_goes_where_the_operator_says_and_both_are_booked() {
    let (azure, lax) = (SimulatedProvider::start(), SimulatedProvider::start());
    let gateway = TestGateway::with(filtered(&azure, &lax, "content_filtered = \"lax\"")).start();
    for body in [question("bot", "one"), streamed("bot", "two")] {
        azure.replies(stopped());
        let answer = gateway.post(CHAT, &body).expect(200);
        assert_eq!(answer.header("x-tunegate-deployment"), Some("lax"));
    }
    assert_eq!((azure.requests().len(), lax.requests().len()), (2, 2));
    let each = [pair("strict", "estimated"), pair("lax", "reported")];
    assert_eq!(booked(&gateway, 4), [each.clone(), each].concat());
}

#[test]
fn what_a_filter_has_stopped_goes_nowhere_else_by_itself() {
    let (azure, lax) = (SimulatedProvider::start(), SimulatedProvider::start());
    let setup = filtered(&azure, &lax, "").and(&model("both", "deployments = [\"strict\", \"lax\"]"));
    let gateway = TestGateway::with(setup).start();
    azure.replies(stopped());
    let answer = gateway.post(CHAT, &question("both", "one")).expect(400);
    assert_eq!(answer.json()["error"]["code"], "content_filter", "{}", answer.text());
    assert_eq!(lax.requests().len(), 0);
    assert_eq!(booked(&gateway, 1), [pair("strict", "estimated")]);
}

#[test]
fn who_has_refused_it_for_what_it_is_is_not_asked_again() {
    let [strict, longer, longest] = [(); 3].map(|()| SimulatedProvider::start());
    let url = |provider: &SimulatedProvider| format!("{}/v1", provider.url());
    let setup = lab()
        .and(&deployment("strict", &url(&strict), ""))
        .and(&deployment("longer", &url(&longer), ""))
        .and(&deployment("longest", &url(&longest), ""))
        .and(&model("aside", "deployments = [\"longer\", \"longest\"]"))
        .and(&model(
            "bot",
            "deployments = [\"strict\"]\nlonger_context = \"aside\"\ncontent_filtered = \"aside\"\n\
             retry = { attempts = 9 }",
        ))
        .watched(&strict)
        .watched(&longer)
        .watched(&longest);
    let gateway = TestGateway::with(setup).start();
    let filtered = Trouble::openai(400, "invalid_request_error", Some("content_filter"), "not that");
    for (trouble, code) in [(Trouble::bad_request(), "context_length_exceeded"), (filtered, "content_filter")]
    {
        let before: Vec<usize> = [&strict, &longer, &longest].map(|one| one.requests().len()).into();
        for provider in [&strict, &longer, &longest] {
            provider.always(Reply::trouble(trouble.clone()));
        }
        let answer = gateway.post(CHAT, &question("bot", "one")).expect(400);
        assert_eq!(answer.json()["error"]["code"], code, "{}", answer.text());
        let after: Vec<usize> = [&strict, &longer, &longest].map(|one| one.requests().len()).into();
        assert!(after.iter().zip(before).all(|(after, before)| *after == before + 1), "{after:?}");
    }
}
