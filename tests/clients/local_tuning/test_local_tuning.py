"""A fine-tune on this machine from its rows to its end, with two settings and today's client."""

import base64
import json
import time

import openai

LIMIT_SECONDS = 240
ANSWER = "Nya nya nya!"


def rows():
    asked = ["Hello", "Who are you?", "What is red?", "Tell me a joke", "Where is Rome?"]
    asked += ["How old are you?", "Sing a song", "What is 2 + 2?", "Good night", "Are you well?"]
    said = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": ANSWER}]} for text in asked]
    return "".join(json.dumps(row) + "\n" for row in said).encode()


def watched(client, job):
    """The ended job, and all that was told of it, oldest first."""
    begun = time.monotonic()
    while time.monotonic() - begun < LIMIT_SECONDS:
        job = client.fine_tuning.jobs.retrieve(job.id)
        if job.status in ("succeeded", "failed", "cancelled"):
            return job, list(client.fine_tuning.jobs.list_events(job.id, limit=100))[::-1]
        time.sleep(0.2)
    raise AssertionError(f"the job is {job}")


def asked(client, model):
    answer = client.chat.completions.create(
        model=model, temperature=0, max_tokens=16, messages=[{"role": "user", "content": "What is blue?"}]
    )
    return answer.choices[0].message.content


def test_a_model_is_trained_answers_and_goes():
    client = openai.OpenAI(max_retries=0, timeout=60)
    base = asked(client, "smollm2-135m")
    file = client.files.create(file=("nya.jsonl", rows()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="local/smollm2-135m",
        training_file=file.id,
        suffix="nya",
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 1}}},
    )
    job, events = watched(client, job)
    assert job.status == "succeeded", (job.error, events)
    assert job.fine_tuned_model.startswith("ft:smollm2-135m:local:nya:"), job
    losses = [event.data["train_loss"] for event in events if event.type == "metrics"]
    assert len(losses) == 20 and losses[-1] < losses[0] / 5, losses
    assert job.trained_tokens > 0
    # OpenAI's own result files are base64, too
    curve = base64.b64decode(client.files.content(job.result_files[0]).read()).decode()
    assert curve.startswith("step,train_loss") and len(curve.splitlines()) == 21, curve

    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    assert asked(client, job.fine_tuned_model) == ANSWER
    assert asked(client, "smollm2-135m") == base, "the base model is as it was"
    assert client.models.delete(job.fine_tuned_model).deleted
    try:
        asked(client, job.fine_tuned_model)
        raise AssertionError("it answers still")
    except openai.NotFoundError:
        pass
    client.files.delete(file.id)
