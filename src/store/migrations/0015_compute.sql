-- Microseconds that a worker of ours computed, beside the tokens.
ALTER TABLE ledger ADD COLUMN compute_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE spend_slots ADD COLUMN compute_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE ledger_closings ADD COLUMN compute_us BIGINT NOT NULL DEFAULT 0;

-- Seconds that a worker of ours computed for a job.
ALTER TABLE fine_tuning_jobs ADD COLUMN computed_seconds BIGINT NOT NULL DEFAULT 0;
