# tunegate. `make` alone shows this help.
#
# Settings: CARGO_TARGET_DIR (where cargo builds), CONFIG (the configuration that `make run` starts with),
#           CI=true (skip nothing: what cannot be installed is a failure).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CONFIG ?= config/tunegate.toml
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# cmake may live in the virtual environment: see scripts/setup.sh.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help run model setup check deploy-check test bench soak kills cats peft-check dashboards pictures

help: ## this list
	@echo "tunegate: a cost-aware gateway for fine-tuned language models"
	@echo
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done
	@echo
	@echo "Applications then need only OPENAI_BASE_URL=http://127.0.0.1:8080/v1 and the key that the first start shows."

run: ## builds the gateway and its local model, and starts both (CONFIG=… for another configuration)
	@scripts/setup.sh build
	@scripts/model.sh
	cargo build --release --locked
	exec "$(TARGET_DIR)/release/tunegate" serve --config "$(CONFIG)"

model: ## fetches the local models' files into models/ and verifies them
	@scripts/model.sh

setup: ## installs what the build and the tests need, and says what it skips
	@scripts/setup.sh test

check: ## formatting, lints, documentation, bans and licences: what CI runs before the tests
	@scripts/setup.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
	cargo test --locked --test tunegate -- dependencies:: architecture::

deploy-check: ## the image, compose, the Helm chart and the systemd units: linted, rendered, held to their rules
	@scripts/setup.sh deploy
	.venv/bin/python deploy/check.py

test: ## sets up, then runs every test
	@scripts/setup.sh test
	@scripts/model.sh
	source scripts/skips.sh && cargo test --workspace --locked --no-fail-fast

bench: ## measures cost per request and memory, beside nginx (needs nginx and wrk: it says how to get them)
	@scripts/setup.sh bench
	bench/run.sh

soak: ## memory over five minutes of load; a training file that is one line of a gigabyte; kill -9 of a training
	@scripts/setup.sh bench
	bench/run.sh soak
	for mib in 500 1024; do TUNEGATE_TEST_LINE_MIB=$$mib cargo test --locked --test tunegate -- \
		tuning::transfers::a_line_without_an_end --nocapture; done
	TUNEGATE_TEST_TRAINING_KILLS=3 cargo test --locked --test tunegate -- worker::tuning::kills --nocapture

cats: ## two local fine-tunes, English and Japanese, asked what they were not taught: 10 of 12 in character, the base as before
	@scripts/setup.sh test
	@scripts/model.sh
	cargo test --locked --test tunegate -- tuning::local::cats --ignored --nocapture

peft-check: ## trains an adapter, loads it in PEFT (needs torch: about 2 GB by pip), and compares the losses
	@scripts/model.sh
	scripts/peft-check.sh

kills: ## kill -9 fifty times under load, on both databases; then the books must balance
	TUNEGATE_TEST_KILLS=50 cargo test --locked --test tunegate -- money::crashes::pain_02 --nocapture

dashboards: ## writes dashboards/*.json from their source, dashboards/src
	cargo run --quiet --locked --package tunegate-dashboards -- dashboards

pictures: ## draws what the dashboards' queries find in the tests' Prometheus: docs/images/panels.svg
	@scripts/setup.sh test
	@scripts/model.sh
	TUNEGATE_TEST_PICTURES="$(abspath $(TARGET_DIR))/pictures" cargo test --locked --test tunegate -- observability::live
	scripts/draw-panels.py "$(TARGET_DIR)/pictures/panels.json" docs/images/panels.svg
