-- What is kept on disk, once for each content. A place is never given away again: who unlinks one can't hit another.
CREATE TABLE contents (
    sha256     TEXT   NOT NULL PRIMARY KEY,
    place      TEXT   NOT NULL,
    size_bytes BIGINT NOT NULL,
    -- files and parts that have this content; at 0 the row is gone
    refs       BIGINT NOT NULL
);

CREATE UNIQUE INDEX contents_by_place ON contents (place);

CREATE TABLE files (
    id                   TEXT   NOT NULL PRIMARY KEY,
    owner                TEXT   NOT NULL,
    filename             TEXT   NOT NULL,
    purpose              TEXT   NOT NULL,
    size_bytes           BIGINT NOT NULL,
    sha256               TEXT   NOT NULL,
    -- 'checking', 'processed' or 'error'
    status               TEXT   NOT NULL,
    status_details       TEXT,
    -- what the check found, as JSON
    report               TEXT,
    system_prompt_sha256 TEXT,
    created_at_ms        BIGINT NOT NULL,
    expires_at_ms        BIGINT,
    -- nobody sees it any more; it is gone once no job needs it
    deleted_at_ms        BIGINT,
    uses                 BIGINT NOT NULL DEFAULT 0,
    -- the process that checks it, and how often that has said so
    checker              TEXT   NOT NULL DEFAULT '',
    beat                 BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX files_by_time ON files (created_at_ms, id);
CREATE INDEX files_by_owner ON files (owner, created_at_ms, id);
CREATE INDEX files_by_status ON files (status, id);

-- Jobs that need a file.
CREATE TABLE file_uses (
    file_id TEXT NOT NULL,
    job_id  TEXT NOT NULL,
    PRIMARY KEY (file_id, job_id)
);

CREATE INDEX file_uses_by_job ON file_uses (job_id, file_id);

CREATE TABLE uploads (
    id                    TEXT   NOT NULL PRIMARY KEY,
    owner                 TEXT   NOT NULL,
    filename              TEXT   NOT NULL,
    purpose               TEXT   NOT NULL,
    mime_type             TEXT   NOT NULL,
    size_bytes            BIGINT NOT NULL,
    -- 'pending', 'completed', 'cancelled' or 'expired'
    status                TEXT   NOT NULL,
    -- what its parts hold together
    received_bytes        BIGINT NOT NULL DEFAULT 0,
    parts                 BIGINT NOT NULL DEFAULT 0,
    -- what it became
    file_id               TEXT,
    file_expires_after_ms BIGINT,
    created_at_ms         BIGINT NOT NULL,
    expires_at_ms         BIGINT NOT NULL
);

CREATE INDEX uploads_by_status ON uploads (status, expires_at_ms);

CREATE TABLE upload_parts (
    id            TEXT   NOT NULL PRIMARY KEY,
    upload_id     TEXT   NOT NULL,
    sha256        TEXT   NOT NULL,
    size_bytes    BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

CREATE INDEX upload_parts_by_upload ON upload_parts (upload_id, id);
