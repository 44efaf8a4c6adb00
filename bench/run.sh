#!/usr/bin/env bash
# `make bench`: the gateway's cost per request beside nginx's, and its memory. All options: bench/run.sh --help
# `bench/run.sh soak`, the first half of `make soak`: memory over five minutes, with many idle streams and a steady load.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
for tool in nginx wrk python3; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
    echo "bench: not installed: ${missing[*]}. Run: apt-get install nginx-light wrk python3" >&2
    exit 1
fi

if [[ " $* " != *" --help "* && -z "${BENCH_NO_BUILD:-}" ]]; then
    cargo build --release --bin tunegate
fi
if [[ "${1:-}" == soak ]]; then
    shift
    set -- --soak 5 "$@"
fi
exec python3 bench/bench.py "$@"
