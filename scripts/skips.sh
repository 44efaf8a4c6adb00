# Sourced before the tests: tells them what setup.sh had to leave out, and why.
if [[ -s .venv/skips ]]; then
    TUNEGATE_SKIP_CLIENTS=$(tr '\t\n' ': ' <.venv/skips)
    export TUNEGATE_SKIP_CLIENTS
    printf 'skipped in this run: %s\n' "$TUNEGATE_SKIP_CLIENTS"
fi
