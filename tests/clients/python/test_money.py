"""What an answer cost, as an application sees it: in headers of whole answers, in the usage of streams."""

import time
from decimal import Decimal

import openai
import pytest

MODEL = "support-bot"  # 0.80 and 3.20 USD for a million tokens
COST = Decimal("0.0000248")  # 7 tokens in, 6 out


def test_a_whole_answer_says_its_cost(client, words):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=words)
    assert Decimal(raw.headers["x-tunegate-cost-usd"]) == COST
    assert Decimal(raw.headers["x-tunegate-budget-left-usd"]) > 0
    assert raw.headers["x-tunegate-output-cap"] == "4096"
    assert raw.headers["x-tunegate-deployment"]
    assert raw.parse().usage.total_tokens == 13


def test_what_is_left_goes_down_by_the_cost(client, words):
    def left():
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=words, max_tokens=50)
        assert "x-tunegate-output-cap" not in raw.headers
        return Decimal(raw.headers["x-tunegate-budget-left-usd"])

    assert left() - left() == COST


def test_a_stream_with_usage_says_its_cost(client, words):
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=words, stream=True, stream_options={"include_usage": True}
    )
    assert raw.headers["x-tunegate-output-cap"] == "4096"
    *others, last = list(raw.parse())
    assert last.usage.completion_tokens == 6
    assert Decimal(str(last.usage.cost)) == COST
    assert all(chunk.usage is None for chunk in others)


def test_a_budget_without_money_is_told_apart_from_a_rate_limit(client, words):
    with pytest.raises(openai.RateLimitError) as raised:
        client.with_options(max_retries=5).chat.completions.create(model="spent", messages=words)
    error = raised.value
    assert (error.status_code, error.type, error.code) == (
        429,
        "insufficient_quota",
        "project_spend_limit_exceeded",
    )
    assert error.response.headers["x-should-retry"] == "false"
    budget = error.body["budget"]
    assert budget["spent_usd"] + budget["reserved_usd"] + budget["wanted_usd"] > budget["limit_usd"]


def test_a_stream_is_found_again_by_its_id(client, words):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=words, stream=True)
    list(raw.parse())
    path = f"/tunegate/requests/{raw.headers['x-request-id']}"
    # its settlement is written behind its last byte
    for _ in range(500):
        found = client.get(path, cast_to=object)
        if found["settled"] and found["entries"]:
            break
        time.sleep(0.01)
    assert found["id"] == raw.headers["x-request-id"]
    assert [entry["kind"] for entry in found["entries"]] == ["hold", "usage"]
    assert Decimal(str(found["cost_usd"])) == COST
