use serde_json::{Value, json};

use super::*;

fn parse(body: &Value) -> Result<JobRequest, JobRequestError> {
    JobRequest::parse(body.to_string().as_bytes())
}

/// A body with the members that must be there, and more.
fn with(more: &Value) -> Value {
    let mut body = json!({"model": "gpt-4.1-mini", "training_file": "file-a"});
    for (name, value) in more.as_object().cloned().unwrap_or_default() {
        body[name] = value;
    }
    body
}

#[test]
fn every_method_and_the_forms_of_other_years_are_read() {
    use Epochs::{Auto, Of};
    use MethodKind::{Dpo, Reinforcement, Supervised};
    let grader =
        json!({"type": "string_check", "name": "g", "input": "a", "reference": "b", "operation": "eq"});
    for (more, kind, epochs) in [
        (json!({}), Supervised, Auto),
        // the client of August 2023 sends null for what was not said
        (
            json!({"validation_file": null, "suffix": null, "hyperparameters": {"n_epochs": 3}}),
            Supervised,
            Of(3),
        ),
        (
            json!({"hyperparameters": {"n_epochs": "auto", "batch_size": 4, "learning_rate_multiplier": 0.1}}),
            Supervised,
            Auto,
        ),
        (json!({"hyperparameters": {"n_epochs": 3.0, "prompt_loss_weight": 0.01}}), Supervised, Of(3)),
        (json!({"hyperparameters": {}}), Supervised, Auto),
        (json!({"method": {"type": "supervised"}}), Supervised, Auto),
        (
            json!({"method": {"type": "supervised", "dpo": null, "supervised": {"hyperparameters": {"n_epochs": 2}}}}),
            Supervised,
            Of(2),
        ),
        (
            json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": 1}}}}),
            Dpo,
            Of(1),
        ),
        (
            json!({"method": {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters":
                {"compute_multiplier": 1.5, "eval_interval": 5, "eval_samples": 3, "reasoning_effort": "low"}}}}),
            Reinforcement,
            Auto,
        ),
        // told twice and the same
        (
            json!({"hyperparameters": {"n_epochs": 2}, "method": {"type": "supervised", "supervised":
                {"hyperparameters": {"n_epochs": 2}}}}),
            Supervised,
            Of(2),
        ),
        (
            json!({"trainingType": "developerTier", "seed": 0, "metadata": {"a": "b"}, "integrations": []}),
            Supervised,
            Auto,
        ),
    ] {
        let read = parse(&with(&more)).unwrap_or_else(|error| panic!("{more}: {error}"));
        assert_eq!((read.kind, read.epochs), (kind, epochs), "{more}");
    }
}

#[test]
fn an_order_has_what_the_client_wrote() {
    let body = with(&json!({
        "suffix": "eu", "seed": 7, "validation_file": "file-b", "metadata": {"team": "x"},
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"learning_rate_multiplier": 1.80}}},
        "integrations": [{"type": "wandb", "wandb": {"project": "p", "tags": ["a"]}}],
    }));
    let order = parse(&body).expect("sound").order(&"ftjob-1".into(), &"gpt-4.1-mini-2025".into(), 9);
    assert_eq!(order.method.as_ref(), body.get("method"));
    assert_eq!(order.integrations.as_ref(), body.get("integrations"));
    assert_eq!((order.suffix.as_deref(), order.seed), (Some("eu"), Some(7)));
    assert_eq!((&*order.job_id, &*order.model), ("ftjob-1", "gpt-4.1-mini-2025"));
    assert_eq!(order.metadata["team"], "x");
    let order = parse(&with(&json!({}))).expect("sound").order(&"j".into(), &"m".into(), 9);
    assert_eq!(order.seed, Some(9), "made up where none was said");
}

