//! Evaluations and their answers as operators see them.

use serde_json::{Value, json};

use crate::store::evaluations::{AnswerRow, EvaluationRow};

/// An evaluation; its report is a resource of its own.
pub fn evaluation_json(row: &EvaluationRow) -> Value {
    let plan: Value = serde_json::from_str(&row.plan).unwrap_or_default();
    let names: Vec<&Value> =
        plan["models"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
    let report = row.report.as_ref();
    json!({
        "object": "evaluation",
        "id": row.id,
        "owner": row.owner.to_string(),
        "status": row.status.name(),
        "cancelling": row.is_cancelled && !row.status.is_final(),
        "why": (!row.why.is_empty()).then_some(&row.why),
        "models": names,
        "questions": row.questions,
        "answers": row.answers,
        "plan": plan,
        "cost_usd": row.cost,
        "gate": report.map(|report| &report.gate),
        "created_at": seconds(row.created_at_ms),
        "started_at": row.started_at_ms.map(seconds),
        "ended_at": row.ended_at_ms.map(seconds),
    })
}

/// An answer.
pub fn answer_json(answer: &AnswerRow) -> Value {
    let kept = &answer.kept;
    json!({
        "object": "evaluation.answer",
        "part": kept.part.name(),
        "question": kept.row,
        "model": kept.model,
        "said": answer.said,
        "scores": kept.scores,
        "failed": kept.failed,
        "deployment": kept.deployment,
        "latency_ms": kept.latency_ms,
        "cost_usd": kept.cost,
        "prompt_tokens": kept.prompt_tokens,
        "completion_tokens": kept.completion_tokens,
    })
}

const fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1_000)
}
