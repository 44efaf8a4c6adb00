#!/usr/bin/env python3
"""Four steps of LoRA training of a tiny llama in PyTorch, float64: what golden/lora_steps.txt was made by.

It shares nothing with the engine but the formula of the numbers: Hugging Face's order of rows and halves, repeated key
heads, PyTorch's own gradients, AdamW, clipping, cross entropy and log-sigmoid. Needs torch (Debian: python3-torch).

    lora_steps.py > golden/lora_steps.txt
"""
import struct

import torch
import torch.nn.functional as F

WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, VOCABULARY = 16, 24, 2, 4, 2, 6, 32
EPSILON = struct.unpack("f", struct.pack("f", 1e-5))[0]
RANK, ALPHA, RATE, DECAY, CLIP, STEPS, WARM, BETA = 3, 6.0, 0.01, 0.1, 0.5, 4, 1, 0.5
TARGETS = {
    "q_proj": (HEADS * HEAD, WIDTH), "k_proj": (KV_HEADS * HEAD, WIDTH), "v_proj": (KV_HEADS * HEAD, WIDTH),
    "o_proj": (WIDTH, HEADS * HEAD), "gate_proj": (HIDDEN, WIDTH), "up_proj": (HIDDEN, WIDTH), "down_proj": (WIDTH, HIDDEN),
}
ROTATED = {"q_proj": HEADS, "k_proj": KV_HEADS}
MASK = (1 << 64) - 1


def numbers(tensor, shape, around, spread):
    """The same as in support/tiny.rs: a hash of place and tensor, rounded to float32."""
    def number(i):
        x = (i + 1 + tensor * 1_000_003) * 0x9E3779B97F4A7C15 & MASK
        x = (x ^ x >> 32) * 0xD6E8FEB86659FD93 & MASK
        return around + spread * (((x ^ x >> 32) >> 40) / (1 << 23) - 1.0)
    count = torch.Size(shape).numel()
    return torch.tensor([number(i) for i in range(count)], dtype=torch.float64).float().double().reshape(shape)


def to_hf(rows, heads):
    """GGUF keeps the two channels that are rotated together side by side, Hugging Face half a head apart."""
    return rows.reshape(heads, HEAD // 2, 2, -1).transpose(1, 2).reshape(rows.shape)


def to_gguf(rows, heads):
    return rows.reshape(heads, 2, HEAD // 2, -1).transpose(1, 2).reshape(rows.shape)


EMBEDDING = numbers(0, (VOCABULARY, WIDTH), 0.0, 1.0)
NORM = numbers(1, (WIDTH,), 1.0, 0.2)
BASE = []
for layer in range(LAYERS):
    weights = {name: numbers(10 + 10 * layer + i, (WIDTH,), 1.0, 0.2) for i, name in enumerate(["attention", "hidden"])}
    for i, (name, shape) in enumerate(TARGETS.items()):
        matrix = numbers(12 + 10 * layer + i, shape, 0.0, 0.5)
        weights[name] = to_hf(matrix, ROTATED[name]) if name in ROTATED else matrix
    BASE.append(weights)


def start():
    adapter = {}
    for layer in range(LAYERS):
        for i, (name, (out, inputs)) in enumerate(TARGETS.items()):
            a = numbers(1000 + 20 * layer + 2 * i, (RANK, inputs), 0.0, 0.3)
            b = numbers(1001 + 20 * layer + 2 * i, (out, RANK), 0.0, 0.2)
            adapter[layer, name] = a, to_hf(b, ROTATED[name]) if name in ROTATED else b
    return adapter


def rms(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight


def rotated(x):
    positions = torch.arange(x.shape[1], dtype=torch.float64)
    frequencies = 10_000.0 ** (-torch.arange(0, HEAD, 2, dtype=torch.float64) / HEAD)
    angles = torch.outer(positions, frequencies).repeat(1, 2)
    first, second = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()


def logits(tokens, adapter):
    x = EMBEDDING[tokens]
    length = len(tokens)
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    for layer, weights in enumerate(BASE):
        def linear(name, x):
            a, b = adapter[layer, name]
            return x @ weights[name].T + ALPHA / RANK * (x @ a.T @ b.T)

        def heads(x, count):
            return x.reshape(length, count, HEAD).transpose(0, 1)

        h = rms(x, weights["attention"])
        q, k = rotated(heads(linear("q_proj", h), HEADS)), rotated(heads(linear("k_proj", h), KV_HEADS))
        k = k.repeat_interleave(HEADS // KV_HEADS, 0)
        v = heads(linear("v_proj", h), KV_HEADS).repeat_interleave(HEADS // KV_HEADS, 0)
        scores = (q @ k.transpose(1, 2) / HEAD**0.5).masked_fill(later, float("-inf"))
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, HEADS * HEAD)
        x = x + linear("o_proj", mixed)
        h = rms(x, weights["hidden"])
        x = x + linear("down_proj", F.silu(linear("gate_proj", h)) * linear("up_proj", h))
    return rms(x, NORM) @ EMBEDDING.T


def example(seed, length):
    tokens = torch.tensor([(i * 7 + seed * 5 + i * i) % VOCABULARY for i in range(length)])
    weights = torch.tensor([0.0 if 2 * i < length else 0.5 + i % 3 for i in range(length)], dtype=torch.float64)
    return tokens, weights


def losses(row, adapter):
    tokens, weights = row
    every = F.cross_entropy(logits(tokens[:-1], adapter), tokens[1:], reduction="none")
    return every * weights[1:], weights[1:]


def sft(rows, adapter, _before):
    both = [losses(row, adapter) for row in rows]
    return sum(loss.sum() for loss, _ in both) / sum(weights.sum() for _, weights in both)


def dpo(rows, adapter, before):
    total = 0.0
    for chosen, rejected in zip(rows[::2], rows[1::2]):
        def gain(row):
            with torch.no_grad():
                was = losses(row, before)[0].sum()
            return was - losses(row, adapter)[0].sum()
        total = total - F.logsigmoid(BETA * (gain(chosen) - gain(rejected)))
    return total / (len(rows) // 2)


def train(name, method, rows_of):
    before = start()
    adapter = {key: [x.clone().requires_grad_() for x in pair] for key, pair in before.items()}
    trained = [x for pair in adapter.values() for x in pair]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    for step in range(STEPS):
        rate = RATE * ((step + 1) / WARM if step < WARM else (STEPS - step) / (STEPS - WARM))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = method(rows_of(step), adapter, before)
        loss.backward()
        length = torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        print(name, "step", step + 1, f"{loss.item():.12e} {length.item():.12e} {rate:.12e}")
        if step in (0, STEPS - 1):
            for (layer, target), (a, b) in adapter.items():
                b = to_gguf(b.detach(), ROTATED[target]) if target in ROTATED else b
                for side, matrix in (("a", a), ("b", b)):
                    values = " ".join(f"{x:.6e}" for x in matrix.detach().flatten().tolist())
                    print(name, "weights", step + 1, layer, target, side, values)


train("sft", sft, lambda step: [example(step, 9), example(step + 7, 14)])
train("dpo", dpo, lambda step: [example(step, 9), example(step + 7, 12), example(step + 3, 10), example(step + 4, 8)])
