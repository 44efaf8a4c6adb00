"""Only the two settings that an application changes: OPENAI_BASE_URL and OPENAI_API_KEY."""

import os

import openai
import pytest


@pytest.fixture
def client():
    return openai.OpenAI(max_retries=0, timeout=20)


@pytest.fixture
def azure():
    """Azure's client of the classic API: AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_API_KEY and OPENAI_API_VERSION."""
    return openai.AzureOpenAI(max_retries=0, timeout=20)


@pytest.fixture
def azure_v1():
    """The plain client at Azure's v1 paths."""
    return openai.OpenAI(
        base_url=os.environ["AZURE_OPENAI_ENDPOINT"] + "/openai/v1/",
        api_key=os.environ["AZURE_OPENAI_API_KEY"],
        max_retries=0,
        timeout=20,
    )


@pytest.fixture
def words():
    return [{"role": "user", "content": "How many crates fit on a pallet?"}]
