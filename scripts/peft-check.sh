#!/usr/bin/env bash
# An adapter of ours in PEFT itself: trains one on the English cats, loads base and adapter in transformers and PEFT, and
# compares the loss of all rows, before and after. What it needs is installed into a folder of its own, by pip.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
venv=$target/peft
model=models/SmolLM2-135M-Instruct.Q4_1.gguf
rows=engine/tests/data/cats.txt
adapter=$(mktemp -d)
trap 'rm -rf "$adapter"' EXIT

if ! "$venv/bin/python" -c 'import gguf, peft, torch, transformers' 2>/dev/null; then
    echo "peft-check: installing torch, transformers and peft into $venv (pip)"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/peft-check.txt
fi
echo 'peft-check: two epochs on fifteen rows'
cargo run --quiet --locked --package tunegate-engine --example train -- \
    "$model" "$rows" en 2 sft "$adapter/ours" | tee "$adapter/said"
"$venv/bin/python" scripts/peft-check.py "$model" "$rows" en "$adapter" \
    "$(sed -n 's/^after: loss \([0-9.]*\),.*/\1/p' "$adapter/said")"
