"""Loads a GGUF base in transformers and an adapter of ours in PEFT, and holds the loss of all rows to what the trainer said.

peft-check.py MODEL ROWS LANGUAGE FOLDER LOSS
"""

import pathlib
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

# The weights are the same; sums are rounded in another order, and rows differ in length.
TOLERANCE = 1e-4


def read(path, language):
    """Rows of tokens, and whether each counts."""
    for line in pathlib.Path(path).read_text().splitlines():
        name, *words = line.split(" ")
        if name == language:
            yield [int(word.lstrip("*")) for word in words], [word.startswith("*") for word in words]


def loss(model, rows):
    """The mean over all tokens that count, as the trainer's `evaluate` has it."""
    total, count = 0.0, 0
    for tokens, counts in rows:
        with torch.no_grad():
            said = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        for at in range(1, len(tokens)):
            if counts[at]:
                total, count = total - said[at - 1, tokens[at]].item(), count + 1
    return total / count


def main():
    model, rows, language, folder, ours = sys.argv[1:]
    model, folder, rows, ours = pathlib.Path(model), pathlib.Path(folder), list(read(rows, language)), float(ours)
    base = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name).float().eval()
    # the file has no output weights, since they are those of the embedding; transformers does not tell
    base.lm_head.weight = base.get_input_embeddings().weight
    before = loss(base, rows)
    adapted = PeftModel.from_pretrained(base, folder / "ours").eval()
    after = loss(adapted, rows)
    print(f"PEFT: loss {before:.6f} without, {after:.6f} with the adapter; the trainer says {ours:.6f}")
    assert after < before / 2, "the adapter changes nothing"
    assert abs(after - ours) < TOLERANCE * max(1.0, ours), "PEFT computes something else"
    adapted.save_pretrained(folder / "theirs")
    one, other = (load_file(folder / name / "adapter_model.safetensors") for name in ("ours", "theirs"))
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one), "PEFT writes other numbers"
    print(f"PEFT writes the same {len(one)} tensors again")


main()
