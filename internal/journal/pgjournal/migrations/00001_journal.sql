-- +goose Up

-- One row for each shard. Whoever appends locks the row and moves it, so that
-- the frames of a shard are serial over all writers and their positions dense.
-- The free space keeps the versions of the row on its page.
CREATE TABLE tidegate_journal.head (
    shard    integer PRIMARY KEY CHECK (shard >= 0),
    position bigint  NOT NULL DEFAULT 0 CHECK (position >= 0), -- of the newest frame
    timeline bigint  NOT NULL DEFAULT 0                        -- highest of the server's timelines that appended
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

INSERT INTO tidegate_journal.head (shard) VALUES (0);

-- The bytes of a frame are all there is. What is indexed is computed from them
-- by the server, so that no second copy can disagree: run and number as they
-- stand in the header, and the header's hash (docs/format.md §3).
CREATE TABLE tidegate_journal.frame (
    shard    integer NOT NULL,
    position bigint  NOT NULL CHECK (position > 0),
    run_n    bytea   NOT NULL GENERATED ALWAYS AS (substring(bytes FROM 13 FOR 24)) STORED,
    hash     bytea   NOT NULL GENERATED ALWAYS AS (sha256('tidegate-header-v1'::bytea || substring(bytes FROM 5 FOR 108))) STORED,
    bytes    bytea   NOT NULL CHECK (octet_length(bytes) > 112),
    PRIMARY KEY (shard, position),
    UNIQUE (shard, run_n)
);

CREATE INDEX frame_hash ON tidegate_journal.frame (shard, hash);

-- Salts and digests do not compress, and trying to would hold up the next
-- writer: it happens while the head is locked.
ALTER TABLE tidegate_journal.frame ALTER COLUMN bytes SET STORAGE EXTERNAL;
