-- Deployments that are billed by the hour. `until_ms` is there once one is gone; `seen_ms` is when it was last known to
-- stand: it is charged up to there.
CREATE TABLE hosted (
    deployment TEXT   NOT NULL,
    since_ms   BIGINT NOT NULL,
    provider   TEXT   NOT NULL,
    upstream   TEXT   NOT NULL,
    model      TEXT   NOT NULL,
    sku        TEXT   NOT NULL,
    source     TEXT   NOT NULL,
    seen_ms    BIGINT NOT NULL,
    until_ms   BIGINT,
    PRIMARY KEY (deployment, since_ms)
);

-- What was charged for which period, each once. A row is written before its entry in the ledger, which `seq` names once
-- it is there; `seq` is 0 until then. `net_nanos` is what it costs with its corrections, the last of which `seq` names.
CREATE TABLE hosting_charges (
    deployment     TEXT   NOT NULL,
    from_ms        BIGINT NOT NULL,
    since_ms       BIGINT NOT NULL,
    until_ms       BIGINT NOT NULL,
    per_hour_nanos BIGINT NOT NULL,
    billing        TEXT   NOT NULL,
    price          TEXT   NOT NULL,
    provider       TEXT   NOT NULL,
    team           TEXT   NOT NULL,
    net_nanos      BIGINT NOT NULL,
    seq            BIGINT NOT NULL,
    PRIMARY KEY (deployment, since_ms, from_ms)
);

CREATE INDEX hosting_charges_open ON hosting_charges (seq) WHERE seq = 0;
