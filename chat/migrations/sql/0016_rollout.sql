-- Who is given memories, and how long recall takes: retrieval/rollout.
-- Lock: none on any table that exists.

CREATE TABLE IF NOT EXISTS rag_rollout (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    state text NOT NULL,
    fuse_ms integer,
    fuse_errors integer,
    set_at timestamptz NOT NULL,
    blown_at timestamptz,
    blown_reason text
);

CREATE TABLE IF NOT EXISTS recall_times (
    slot timestamptz NOT NULL,
    bucket smallint NOT NULL,
    count bigint NOT NULL,
    errors bigint NOT NULL,
    added_tokens bigint NOT NULL,
    PRIMARY KEY (slot, bucket)
);
