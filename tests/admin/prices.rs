//! `/admin/v1/prices`.

use serde_json::{Value, json};

use crate::support::{Call, Setup, TestGateway};

const GPT: &str = "/admin/v1/prices/openai/gpt-4o";

fn put(path: &str, body: &Value) -> Call {
    Call::new("PUT", path).body("application/json", body.to_string().as_bytes())
}

#[test]
fn an_override_is_put_shown_and_taken_away() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let list = gateway.admin(Call::get("/admin/v1/prices")).expect(200).json();
    assert!(list["data"].as_array().is_some_and(|rows| rows.len() > 70), "{list}");
    let row = gateway.admin(Call::get(GPT)).expect(200).json();
    let last = row["periods"].as_array().and_then(|periods| periods.last()).expect("a history");
    assert_eq!((&row["origin"], &row["read_only"]), (&json!("file"), &json!(true)));
    assert_eq!(last["tokens"]["input"], json!({"per_1m_usd": "2.50", "per_1k_usd": "0.0025"}));

    let ours = json!({"input_per_1m_usd": "2", "output_per_1k_usd": "0.008", "source": "our contract"});
    let set = gateway.admin(put(GPT, &ours)).expect(200).json();
    assert_eq!((&set["origin"], &set["read_only"]), (&json!("override"), &json!(false)));
    assert_eq!(set["version"], json!(format!("{}+1", list["version"].as_str().expect("a version"))));
    gateway.reload().expect(200);
    let after = gateway.admin(Call::get(GPT)).expect(200).json();
    assert_eq!(after["periods"][0]["tokens"]["input"]["per_1m_usd"], "2.00", "a reload keeps it: {after}");

    gateway.admin(Call::new("DELETE", GPT)).expect(200);
    assert_eq!(gateway.admin(Call::get(GPT)).expect(200).json()["origin"], "file");
    gateway.admin(Call::new("DELETE", GPT)).expect_error(409, "declared_in_file");
    // a fine-tuned family's name has colons, a model's may have slashes
    let tuned = "/admin/v1/prices/openai/ft%3Amine%2Fmodel";
    let hosted = json!({"input_per_1m_usd": "1", "output_per_1m_usd": "2", "training_per_1m_usd": "8"});
    assert_eq!(gateway.admin(put(tuned, &hosted)).expect(200).json()["model"], "ft:mine/model");
}

#[test]
fn a_wrong_price_is_refused_with_every_problem_and_its_place() {
    let gateway = TestGateway::with(Setup::bare()).start();
    let wrong = json!({"input_per_1m_usd": 2.5, "output_per_1k_usd": "10", "outptu": "1",
        "batch": {"factor": "0.5", "input_per_1m_usd": "1"}});
    let error = gateway.admin(put(GPT, &wrong)).expect_error(422, "invalid_price");
    let paths: Vec<&str> =
        error["errors"].as_array().into_iter().flatten().filter_map(|error| error["path"].as_str()).collect();
    assert_eq!(paths, ["input_per_1m_usd", "outptu", "output_per_1k_usd"], "{error}");
    let thousandth = json!({"input_per_1m_usd": "0.0025", "output_per_1m_usd": "0.01"});
    let error = gateway.admin(put(GPT, &thousandth)).expect_error(422, "invalid_price");
    assert!(error["errors"][0]["message"].as_str().is_some_and(|text| text.contains("per 1K")), "{error}");
    assert_eq!(gateway.admin(Call::get(GPT)).expect(200).json()["origin"], "file", "nothing was changed");
    gateway.admin(Call::new("PUT", GPT).body("application/json", b"{")).expect_error(400, "invalid_json");
    gateway.admin(Call::get("/admin/v1/prices/openai/nobody")).expect_error(404, "price_not_found");
    gateway.admin(Call::get("/admin/v1/prices/opnai/gpt-4o")).expect_error(404, "price_not_found");
    gateway.admin(Call::get("/admin/v1/prices?provider=azure&x=1")).expect_error(400, "invalid_query");
}
