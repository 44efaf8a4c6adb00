"""Completions, embeddings, responses, moderations and the list of models."""

import pytest

ANSWER = "Four crates fit on the pallet."


def test_completions(client, azure):
    for each in (client, azure):
        answer = each.completions.create(model="support-bot", prompt="How many", max_tokens=3)
        assert answer.choices[0].text == "Four crates fit"
        stream = each.completions.create(model="support-bot", prompt="How many", stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == ANSWER


def test_embeddings_which_this_client_asks_for_in_base64(client, azure):
    for each in (client, azure):
        answer = each.embeddings.create(model="embedder", input=["one", "two"])
        assert [list(row.embedding) for row in answer.data] == [[0.25, -0.5, 1.0]] * 2
        answer = each.embeddings.create(model="embedder", input="one", encoding_format="float")
        assert answer.data[0].embedding == [0.25, -0.5, 1.0]


def test_responses(client, azure_v1):
    for each in (client, azure_v1):
        made = each.responses.create(model="support-bot", input="How many?")
        assert made.output_text == ANSWER
        assert made.usage.output_tokens == 6
        assert each.responses.retrieve(made.id).output_text == ANSWER
        each.responses.delete(made.id)


def test_responses_in_a_stream(client):
    text, last = "", None
    for event in client.responses.create(model="support-bot", input="How many?", stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        last = event
    assert text == ANSWER
    assert last.type == "response.completed" and last.response.usage.output_tokens == 6


def test_the_responses_helper(client):
    with client.responses.stream(model="support-bot", input="How many?") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == ANSWER


def test_moderations(client):
    answer = client.moderations.create(model="openai/omni-moderation-latest", input="a kind word")
    assert answer.results[0].flagged is False


@pytest.mark.parametrize("name", ["support-bot", "ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY"])
def test_models(client, azure, name):
    for each in (client, azure):
        assert name in [model.id for model in each.models.list()]
        assert each.models.retrieve(name).id == name
