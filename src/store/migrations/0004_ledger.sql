-- The journal. Rows are only ever added, with seq 1, 2, 3, … without gaps; clean-up takes them away from the front.
-- What a kind does not use is 0 or empty.
CREATE TABLE ledger (
    seq               BIGINT NOT NULL PRIMARY KEY,
    kind              TEXT   NOT NULL,
    at_ms             BIGINT NOT NULL,
    written_at_ms     BIGINT NOT NULL,
    ends_seq          BIGINT,
    corrects_seq      BIGINT,
    request_id        TEXT   NOT NULL,
    instance          TEXT   NOT NULL,
    key_id            TEXT   NOT NULL,
    key_alias         TEXT   NOT NULL,
    team              TEXT   NOT NULL,
    end_user          TEXT   NOT NULL,
    tags              TEXT   NOT NULL,
    model             TEXT   NOT NULL,
    deployment        TEXT   NOT NULL,
    provider          TEXT   NOT NULL,
    purpose           TEXT   NOT NULL,
    prompt            BIGINT NOT NULL,
    cached            BIGINT NOT NULL,
    cache_write       BIGINT NOT NULL,
    audio_prompt      BIGINT NOT NULL,
    completion        BIGINT NOT NULL,
    reasoning         BIGINT NOT NULL,
    audio_completion  BIGINT NOT NULL,
    source            TEXT   NOT NULL,
    held_nanos        BIGINT NOT NULL,
    cost_nanos        BIGINT NOT NULL,
    saved_nanos       BIGINT NOT NULL,
    price             TEXT   NOT NULL,
    note              TEXT   NOT NULL
);

-- Nothing is settled twice, whoever tries.
CREATE UNIQUE INDEX ledger_ends ON ledger (ends_seq) WHERE ends_seq IS NOT NULL;

CREATE INDEX ledger_corrections ON ledger (corrects_seq) WHERE corrects_seq IS NOT NULL;

-- A request's end is found by its hold.
CREATE INDEX ledger_by_request ON ledger (request_id) WHERE ends_seq IS NULL;

CREATE INDEX ledger_by_key ON ledger (key_id, seq) WHERE kind <> 'hold';

CREATE INDEX ledger_by_time ON ledger (at_ms) WHERE kind <> 'hold';

-- Who writes. A live process moves its beat; all of its open holds have a seq of at least open_from_seq.
CREATE TABLE instances (
    id            TEXT   NOT NULL PRIMARY KEY,
    started_at_ms BIGINT NOT NULL,
    beat          BIGINT NOT NULL,
    open_from_seq BIGINT NOT NULL,
    ended         BIGINT NOT NULL
);

-- What was spent, by quarter of an hour and by all that an entry is booked on; booked_on is the hash of that.
CREATE TABLE spend_slots (
    slot_ms           BIGINT NOT NULL,
    booked_on         TEXT   NOT NULL,
    key_id            TEXT   NOT NULL,
    key_alias         TEXT   NOT NULL,
    team              TEXT   NOT NULL,
    end_user          TEXT   NOT NULL,
    tags              TEXT   NOT NULL,
    model             TEXT   NOT NULL,
    deployment        TEXT   NOT NULL,
    provider          TEXT   NOT NULL,
    purpose           TEXT   NOT NULL,
    entries           BIGINT NOT NULL,
    requests          BIGINT NOT NULL,
    cache_hits        BIGINT NOT NULL,
    reported          BIGINT NOT NULL,
    estimated         BIGINT NOT NULL,
    unconfirmed       BIGINT NOT NULL,
    prompt            BIGINT NOT NULL,
    cached            BIGINT NOT NULL,
    cache_write       BIGINT NOT NULL,
    audio_prompt      BIGINT NOT NULL,
    completion        BIGINT NOT NULL,
    reasoning         BIGINT NOT NULL,
    audio_completion  BIGINT NOT NULL,
    reserved_nanos    BIGINT NOT NULL,
    cost_nanos        BIGINT NOT NULL,
    saved_nanos       BIGINT NOT NULL,
    PRIMARY KEY (slot_ms, booked_on)
);

-- The sums of the rows that were cleaned up, by all that they were booked on. They stay.
CREATE TABLE ledger_closings (
    booked_on         TEXT   NOT NULL PRIMARY KEY,
    key_id            TEXT   NOT NULL,
    key_alias         TEXT   NOT NULL,
    team              TEXT   NOT NULL,
    end_user          TEXT   NOT NULL,
    tags              TEXT   NOT NULL,
    model             TEXT   NOT NULL,
    deployment        TEXT   NOT NULL,
    provider          TEXT   NOT NULL,
    purpose           TEXT   NOT NULL,
    entries           BIGINT NOT NULL,
    requests          BIGINT NOT NULL,
    cache_hits        BIGINT NOT NULL,
    reported          BIGINT NOT NULL,
    estimated         BIGINT NOT NULL,
    unconfirmed       BIGINT NOT NULL,
    prompt            BIGINT NOT NULL,
    cached            BIGINT NOT NULL,
    cache_write       BIGINT NOT NULL,
    audio_prompt      BIGINT NOT NULL,
    completion        BIGINT NOT NULL,
    reasoning         BIGINT NOT NULL,
    audio_completion  BIGINT NOT NULL,
    reserved_nanos    BIGINT NOT NULL,
    cost_nanos        BIGINT NOT NULL,
    saved_nanos       BIGINT NOT NULL
);

-- One row: the last entry that is in the slots; the last one up to which every hold has ended; the last one that is in
-- the closings. closed_seq <= settled_seq <= folded_seq.
CREATE TABLE spend_head (
    id          BIGINT NOT NULL PRIMARY KEY,
    folded_seq  BIGINT NOT NULL,
    settled_seq BIGINT NOT NULL,
    closed_seq  BIGINT NOT NULL
);

INSERT INTO spend_head (id, folded_seq, settled_seq, closed_seq) VALUES (1, 0, 0, 0);
