CREATE TABLE virtual_keys (
    id            TEXT   NOT NULL PRIMARY KEY,
    hash          TEXT   NOT NULL UNIQUE,
    alias         TEXT   NOT NULL,
    last_four     TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL,
    revoked_at_ms BIGINT
);

-- An alias is free again once its key is revoked.
CREATE UNIQUE INDEX virtual_keys_live_alias ON virtual_keys (alias) WHERE revoked_at_ms IS NULL;

CREATE TABLE pins (
    id            TEXT   NOT NULL PRIMARY KEY,
    deployment    TEXT   NOT NULL,
    key_id        TEXT   NOT NULL,
    created_at_ms BIGINT NOT NULL
);

CREATE INDEX pins_by_age ON pins (created_at_ms);
