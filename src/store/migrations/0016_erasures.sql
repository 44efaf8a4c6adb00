-- What was said about an exchange goes with it; so far it stayed, for nobody to find.
DELETE FROM feedback WHERE request_id NOT IN (SELECT request_id FROM captures);

CREATE INDEX feedback_at ON feedback (at_ms);

-- What was said to go: an exchange that was answered by then is written no more, whoever still has it on its way. All that is
-- named must be true of it; empty names nothing. Each goes when no answer of then can be on its way any more.
CREATE TABLE erasures (
    request_id TEXT   NOT NULL,
    end_user   TEXT   NOT NULL,
    owner      TEXT   NOT NULL,
    model      TEXT   NOT NULL,
    at_ms      BIGINT NOT NULL,
    PRIMARY KEY (request_id, end_user, owner, model)
);

CREATE INDEX erasures_at ON erasures (at_ms);

-- How much is kept of a model, without a look at the rows.
CREATE INDEX captures_size ON captures (model, bytes);