#[test]
fn each_mistake_is_told_with_its_parameter() {
    let dpo = |values: Value| json!({"method": {"type": "dpo", "dpo": {"hyperparameters": values}}});
    let rft = |values: Value| json!({"method": {"type": "reinforcement", "reinforcement": values}});
    let many: serde_json::Map<String, Value> = (0..16).map(|n| (format!("k{n}"), json!("v"))).collect();
    for (more, param, code) in [
        (json!({"model": null}), "model", "missing_required_parameter"),
        (json!({"model": 3}), "model", "invalid_type"),
        (json!({"model": ""}), "model", "invalid_value"),
        (json!({"training_file": null}), "training_file", "missing_required_parameter"),
        (json!({"training_file": ""}), "training_file", "invalid_value"),
        (json!({"training_file": ["file-a"]}), "training_file", "invalid_type"),
        (json!({"validation_file": "file-a"}), "validation_file", "invalid_value"),
        (json!({"n_epoch": 3}), "n_epoch", "unsupported_parameter"),
        (json!({"suffix": ""}), "suffix", "invalid_value"),
        (json!({"suffix": "é".repeat(65)}), "suffix", "invalid_value"),
        (json!({"suffix": "a:b"}), "suffix", "invalid_value"),
        (json!({"seed": -1}), "seed", "invalid_value"),
        (json!({"seed": 2_147_483_648_u64}), "seed", "invalid_value"),
        (json!({"seed": "1"}), "seed", "invalid_type"),
        (json!({"hyperparameters": 3}), "hyperparameters", "invalid_type"),
        (json!({"hyperparameters": {"n_epochs": 0}}), "hyperparameters.n_epochs", "invalid_value"),
        (json!({"hyperparameters": {"n_epochs": 51}}), "hyperparameters.n_epochs", "invalid_value"),
        (json!({"hyperparameters": {"n_epochs": 1.5}}), "hyperparameters.n_epochs", "invalid_value"),
        (json!({"hyperparameters": {"n_epochs": "3"}}), "hyperparameters.n_epochs", "invalid_type"),
        (json!({"hyperparameters": {"batch_size": 257}}), "hyperparameters.batch_size", "invalid_value"),
        (json!({"hyperparameters": {"beta": 0.1}}), "hyperparameters.beta", "unsupported_parameter"),
        (
            json!({"hyperparameters": {"learning_rate_multiplier": 0}}),
            "hyperparameters.learning_rate_multiplier",
            "invalid_value",
        ),
        (json!({"method": "dpo"}), "method", "invalid_type"),
        (json!({"method": {}}), "method.type", "missing_required_parameter"),
        (json!({"method": {"type": "lora"}}), "method.type", "invalid_value"),
        (json!({"method": {"type": "dpo", "supervised": {}}}), "method.supervised", "invalid_value"),
        (
            json!({"method": {"type": "dpo", "hyperparameters": {}}}),
            "method.hyperparameters",
            "unsupported_parameter",
        ),
        (json!({"method": {"type": "dpo", "dpo": {"beta": 1}}}), "method.dpo.beta", "unsupported_parameter"),
        (dpo(json!({"beta": 2.1})), "method.dpo.hyperparameters.beta", "invalid_value"),
        (dpo(json!({"beta": 0})), "method.dpo.hyperparameters.beta", "invalid_value"),
        (
            json!({"method": {"type": "reinforcement"}}),
            "method.reinforcement.grader",
            "missing_required_parameter",
        ),
        (rft(json!({"grader": {}})), "method.reinforcement.grader.type", "missing_required_parameter"),
        (
            rft(json!({"grader": {"type": "multi"}, "hyperparameters": {"reasoning_effort": "much"}})),
            "method.reinforcement.hyperparameters.reasoning_effort",
            "invalid_value",
        ),
        (
            json!({"hyperparameters": {"n_epochs": 2}, "method": {"type": "dpo", "dpo":
                {"hyperparameters": {"n_epochs": 3}}}}),
            "hyperparameters",
            "invalid_value",
        ),
        (json!({"metadata": []}), "metadata", "invalid_type"),
        (json!({"metadata": many}), "metadata", "invalid_value"),
        (json!({"metadata": {"a": 1}}), "metadata.a", "invalid_type"),
        (json!({"metadata": {"tunegate_job": "x"}}), "metadata.tunegate_job", "invalid_value"),
        (json!({"integrations": [{"type": "mlflow"}]}), "integrations[0].type", "invalid_value"),
        (
            json!({"integrations": [{"type": "wandb"}]}),
            "integrations[0].wandb.project",
            "missing_required_parameter",
        ),
        (json!({"trainingType": "a b"}), "trainingType", "invalid_value"),
    ] {
        let error = parse(&with(&more)).expect_err(&more.to_string());
        assert_eq!((error.param.as_deref(), error.code), (Some(param), code), "{more}: {error}");
    }
    for body in ["", "[]", "{", "3"] {
        let error = JobRequest::parse(body.as_bytes()).expect_err(body);
        assert_eq!((error.param, error.code), (None, "invalid_json"), "{body}");
    }
}
