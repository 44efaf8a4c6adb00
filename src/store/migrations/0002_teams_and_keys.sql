CREATE TABLE teams (
    id                  TEXT   NOT NULL PRIMARY KEY,
    alias               TEXT   NOT NULL,
    tags                TEXT   NOT NULL,
    requests_per_minute BIGINT,
    tokens_per_minute   BIGINT,
    concurrent          BIGINT,
    created_at_ms       BIGINT NOT NULL,
    archived_at_ms      BIGINT
);

-- An alias is free again once its team is archived.
CREATE UNIQUE INDEX teams_live_alias ON teams (alias) WHERE archived_at_ms IS NULL;

-- Lists are JSON arrays of text. An older process that shares the database writes keys without all this.
ALTER TABLE virtual_keys ADD COLUMN team_id TEXT;
ALTER TABLE virtual_keys ADD COLUMN expires_at_ms BIGINT;
ALTER TABLE virtual_keys ADD COLUMN models TEXT NOT NULL DEFAULT '[]';
ALTER TABLE virtual_keys ADD COLUMN tuning TEXT NOT NULL DEFAULT 'none';
ALTER TABLE virtual_keys ADD COLUMN unbounded_cost_nanos BIGINT;
ALTER TABLE virtual_keys ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE virtual_keys ADD COLUMN requests_per_minute BIGINT;
ALTER TABLE virtual_keys ADD COLUMN tokens_per_minute BIGINT;
ALTER TABLE virtual_keys ADD COLUMN concurrent BIGINT;

-- Secrets that were rotated away and are good for a while yet.
CREATE TABLE retired_key_hashes (
    hash           TEXT   NOT NULL PRIMARY KEY,
    key_id         TEXT   NOT NULL,
    valid_until_ms BIGINT NOT NULL
);

CREATE TABLE audit_log (
    id      TEXT   NOT NULL PRIMARY KEY,
    at_ms   BIGINT NOT NULL,
    actor   TEXT   NOT NULL,
    action  TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    detail  TEXT   NOT NULL
);

CREATE TABLE installation (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
