-- Overrides of prices. Append-only: the ledger names versions, which are numbers of changes.
CREATE TABLE price_changes (
    change_no BIGINT NOT NULL PRIMARY KEY,
    provider  TEXT   NOT NULL,
    model     TEXT   NOT NULL,
    body      TEXT,
    at_ms     BIGINT NOT NULL
);
