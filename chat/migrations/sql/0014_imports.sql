-- What users import, and which messages and conversations came with each import: so that an import
-- can be removed, and a later export of the same account adds only what is new.
-- Lock: none on any table that exists.

CREATE TABLE IF NOT EXISTS memory_imports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL,
    format text NOT NULL,
    status text NOT NULL CHECK (status IN ('running', 'done', 'failed')),
    conversations bigint NOT NULL DEFAULT 0,
    messages bigint NOT NULL DEFAULT 0,
    left_out jsonb NOT NULL DEFAULT '{{}}',
    detail text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    alive_at timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX IF NOT EXISTS memory_imports_running
    ON memory_imports (user_id) WHERE status = 'running';

CREATE INDEX IF NOT EXISTS memory_imports_user ON memory_imports (user_id, id);

CREATE TABLE IF NOT EXISTS imported_items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    import_id bigint NOT NULL REFERENCES memory_imports ON DELETE CASCADE,
    user_id bigint NOT NULL,
    ref bigint NOT NULL,
    is_conversation boolean NOT NULL,
    key bigint
);

CREATE INDEX IF NOT EXISTS imported_items_import ON imported_items (import_id);

CREATE UNIQUE INDEX IF NOT EXISTS imported_items_key ON imported_items (user_id, key);
