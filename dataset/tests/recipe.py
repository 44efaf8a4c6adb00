#!/usr/bin/env python3
"""The figures of OpenAI's cookbook, computed without any of our code, for `recipe.rs` to compare with.

This is the recipe of "Data preparation and analysis for chat model fine-tuning" (read on 2026-11-21): the same errors,
the same counting of tokens, the same estimate of epochs; only what it prints is written as JSON. Its line "p5 / p95" is
the quantiles 0.1 and 0.9.

How it was run, on 2026-11-22, with Python 3.11, tiktoken 0.14.0 and numpy 2.4.6:

    python3 -m venv v && v/bin/pip install tiktoken numpy
    TIKTOKEN_CACHE_DIR=tables v/bin/python dataset/tests/recipe.py examples/datasets/cat.jsonl > dataset/tests/recipe.json

tiktoken fetches its tables at the first use. Without a network, `tables/` may be filled by hand: each file is called as
the SHA-1 of its address, and may come from the crate tiktoken-rs (assets/); tiktoken checks their SHA-256.
"""

import json
import sys
from collections import defaultdict

import numpy as np
import tiktoken

MAX_TOKENS_PER_EXAMPLE = 16385
TARGET_EPOCHS = 3
MIN_TARGET_EXAMPLES = 100
MAX_TARGET_EXAMPLES = 25000
MIN_DEFAULT_EPOCHS = 1
MAX_DEFAULT_EPOCHS = 25


def format_errors(dataset):
    errors = defaultdict(int)
    for example in dataset:
        if not isinstance(example, dict):
            errors["data_type"] += 1
            continue
        messages = example.get("messages", None)
        if not messages:
            errors["missing_messages_list"] += 1
            continue
        for message in messages:
            if "role" not in message or "content" not in message:
                errors["message_missing_key"] += 1
            if any(key not in ("role", "content", "name", "function_call", "weight") for key in message):
                errors["message_unrecognized_key"] += 1
            if message.get("role", None) not in ("system", "user", "assistant", "function"):
                errors["unrecognized_role"] += 1
            content = message.get("content", None)
            function_call = message.get("function_call", None)
            if (not content and not function_call) or not isinstance(content, str):
                errors["missing_content"] += 1
        if not any(message.get("role", None) == "assistant" for message in messages):
            errors["example_missing_assistant_message"] += 1
    return dict(errors)


def tokens_of_messages(encoding, messages, tokens_per_message=3, tokens_per_name=1):
    tokens = 0
    for message in messages:
        tokens += tokens_per_message
        for key, value in message.items():
            tokens += len(encoding.encode(value))
            if key == "name":
                tokens += tokens_per_name
    return tokens + 3


def tokens_of_assistant(encoding, messages):
    return sum(len(encoding.encode(message["content"])) for message in messages if message["role"] == "assistant")


def distribution(values):
    return {
        "total": sum(values),
        "min": min(values),
        "max": max(values),
        "mean": float(np.mean(values)),
        "median": float(np.median(values)),
        "p10": float(np.quantile(values, 0.1)),
        "p90": float(np.quantile(values, 0.9)),
    }


def epochs_of(examples):
    epochs = TARGET_EPOCHS
    if examples * TARGET_EPOCHS < MIN_TARGET_EXAMPLES:
        epochs = min(MAX_DEFAULT_EPOCHS, MIN_TARGET_EXAMPLES // examples)
    elif examples * TARGET_EPOCHS > MAX_TARGET_EXAMPLES:
        epochs = max(MIN_DEFAULT_EPOCHS, MAX_TARGET_EXAMPLES // examples)
    return epochs


def main():
    with open(sys.argv[1], encoding="utf-8") as lines:
        dataset = [json.loads(line) for line in lines]
    figures = {}
    for name in ("cl100k_base", "o200k_base"):
        encoding = tiktoken.get_encoding(name)
        rows = [example["messages"] for example in dataset]
        tokens = [tokens_of_messages(encoding, messages) for messages in rows]
        billed = sum(min(MAX_TOKENS_PER_EXAMPLE, length) for length in tokens)
        epochs = epochs_of(len(dataset))
        figures[name] = {
            "examples": len(dataset),
            "errors": format_errors(dataset),
            "missing_system": sum(not any(m["role"] == "system" for m in messages) for messages in rows),
            "missing_user": sum(not any(m["role"] == "user" for m in messages) for messages in rows),
            "messages": distribution([len(messages) for messages in rows]),
            "tokens": distribution(tokens),
            "assistant_tokens": distribution([tokens_of_assistant(encoding, messages) for messages in rows]),
            "over_limit": sum(length > MAX_TOKENS_PER_EXAMPLE for length in tokens),
            "billed_tokens": billed,
            "epochs": epochs,
            "total_billed_tokens": epochs * billed,
        }
    json.dump(figures, sys.stdout, indent=1, sort_keys=True)
    print()


main()
