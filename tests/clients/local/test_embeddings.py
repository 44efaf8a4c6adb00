"""The local worker's embeddings, as an application gets them: OPENAI_BASE_URL and OPENAI_API_KEY, and nothing else."""

import openai
import pytest

PARAPHRASES = ["How do I reset my password?", "I forgot my password, how can I change it?"]


@pytest.fixture
def client():
    return openai.OpenAI(max_retries=0, timeout=60)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("model", ["all-minilm-l6-v2", "local/all-minilm-l6-v2"])
def test_base64_which_this_client_asks_for_equals_float(client, model):
    answer = client.embeddings.create(model=model, input=PARAPHRASES)
    plain = client.embeddings.create(model=model, input=PARAPHRASES, encoding_format="float")
    for one, other in zip(answer.data, plain.data, strict=True):
        assert list(one.embedding) == pytest.approx(other.embedding)
    assert [len(row.embedding) for row in answer.data] == [384, 384]
    assert cosine(answer.data[0].embedding, answer.data[1].embedding) > 0.85
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 18


def test_one_text_has_one_vector(client):
    answer = client.embeddings.create(model="local/all-minilm-l6-v2", input=PARAPHRASES[0], dimensions=384)
    assert len(answer.data) == 1


def test_what_is_too_long_is_told_how_much_is_taken(client):
    with pytest.raises(openai.BadRequestError, match="254 tokens"):
        client.embeddings.create(model="local/all-minilm-l6-v2", input="word " * 300)


def test_the_model_answers_nothing_else(client):
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(
            model="local/all-minilm-l6-v2", messages=[{"role": "user", "content": "hi"}]
        )
    assert refused.value.status_code in (400, 404), refused.value
