-- What was spent, by the day (UTC, counted from 1970-01-01) and by what totals are watched by: few rows, read often.
CREATE TABLE spend_days (
    day        BIGINT NOT NULL,
    team       TEXT   NOT NULL,
    model      TEXT   NOT NULL,
    deployment TEXT   NOT NULL,
    provider   TEXT   NOT NULL,
    purpose    TEXT   NOT NULL,
    cost_nanos BIGINT NOT NULL,
    PRIMARY KEY (day, team, model, deployment, provider, purpose)
);

INSERT INTO spend_days (day, team, model, deployment, provider, purpose, cost_nanos)
SELECT slot_ms / 86400000, team, model, deployment, provider, purpose, CAST(SUM(cost_nanos) AS BIGINT)
FROM spend_slots
GROUP BY slot_ms / 86400000, team, model, deployment, provider, purpose
HAVING SUM(cost_nanos) <> 0;

-- What was charged an upper bound is rare, and counted often.
CREATE INDEX ledger_unconfirmed ON ledger (seq) WHERE source = 'unconfirmed';
