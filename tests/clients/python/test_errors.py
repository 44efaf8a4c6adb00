"""Each error reaches the application as the class it expects, with a code it can act on."""

import openai
import pytest


def ask(client, model, **more):
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], **more
    )


@pytest.mark.parametrize(
    "model, kind, status, code",
    [
        ("no-such-bot", openai.NotFoundError, 404, "model_not_found"),
        ("too-long", openai.BadRequestError, 400, "context_length_exceeded"),
        ("rate-limited", openai.RateLimitError, 429, "rate_limit_exceeded"),
        ("broken", openai.InternalServerError, 500, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_class_and_the_code(client, model, kind, status, code, stream):
    with pytest.raises(kind) as caught:
        ask(client, model, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.code == code
    assert caught.value.request_id


def test_a_wrong_key(azure):
    for wrong in (openai.OpenAI(api_key="sk-wrong", max_retries=0), azure.with_options(api_key="sk-wrong")):
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(wrong, "support-bot")
        assert caught.value.code == "invalid_api_key"


def test_a_request_that_makes_no_sense(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body={"model": "support-bot"}, cast_to=object)
    assert caught.value.param == "messages"


def test_an_endpoint_that_is_not_metered(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(model="support-bot", prompt="a crate")
    assert caught.value.code == "unsupported_endpoint"


def test_the_wait_that_the_provider_asks_for_arrives(client):
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "rate-limited")
    assert caught.value.response.headers["retry-after"] == "1"
