-- Brings memory's tables from any earlier state of this repository to today's names and columns;
-- does nothing in a database without memory. Nothing is rewritten, old rows stay in recall.
-- Lock: ACCESS EXCLUSIVE on memory's own tables, for milliseconds.

ALTER TABLE IF EXISTS recall_texts RENAME TO search_configs;

ALTER INDEX IF EXISTS recall_texts_pkey RENAME TO search_configs_pkey;

ALTER INDEX IF EXISTS recall_texts_config_key RENAME TO search_configs_config_key;

ALTER INDEX IF EXISTS recall_texts_current RENAME TO search_configs_current;

ALTER SEQUENCE IF EXISTS recall_texts_id_seq RENAME TO search_configs_id_seq;

DO $$
DECLARE
    old record;
BEGIN
    FOR old IN SELECT * FROM (VALUES
        ('message_memories', 'traits', 'chars'),
        ('message_memories', 'text_id', 'search_config_id'),
        ('forgotten_messages', 'said_at', 'message_at'),
        ('forgotten_messages', 'spread', 'tainted')
    ) v (table_name, column_name, new_name) WHERE EXISTS (
        SELECT FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = to_regclass(v.table_name) AND a.attname = v.column_name
    ) LOOP
        EXECUTE format('ALTER TABLE %I RENAME COLUMN %I TO %I',
            old.table_name, old.column_name, old.new_name);
    END LOOP;
    -- The old triggers go on calling these functions until 0005_triggers.sql replaces them.
    FOR old IN SELECT t.name || f.name AS name, t.name || f.new_name AS new_name FROM
        (VALUES ('chat_messages_'), ('standalone_chat_messages_')) t (name),
        (VALUES ('learn', 'memory_insert'), ('relearn', 'memory_update'),
            ('embed', 'memory_embedding'), ('forget', 'memory_delete'),
            ('pend', 'clear_stale_embedding')) f (name, new_name)
        WHERE to_regprocedure(t.name || f.name || '()') IS NOT NULL
    LOOP
        EXECUTE format('ALTER FUNCTION %I() RENAME TO %I', old.name, old.new_name);
    END LOOP;
END $$;

ALTER TABLE IF EXISTS embedding_models
    ADD COLUMN IF NOT EXISTS min_similarity real,
    ADD COLUMN IF NOT EXISTS measured_at timestamptz;

-- A row from before has is_question NULL and says it by the sign of chars (negative: a question)
-- until backfill_embeddings writes its words again. Read abs(chars) and
-- coalesce(is_question, chars < 0).
ALTER TABLE IF EXISTS message_memories
    ADD COLUMN IF NOT EXISTS is_question boolean,
    ADD COLUMN IF NOT EXISTS search_config_id smallint,
    ADD COLUMN IF NOT EXISTS embedding_error text;

ALTER INDEX IF EXISTS message_memories_terms RESET (fastupdate);
