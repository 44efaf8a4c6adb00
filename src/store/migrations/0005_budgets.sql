-- Budgets that operators made by the admin API; those in the configuration's file are not here.
CREATE TABLE budgets (
    name           TEXT   NOT NULL PRIMARY KEY,
    scope          TEXT   NOT NULL,
    limit_nanos    BIGINT NOT NULL,
    time_window    TEXT   NOT NULL,
    time_zone      TEXT   NOT NULL,
    alert_at       TEXT   NOT NULL,
    action         TEXT   NOT NULL,
    raise_by_nanos BIGINT,
    raise_until_ms BIGINT,
    created_at_ms  BIGINT NOT NULL
);

-- One counter has one limit, also where two processes make a budget at once. A scope is JSON, its members in order.
CREATE UNIQUE INDEX budgets_counters ON budgets (scope, time_window, time_zone);
