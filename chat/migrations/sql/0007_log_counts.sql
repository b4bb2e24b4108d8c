-- How many errors, and starts, the servers logged. No text of a line: retrieval/log_counts.py.
-- Lock: none on any table that exists.

CREATE TABLE IF NOT EXISTS log_counts (
    minute timestamptz NOT NULL,
    kind text NOT NULL,
    at_start boolean NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (minute, kind, at_start)
);
