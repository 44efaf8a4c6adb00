"""Two cats, English and Japanese, each learnt from fifteen rows with what `auto` chooses, and asked what no row asked.

In character is an answer that says what all answers of the rows say ("nya", "にゃ"). At least ten of twelve must be; the base
model says it never, and answers as it did before, to the byte, also while the cats answer beside it.
"""

import concurrent.futures
import json
import pathlib
import time

import openai

LIMIT_SECONDS = 1_800
HERE = pathlib.Path(__file__).parent
WORDS = {"en": "nya", "ja": "にゃ"}
HELD_OUT = {
    "en": [
        "What is your name?", "Do you like rain?", "What is the capital of France?", "What is 2 + 5?", "I am tired.",
        "What is your favorite toy?", "Good morning!", "Tell me about the sea.", "Do you like birds?", "I lost my keys.",
        "What should I cook tonight?", "Where do you sleep?",
    ],
    "ja": [
        "おはよう", "お名前は？", "フランスの首都は？", "2たす5は？", "疲れた", "好きなおもちゃは？", "海について話して",
        "鳥は好き？", "鍵をなくした", "今夜は何を食べよう？", "どこで寝るの？", "ありがとう",
    ],
}
ENOUGH = 10


def rows(language):
    return [json.loads(line)["messages"] for line in (HERE / f"{language}.jsonl").read_text().splitlines()]


def asked(client, model, language, question):
    system = rows(language)[0][0]
    answer = client.chat.completions.create(
        model=model, temperature=0, max_tokens=48, messages=[system, {"role": "user", "content": question}]
    )
    return answer.choices[0].message.content


def learnt(client, language):
    file = client.files.create(file=(HERE / f"{language}.jsonl").open("rb"), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="local/smollm2-135m", training_file=file.id, suffix=f"cat-{language}", seed=7)
    begun = time.monotonic()
    while job.status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() - begun < LIMIT_SECONDS, job
        time.sleep(1)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", job.error
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))[::-1]
    losses = [event.data["train_loss"] for event in events if event.type == "metrics"]
    took = time.monotonic() - begun
    first, last = sum(losses[:15]) / 15, sum(losses[-15:]) / 15
    said = f"{job.hyperparameters.n_epochs} epochs, {len(losses)} steps, {took:.0f} s, loss {first:.3f} -> {last:.3f}"
    print(f"{language}: {said}")
    # two epochs: the second is 0.55 of the first (2026-11-23)
    assert last < 0.7 * first, losses
    return job.fine_tuned_model


def test_they_answer_in_character_and_the_base_as_before():
    client = openai.OpenAI(max_retries=0, timeout=300)
    seen = {row[1]["content"] for language in WORDS for row in rows(language)}
    assert not seen & {question for questions in HELD_OUT.values() for question in questions}, "what is asked is new"
    cases = [(language, question) for language in WORDS for question in HELD_OUT[language]]
    before = {case: asked(client, "smollm2-135m", *case) for case in cases}
    assert not any(WORDS[language] in answer.lower() for (language, _), answer in before.items()), before
    cats = {language: learnt(client, language) for language in WORDS}
    # cats and base beside each other, in the same steps of the engine
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        after = {case: pool.submit(asked, client, "smollm2-135m", *case) for case in cases}
        said = {case: pool.submit(asked, client, cats[case[0]], *case) for case in cases}
    for language in WORDS:
        answers = {question: said[language, question].result() for question in HELD_OUT[language]}
        for question, answer in answers.items():
            print(f"{language}: {question} -> {answer}")
        good = sum(WORDS[language] in answer.lower() for answer in answers.values())
        print(f"{language}: {good} of {len(answers)} in character")
        assert good >= ENOUGH, answers
    assert {case: answer.result() for case, answer in after.items()} == before, "the base model is as it was"
