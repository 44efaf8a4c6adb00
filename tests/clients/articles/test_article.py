"""The flow of the articles of 2023, with the client of those days: only OPENAI_API_BASE and OPENAI_API_KEY are set."""

import json
import time

import openai
import pytest

LIMIT_SECONDS = 60


@pytest.fixture
def training_file(tmp_path):
    """As an article has it: any name, Japanese text, a system prompt in each row."""
    path = tmp_path / "cat_data.txt"
    rows = [
        {
            "messages": [
                {"role": "system", "content": "あなたは明るい猫です。"},
                {"role": "user", "content": f"質問 {number}"},
                {"role": "assistant", "content": "元気だニャ!"},
            ]
        }
        for number in range(15)
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def finished(job_id):
    begun = time.monotonic()
    while time.monotonic() - begun < LIMIT_SECONDS:
        job = openai.FineTuningJob.retrieve(job_id)
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"the job is {job}")


@pytest.mark.parametrize("purpose", ["fine-tune", "fine_tune"])
def test_the_whole_flow(training_file, purpose):
    assert openai.VERSION == "0.28.1"
    with open(training_file, "rb") as rows:
        file = openai.File.create(file=rows, purpose=purpose)
    assert file["object"] == "file" and file["purpose"] == "fine-tune"
    assert file["bytes"] == training_file.stat().st_size
    assert file["id"] in [each["id"] for each in openai.File.list()["data"]]
    assert openai.File.retrieve(file["id"])["filename"] == "file"
    assert openai.File.download(file["id"]) == training_file.read_bytes()

    job = openai.FineTuningJob.create(training_file=file["id"], model="gpt-3.5-turbo")
    assert job["object"] == "fine_tuning.job" and job["training_file"] == file["id"]
    assert job["id"] in [each["id"] for each in openai.FineTuningJob.list(limit=10)["data"]]

    job = finished(job["id"])
    assert job["status"] == "succeeded", job
    assert job["hyperparameters"]["n_epochs"] == 3
    assert job["trained_tokens"] > 0
    model = job["fine_tuned_model"]
    assert model.startswith("ft:gpt-3.5-turbo-0613:")

    events = openai.FineTuningJob.list_events(id=job["id"], limit=10)["data"]
    assert len(events) == 10
    assert any("successfully completed" in event["message"] for event in events)

    answer = openai.ChatCompletion.create(model=model, messages=[{"role": "user", "content": "元気?"}])
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["total_tokens"] > 0

    assert openai.File.delete(file["id"])["deleted"] is True
    with pytest.raises(openai.error.InvalidRequestError):
        openai.File.retrieve(file["id"])
    assert openai.Model.delete(model)["deleted"] is True
    with pytest.raises(openai.error.InvalidRequestError):
        openai.ChatCompletion.create(model=model, messages=[{"role": "user", "content": "元気?"}])


def test_a_job_is_cancelled(training_file):
    with open(training_file, "rb") as rows:
        file = openai.File.create(file=rows, purpose="fine-tune", user_provided_filename="data.jsonl")
    assert file["filename"] == "data.jsonl"
    job = openai.FineTuningJob.create(
        training_file=file["id"], model="gpt-3.5-turbo", hyperparameters={"n_epochs": 50}, suffix="neko"
    )
    openai.FineTuningJob.cancel(job["id"])
    assert finished(job["id"])["status"] == "cancelled"
    openai.File.delete(file["id"])


def test_what_is_wrong_is_told_in_the_clients_own_classes(training_file):
    with pytest.raises(openai.error.InvalidRequestError) as error:
        openai.FineTuningJob.create(training_file="file-none", model="gpt-3.5-turbo")
    assert "file-none" in str(error.value)
    with pytest.raises(openai.error.InvalidRequestError):
        openai.FineTuningJob.retrieve("ftjob-none")
