-- Exchanges that are kept to train a successor on. `owner` is a team, a key or the operator; `end_user` is a hash, empty for
-- none; `prompt` and `answer` are JSON, masked where the model's policy says so. Each goes when `until_ms` is over.
CREATE TABLE captures (
    request_id  TEXT   NOT NULL PRIMARY KEY,
    owner       TEXT   NOT NULL,
    end_user    TEXT   NOT NULL,
    model       TEXT   NOT NULL,
    deployment  TEXT   NOT NULL,
    upstream    TEXT   NOT NULL,
    answer_id   TEXT   NOT NULL,
    prompt_hash TEXT   NOT NULL,
    at_ms       BIGINT NOT NULL,
    until_ms    BIGINT NOT NULL,
    bytes       BIGINT NOT NULL,
    masked      BIGINT NOT NULL,
    prompt      TEXT   NOT NULL,
    answer      TEXT   NOT NULL
);

CREATE INDEX captures_of_model ON captures (model, at_ms, request_id);
CREATE INDEX captures_until ON captures (until_ms);
CREATE INDEX captures_answer ON captures (answer_id);
CREATE INDEX captures_prompt ON captures (prompt_hash);

-- What was said about an answer: 1 for good, -1 for bad. It may be there before its exchange is.
CREATE TABLE feedback (
    request_id TEXT   NOT NULL PRIMARY KEY,
    owner      TEXT   NOT NULL,
    model      TEXT   NOT NULL,
    rating     BIGINT NOT NULL,
    comment    TEXT   NOT NULL,
    correction TEXT   NOT NULL,
    at_ms      BIGINT NOT NULL,
    until_ms   BIGINT NOT NULL
);

CREATE INDEX feedback_until ON feedback (until_ms);
