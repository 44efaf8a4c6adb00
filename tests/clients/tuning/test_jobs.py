"""Files, uploads and jobs with today's client and its types."""

import base64
import os
import time

import openai
import pytest
from openai.types import FileObject, Upload
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

MODEL = os.environ["TUNEGATE_TEST_BASE_MODEL"]
LIMIT_SECONDS = 60


def finished(client, job):
    begun = time.monotonic()
    while time.monotonic() - begun < LIMIT_SECONDS:
        job = client.fine_tuning.jobs.retrieve(job.id)
        if job.status in ("succeeded", "failed", "cancelled"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"the job is {job}")


def uploaded(client, rows):
    return client.files.create(file=("train.jsonl", rows), purpose="fine-tune")


def test_the_whole_flow(client, rows):
    file = uploaded(client, rows)
    assert isinstance(file, FileObject) and file.bytes == len(rows) and file.purpose == "fine-tune"
    assert file.id in [each.id for each in client.files.list(purpose="fine-tune")]
    assert client.files.content(file.id).read() == rows
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        suffix="cat",
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        metadata={"team": "support"},
    )
    assert isinstance(job, FineTuningJob) and job.seed == 7
    assert job.metadata["team"] == "support"
    job = finished(client, job)
    assert job.status == "succeeded", job
    assert job.method.supervised.hyperparameters.n_epochs == 2
    assert job.trained_tokens > 0 and job.fine_tuned_model
    assert job.id in [each.id for each in client.fine_tuning.jobs.list(limit=1)]

    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    assert all(isinstance(event, FineTuningJobEvent) for event in events)
    assert len({event.id for event in events}) == len(events) > 6, "pages overlap"
    times = [event.created_at for event in events]
    assert times == sorted(times, reverse=True), "newest first"
    steps = [event.data["step"] for event in events if event.type == "metrics"]
    assert steps and steps == sorted(steps, reverse=True)

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert checkpoints and all(isinstance(each, FineTuningJobCheckpoint) for each in checkpoints)
    assert all(each.fine_tuning_job_id == job.id for each in checkpoints)

    if os.environ.get("TUNEGATE_TEST_DEPLOYS") != "later":
        answer = client.chat.completions.create(
            model=job.fine_tuned_model, messages=[{"role": "user", "content": "hi"}]
        )
        assert answer.choices[0].message.content
        assert client.models.delete(job.fine_tuned_model).deleted
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(
                model=job.fine_tuned_model, messages=[{"role": "user", "content": "hi"}]
            )

    result = base64.b64decode(client.files.content(job.result_files[0]).read())
    assert result.startswith(b"step,train_loss,train_accuracy,"), "as OpenAI sends it, whatever the provider did"
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_a_file_in_parts(client, rows):
    upload = client.uploads.create(
        filename="big.jsonl", purpose="fine-tune", bytes=len(rows), mime_type="application/jsonl"
    )
    assert isinstance(upload, Upload) and upload.status == "pending"
    parts = [
        client.uploads.parts.create(upload.id, data=data).id for data in (rows[:100], rows[100:])
    ]
    upload = client.uploads.complete(upload.id, part_ids=parts)
    assert upload.status == "completed" and upload.file.bytes == len(rows)
    assert client.files.content(upload.file.id).read() == rows


def test_files_are_found_page_by_page_until_they_are_deleted(client, rows):
    made = [client.files.create(file=(f"{name}.jsonl", rows), purpose="fine-tune") for name in "abc"]
    page = client.files.list(purpose="fine-tune", limit=1, order="desc")
    assert [each.id for each in page.data] == [made[-1].id] and page.has_more
    listed = [each.id for each in page]
    assert [id for id in listed if id in [each.id for each in made]] == [each.id for each in reversed(made)]
    assert client.files.wait_for_processing(made[0].id, poll_interval=0.05).status == "processed"
    assert client.files.retrieve(made[1].id).filename == "b.jsonl"
    assert client.files.content(made[2].id).text == rows.decode()
    for each in made:
        assert client.files.delete(each.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.content(each.id)
    assert not {each.id for each in made} & {each.id for each in client.files.list()}


def test_a_file_goes_by_itself_when_its_time_is_set(client, rows):
    expires = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("t.jsonl", rows), purpose="fine-tune", expires_after=expires)
    assert file.expires_at == file.created_at + 3600


def test_the_client_s_own_way_with_large_files(client, rows, tmp_path):
    path = tmp_path / "large.jsonl"
    path.write_bytes(rows * 1_000)
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="fine-tune", part_size=100_000
    )
    assert upload.status == "completed" and upload.file.filename == "large.jsonl"
    assert client.files.content(upload.file.id).read() == rows * 1_000
    begun = client.uploads.create(
        filename="no.jsonl", purpose="fine-tune", bytes=10, mime_type="application/jsonl"
    )
    assert client.uploads.cancel(begun.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        client.uploads.parts.create(begun.id, data=b"0123456789")


def test_a_job_is_cancelled(client, rows):
    file = uploaded(client, rows)
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=file.id, hyperparameters={"n_epochs": 50}
    )
    client.fine_tuning.jobs.cancel(job.id)
    assert finished(client, job).status == "cancelled"


def test_what_is_wrong_is_told_in_the_clients_own_classes(client, rows):
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-none")
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve("file-none")
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("train.jsonl", rows), purpose="nonsense")
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
        client.fine_tuning.jobs.create(model=MODEL, training_file="file-none")
    file = client.files.create(file=("bad.jsonl", b"no json\n"), purpose="fine-tune")
    begun = time.monotonic()
    while client.files.retrieve(file.id).status != "error":
        assert time.monotonic() - begun < LIMIT_SECONDS
        time.sleep(0.05)
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
    assert "line 1" in str(error.value).lower()
