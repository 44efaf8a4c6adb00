"""Answers of the response cache: whole or streamed, they are what the live ones were, chunk by chunk."""

import asyncio
import uuid

import openai
import pytest

ANSWER = "Four crates fit on the pallet."
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(params=["client", "azure", "azure_v1"])
def any_client(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def fresh():
    """Words that nobody has asked before."""
    return [{"role": "user", "content": f"How many crates, {uuid.uuid4()}?"}]


def result(raw):
    return raw.headers["x-tunegate-cache"]


def whole(raw):
    """The same answer, read to its end: only then is it kept, and the client itself leaves off at `[DONE]`."""
    raw.http_response.read()
    return raw


def streamed(client, **asked):
    """What the cache did, and all chunks."""
    create = client.chat.completions.with_raw_response.create
    raw = whole(create(model="kept", temperature=0, stream=True, **asked))
    return result(raw), list(raw.parse())


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream_options": {"include_usage": True}},
        {"tools": [WEATHER]},
        {"n": 2},
        {"logprobs": True, "top_logprobs": 2},
    ],
    ids=["plain", "usage", "tools", "choices", "logprobs"],
)
def test_a_replayed_stream_is_the_live_one(any_client, fresh, more):
    live = streamed(any_client, messages=fresh, **more)
    again = streamed(any_client, messages=fresh, **more)
    assert (live[0], again[0]) == ("miss", "hit")
    assert [type(chunk) for chunk in again[1]] == [type(chunk) for chunk in live[1]]
    for one, other in zip(live[1], again[1], strict=True):
        one, other = one.to_dict(), other.to_dict()
        if one.get("usage"):
            # what it cost this client is its own
            assert one["usage"].pop("cost") > other["usage"].pop("cost") == 0
        assert other == one


def test_a_stream_made_of_a_whole_answer_reads_as_one(client, fresh):
    live = client.chat.completions.create(model="kept", temperature=0, messages=fresh)
    with client.chat.completions.stream(model="kept", temperature=0, messages=fresh) as stream:
        for _ in stream:
            pass
        told = stream.get_final_completion()
    assert told.choices[0].message.content == live.choices[0].message.content == ANSWER
    assert told.choices[0].finish_reason == live.choices[0].finish_reason
    assert (told.id, told.model, told.created) == (live.id, live.model, live.created)


def test_a_whole_answer_made_of_a_stream(client, fresh):
    done, chunks = streamed(client, messages=fresh, stream_options={"include_usage": True})
    raw = client.chat.completions.with_raw_response.create(model="kept", temperature=0, messages=fresh)
    assert (done, result(raw)) == ("miss", "hit")
    told = raw.parse()
    assert told.choices[0].message.content == ANSWER
    assert told.usage.total_tokens == chunks[-1].usage.total_tokens


def test_responses_and_completions_are_told_again(client, fresh):
    words = fresh[0]["content"]

    def events(**asked):
        create = client.responses.with_raw_response.create
        raw = whole(create(model="kept", temperature=0, store=False, input=words, stream=True, **asked))
        return result(raw), [event.to_dict() for event in raw.parse()]

    (first, live), (second, again) = events(), events()
    assert (first, second) == ("miss", "hit")
    assert [event["type"] for event in again] == [event["type"] for event in live]
    costs = [events[-1]["response"]["usage"].pop("cost", None) for events in (live, again)]
    assert costs[1] in (0, None)
    assert again == live
    raw = client.responses.with_raw_response.create(model="kept", temperature=0, store=False, input=words)
    assert result(raw) == "hit"
    assert raw.parse().output_text == ANSWER
    asked = {"model": "kept", "temperature": 0, "prompt": words, "max_tokens": 50}
    live = list(whole(client.completions.with_raw_response.create(stream=True, **asked)).parse())
    raw = client.completions.with_raw_response.create(stream=True, **asked)
    assert result(raw) == "hit"
    assert [chunk.to_dict() for chunk in raw.parse()] == [chunk.to_dict() for chunk in live]


def test_many_at_once_are_one_answer(fresh):
    async def all_at_once():
        client = openai.AsyncOpenAI(max_retries=0, timeout=20)
        ask = client.chat.completions.create
        return await asyncio.gather(*(ask(model="kept", temperature=0, messages=fresh) for _ in range(20)))

    answers = asyncio.run(all_at_once())
    assert len({answer.id for answer in answers}) == 1
