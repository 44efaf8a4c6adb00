-- Fine-tuning jobs. `request` is the client's body; `course` is all that the next step goes by (JSON), guarded by
-- `version`; `raw` is what the provider said last. A wish is written beside them by whoever has it.
CREATE TABLE fine_tuning_jobs (
    id              TEXT   NOT NULL PRIMARY KEY,
    owner           TEXT   NOT NULL,
    booked_on       TEXT   NOT NULL,
    provider        TEXT   NOT NULL,
    base            TEXT   NOT NULL,
    training_file   TEXT   NOT NULL,
    validation_file TEXT   NOT NULL,
    request         TEXT   NOT NULL,
    seed            BIGINT NOT NULL,
    idempotency     TEXT,
    status          TEXT   NOT NULL,
    stage           TEXT   NOT NULL,
    version         BIGINT NOT NULL,
    course          TEXT   NOT NULL,
    raw             TEXT   NOT NULL,
    result_files    TEXT   NOT NULL,
    wish            TEXT   NOT NULL,
    wishes          BIGINT NOT NULL,
    next_at_ms      BIGINT NOT NULL,
    created_at_ms   BIGINT NOT NULL,
    ended_at_ms     BIGINT,
    held_nanos      BIGINT NOT NULL,
    price_row       TEXT   NOT NULL,
    bill_day        BIGINT,
    billed_tokens   BIGINT NOT NULL,
    cost_nanos      BIGINT NOT NULL
);

CREATE UNIQUE INDEX fine_tuning_jobs_by_idempotency ON fine_tuning_jobs (idempotency);
CREATE INDEX fine_tuning_jobs_by_owner ON fine_tuning_jobs (owner, created_at_ms, id);
CREATE INDEX fine_tuning_jobs_by_time ON fine_tuning_jobs (created_at_ms, id);
CREATE INDEX fine_tuning_jobs_by_next ON fine_tuning_jobs (stage, next_at_ms);
CREATE INDEX fine_tuning_jobs_by_day ON fine_tuning_jobs (provider, price_row, bill_day);

-- What happened to a job, numbered in the order in which we learnt it. Without a provider's id it is our own word.
CREATE TABLE fine_tuning_events (
    job         TEXT   NOT NULL,
    number      BIGINT NOT NULL,
    id          TEXT   NOT NULL,
    provider_id TEXT,
    created_at  BIGINT NOT NULL,
    level       TEXT   NOT NULL,
    kind        TEXT   NOT NULL,
    message     TEXT   NOT NULL,
    figures     TEXT   NOT NULL,
    PRIMARY KEY (job, number)
);

CREATE UNIQUE INDEX fine_tuning_events_by_provider ON fine_tuning_events (job, provider_id);

CREATE TABLE fine_tuning_checkpoints (
    job        TEXT   NOT NULL,
    step       BIGINT NOT NULL,
    id         TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    model      TEXT   NOT NULL,
    metrics    TEXT   NOT NULL,
    PRIMARY KEY (job, step)
);

-- Who does what only one process may do. It is another's to take when the beat has not changed for a while.
CREATE TABLE leases (
    name   TEXT   NOT NULL PRIMARY KEY,
    holder TEXT   NOT NULL,
    beat   BIGINT NOT NULL
);
