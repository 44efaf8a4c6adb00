-- The newest words about a model's answers: what is beyond its `max_rows` goes.
CREATE INDEX feedback_of_model ON feedback (model, at_ms, request_id);
