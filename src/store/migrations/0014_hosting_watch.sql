-- How long somebody has watched whether a deployment is used: it is idle from `idle_from_ms` on, as far as was known at
-- `watched_ms`. Time in which nobody watched is not idle: `idle_from_ms` moves on by it.
ALTER TABLE hosted ADD COLUMN idle_from_ms BIGINT;
ALTER TABLE hosted ADD COLUMN watched_ms BIGINT;
