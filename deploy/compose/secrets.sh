#!/usr/bin/env bash
# Makes the secrets of compose.yaml in secrets/, at random; what is there stays as it is.
#
# The folder is yours alone (0700). The files in it can be read by all, because Compose mounts each as it is, and the
# programs in the containers are other users than you; nobody else on this machine comes as far as to a file.
set -euo pipefail
cd "$(dirname "$0")"

umask 077
mkdir -p secrets
chmod 700 secrets

# make NAME TEXT
make() {
    [[ -e secrets/$1 ]] && return
    printf '%s' "$2" >"secrets/$1"
    chmod 444 "secrets/$1"
    printf 'made secrets/%s\n' "$1"
}

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

make admin_key "sk-tg-admin-$(random)"
make grafana_password "$(random)"
make postgres_password "$(random)"
make database_url "postgres://tunegate:$(<secrets/postgres_password)@postgres:5432/tunegate"
# Yours to fill: the provider's key.
make openai ''
chmod 644 secrets/openai
