-- Removes memory's tables and functions, whichever state of this repository made them, and the
-- records of migrations that 0005_memory has replaced: an earlier version can then migrate again.
-- Lock: ACCESS EXCLUSIVE on memory's own tables, for milliseconds.

DROP TABLE IF EXISTS message_memories, forgotten_messages, search_configs, recall_texts,
    embedding_models, embedding_usage, recall_measurements;

DO $$
DECLARE
    old regprocedure;
BEGIN
    FOR old IN SELECT p.oid FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname::text IN (
            SELECT t.name || f.name FROM
                (VALUES ('chat_messages_'), ('standalone_chat_messages_')) t (name),
                (VALUES ('memory_insert'), ('memory_update'), ('memory_embedding'),
                    ('memory_delete'), ('clear_stale_embedding'), ('new_memories'),
                    ('insert_memories'), ('remember'), ('learn'), ('relearn'), ('embed'),
                    ('forget'), ('pend'), ('added'), ('learn_added')) f (name)
            UNION ALL VALUES ('memory_row'), ('message_terms'), ('content_term'),
                ('recall_terms'), ('recall_content_term'), ('recall_traits'))
    LOOP
        EXECUTE format('DROP FUNCTION %s', old);
    END LOOP;
END $$;

DELETE FROM django_migrations WHERE app = 'chat' AND name IN ('0003_recall', '0005_backfill',
    '0006_texts', '0006_model_of_vectors', '0006_model_and_text', '0007_import',
    '0008_forgetting');
