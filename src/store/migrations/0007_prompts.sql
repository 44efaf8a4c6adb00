-- Stored prompts. A name is never given away again: the ledger names versions by it.
CREATE TABLE prompts (
    name           TEXT   NOT NULL PRIMARY KEY,
    created_at_ms  BIGINT NOT NULL,
    archived_at_ms BIGINT
);

-- Append-only, with numbers 1, 2, 3, … without gaps for each prompt. The variables are a JSON list.
CREATE TABLE prompt_versions (
    prompt        TEXT   NOT NULL,
    number        BIGINT NOT NULL,
    text          TEXT   NOT NULL,
    variables     TEXT   NOT NULL,
    sha256        TEXT   NOT NULL,
    author        TEXT   NOT NULL,
    note          TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (prompt, number)
);

CREATE TABLE prompt_labels (
    prompt      TEXT   NOT NULL,
    label       TEXT   NOT NULL,
    version     BIGINT NOT NULL,
    moved_at_ms BIGINT NOT NULL,
    author      TEXT   NOT NULL,
    PRIMARY KEY (prompt, label)
);

-- Where each label has pointed; without a version it was not there.
CREATE TABLE prompt_moves (
    id           TEXT   NOT NULL PRIMARY KEY,
    prompt       TEXT   NOT NULL,
    label        TEXT   NOT NULL,
    from_version BIGINT,
    to_version   BIGINT,
    at_ms        BIGINT NOT NULL,
    author       TEXT   NOT NULL,
    note         TEXT   NOT NULL
);

CREATE INDEX prompt_moves_by_prompt ON prompt_moves (prompt, id);

-- Prompts that a key's requests may name (a JSON list), values for their variables (a JSON object), its use of the cache.
ALTER TABLE virtual_keys ADD COLUMN prompts TEXT NOT NULL DEFAULT '[]';
ALTER TABLE virtual_keys ADD COLUMN variables TEXT NOT NULL DEFAULT '{}';
ALTER TABLE virtual_keys ADD COLUMN cache TEXT NOT NULL DEFAULT 'on';

-- What a stored prompt was of a usage: which version, how many tokens, their part of the cost.
ALTER TABLE ledger ADD COLUMN injected_prompt TEXT NOT NULL DEFAULT '';
ALTER TABLE ledger ADD COLUMN injected_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN injected_nanos BIGINT NOT NULL DEFAULT 0;

-- What stored prompts cost, by the day (UTC, counted from 1970-01-01), the version and where it was sent.
CREATE TABLE prompt_days (
    prompt     TEXT   NOT NULL,
    day        BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    deployment TEXT   NOT NULL,
    provider   TEXT   NOT NULL,
    model      TEXT   NOT NULL,
    requests   BIGINT NOT NULL,
    tokens     BIGINT NOT NULL,
    cost_nanos BIGINT NOT NULL,
    PRIMARY KEY (prompt, day, version, deployment, provider, model)
);
