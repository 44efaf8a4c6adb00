-- Evaluations of models. The plan and the report are JSON objects; `cancelled` is 1 once somebody wants an end. The counts of
-- questions and answers are those of the whole evaluation, the judge's included.
CREATE TABLE evaluations (
    id            TEXT   NOT NULL PRIMARY KEY,
    owner         TEXT   NOT NULL,
    status        TEXT   NOT NULL,
    plan          TEXT   NOT NULL,
    questions     BIGINT NOT NULL,
    cancelled     BIGINT NOT NULL,
    why           TEXT   NOT NULL,
    report        TEXT,
    created_at_ms BIGINT NOT NULL,
    started_at_ms BIGINT,
    ended_at_ms   BIGINT
);

CREATE INDEX evaluations_by_status ON evaluations (status, created_at_ms, id);

-- An answer is kept as soon as it is there, and never asked for again. `said` is a JSON object while words are needed: for a
-- judge, and where the operator wants to read them; else it is empty. `failed` says why there is no answer; else it is empty.
CREATE TABLE evaluation_answers (
    evaluation        TEXT   NOT NULL,
    part              TEXT   NOT NULL,
    question          BIGINT NOT NULL,
    model             BIGINT NOT NULL,
    said              TEXT   NOT NULL,
    scores            TEXT   NOT NULL,
    failed            TEXT   NOT NULL,
    deployment        TEXT,
    latency_ms        BIGINT NOT NULL,
    cost_nanos        BIGINT NOT NULL,
    prompt_tokens     BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    PRIMARY KEY (evaluation, part, question, model)
);

-- Which evaluations have looked at which model, by the name that it was asked by.
CREATE TABLE model_evaluations (
    model       TEXT   NOT NULL,
    evaluation  TEXT   NOT NULL,
    ended_at_ms BIGINT NOT NULL,
    PRIMARY KEY (model, evaluation)
);
