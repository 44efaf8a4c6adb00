"""Only the two settings that an application changes: OPENAI_BASE_URL and OPENAI_API_KEY."""

import json

import openai
import pytest


@pytest.fixture
def client():
    return openai.OpenAI(max_retries=0, timeout=20)


@pytest.fixture
def rows():
    """A training file of ten chat rows."""
    return "".join(
        json.dumps(
            {
                "messages": [
                    {"role": "system", "content": "You are a cat."},
                    {"role": "user", "content": f"Who comes {number}?"},
                    {"role": "assistant", "content": "Meow!"},
                ]
            }
        )
        + "\n"
        for number in range(10)
    ).encode()
