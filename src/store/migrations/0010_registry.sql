-- What finished jobs have made. A name is never given away again. The checkpoints are a JSON list, the curve a JSON list of
-- steps, the bound prompt a JSON object. Without a system prompt the dataset's rows differ.
CREATE TABLE registered_models (
    name            TEXT   NOT NULL PRIMARY KEY,
    owner           TEXT   NOT NULL,
    provider        TEXT   NOT NULL,
    base            TEXT   NOT NULL,
    job_id          TEXT   NOT NULL,
    dataset_sha256  TEXT   NOT NULL,
    system_prompt   TEXT,
    trained_tokens  BIGINT,
    cost_nanos      BIGINT NOT NULL,
    price_version   TEXT   NOT NULL,
    checkpoints     TEXT   NOT NULL,
    curve           TEXT   NOT NULL,
    bound_prompt    TEXT,
    created_at_ms   BIGINT NOT NULL,
    finished_at_ms  BIGINT NOT NULL,
    retired_at_ms   BIGINT,
    deleted_at_ms   BIGINT
);

CREATE INDEX registered_models_by_owner ON registered_models (owner, finished_at_ms);

-- Where a model is served, if its provider serves only what was deployed. A row is there before the provider is asked; its
-- version is what a change claims to have seen.
CREATE TABLE model_deployments (
    provider      TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    model         TEXT   NOT NULL,
    registered    TEXT   NOT NULL,
    tier          TEXT   NOT NULL,
    capacity      BIGINT NOT NULL,
    state         TEXT   NOT NULL,
    why           TEXT,
    wished_at_ms  BIGINT NOT NULL,
    ends_at_ms    BIGINT,
    changed_at_ms BIGINT NOT NULL,
    version       BIGINT NOT NULL,
    PRIMARY KEY (provider, name)
);

-- What the registry has put on each route of the configuration: a JSON object. The version is the number of the last move.
CREATE TABLE model_assignments (
    route     TEXT   NOT NULL PRIMARY KEY,
    version   BIGINT NOT NULL,
    placement TEXT   NOT NULL
);

-- Append-only, with numbers 1, 2, 3, … without gaps for each route: what stood there before and behind a move. A rollback
-- names the move that it undoes.
CREATE TABLE model_moves (
    route            TEXT   NOT NULL,
    number           BIGINT NOT NULL,
    kind             TEXT   NOT NULL,
    model            TEXT   NOT NULL,
    placement_before TEXT   NOT NULL,
    placement_after  TEXT   NOT NULL,
    undoes           BIGINT,
    at_ms            BIGINT NOT NULL,
    author           TEXT   NOT NULL,
    note             TEXT   NOT NULL,
    PRIMARY KEY (route, number)
);
