# Sourced before the tests: tells them what setup.sh had to leave out, and why.
if [[ -s .venv/skips ]]; then
    if clients=$(grep -e '-clients' .venv/skips); then
        TUNEGATE_SKIP_CLIENTS=$(tr '\t\n' ': ' <<<"$clients")
        export TUNEGATE_SKIP_CLIENTS
    fi
    if types=$(grep -e '^grafana-types' .venv/skips); then
        TUNEGATE_SKIP_GRAFANA_TYPES=$(tr '\t\n' ': ' <<<"$types")
        export TUNEGATE_SKIP_GRAFANA_TYPES
    fi
    if prometheus=$(grep -e '^prometheus' .venv/skips); then
        TUNEGATE_SKIP_PROMETHEUS=$(tr '\t\n' ': ' <<<"$prometheus")
        export TUNEGATE_SKIP_PROMETHEUS
    fi
    if torch=$(grep -e '^torch' .venv/skips); then
        TUNEGATE_SKIP_TORCH=$(tr '\t\n' ': ' <<<"$torch")
        export TUNEGATE_SKIP_TORCH
    fi
    if disk=$(grep -e '^small-disk' .venv/skips); then
        TUNEGATE_SKIP_DISK=$(tr '\t\n' ': ' <<<"$disk")
        export TUNEGATE_SKIP_DISK
    fi
    if deploy=$(grep -e '^deploy' -e '^prometheus' .venv/skips); then
        TUNEGATE_SKIP_DEPLOY=$(tr '\t\n' ': ' <<<"$deploy")
        export TUNEGATE_SKIP_DEPLOY
    fi
    printf 'skipped in this run: %s\n' "$(tr '\t\n' ': ' <.venv/skips)"
fi
