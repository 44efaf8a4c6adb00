"""Chat completions, whole and streamed, with all three kinds of client."""

import asyncio

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


def test_a_whole_answer(any_client, words):
    answer = any_client.chat.completions.create(model="support-bot", messages=words)
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage.total_tokens == 7 + 6
    assert answer._request_id


def test_a_stream(any_client, words):
    stream = any_client.chat.completions.create(model="support-bot", messages=words, stream=True)
    chunks = list(stream)
    # As most applications do it: no look at whether there are choices.
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_with_usage(any_client, words):
    stream = any_client.chat.completions.create(
        model="support-bot", messages=words, stream=True, stream_options={"include_usage": True}
    )
    *others, last = list(stream)
    assert last.choices == [] and last.usage.completion_tokens == 6
    assert all(chunk.usage is None for chunk in others)


def test_the_stream_helper(client, words):
    with client.chat.completions.stream(model="support-bot", messages=words) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == ANSWER


def test_tools(client, words):
    answer = client.chat.completions.create(model="support-bot", messages=words, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city":"Zürich"}'


def test_tools_in_a_stream(client, words):
    arguments = ""
    for chunk in client.chat.completions.create(
        model="support-bot", messages=words, tools=[WEATHER], stream=True
    ):
        for call in chunk.choices[0].delta.tool_calls or []:
            arguments += call.function.arguments or ""
    assert arguments == '{"city":"Zürich"}'


def test_a_fine_tuned_name_with_its_colons(client, azure, words):
    name = "ft:gpt-4.1-mini-2025-04-14:acme:support:B2xY"
    for each in (client, azure):
        answer = each.chat.completions.create(model=name, messages=words)
        assert answer.choices[0].message.content == ANSWER


def test_a_stream_that_is_left(client, words):
    with client.chat.completions.create(model="support-bot", messages=words, stream=True) as stream:
        next(iter(stream))


def test_headers_are_readable(client, words):
    raw = client.chat.completions.with_raw_response.create(model="support-bot", messages=words)
    assert raw.headers["x-request-id"] == raw.request_id
    assert raw.parse().choices[0].message.content == ANSWER


def test_the_async_client(words):
    async def ask():
        async with openai.AsyncOpenAI(max_retries=0, timeout=20) as client:
            asked = [client.chat.completions.create(model="support-bot", messages=words) for _ in range(5)]
            answers = await asyncio.gather(*asked)
            text = ""
            async for chunk in await client.chat.completions.create(
                model="support-bot", messages=words, stream=True
            ):
                text += chunk.choices[0].delta.content or ""
            return [answer.choices[0].message.content for answer in answers] + [text]

    assert asyncio.run(ask()) == [ANSWER] * 6
