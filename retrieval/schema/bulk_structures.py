"""SQL by which recall's table learns many messages of one transaction at once (``bulk``); made with its triggers."""

# The index of terms takes rows into a list first, and from there many at a time. Every recall reads the list too, so
# it is short while people chat, and longer only while many are learnt, who empty it at the end: 0009, last table.
SHORT_LIST, LONG_LIST = "64kB", "1MB"
# Only this transaction's own rows: nobody else can have changed or deleted one, so nothing is learnt of what is gone.
# An INSERT never works out in parallel what it selects; RETURN QUERY does. The planner is told that it costs nothing
# to go parallel, and by coalesce() that half of the rows are own ones: of rows this new it would expect one.
INSERT_MEMORIES = """
    CREATE OR REPLACE FUNCTION {schema}.{table}_new_memories(first bigint, last bigint) RETURNS TABLE (
        reference bigint, of_user bigint, in_conversation bigint, at timestamptz, by_its_user boolean,
        its_terms bigint[], its_chars smallint, asks boolean, its_bits bit, its_model smallint, its_text smallint
    ) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    SET parallel_setup_cost = 0 SET parallel_tuple_cost = 0
    SET min_parallel_table_scan_size = 0 SET min_parallel_index_scan_size = 0 AS $$
    DECLARE
        own CONSTANT xid := pg_current_xact_id()::xid;
    BEGIN
        RETURN QUERY SELECT {row} FROM (
            SELECT id, user_id::bigint AS user_id, {conversation}, created_at, role, content, embedding
            FROM {schema}.{table} WHERE id BETWEEN first AND last AND coalesce(xmin = own, false) AND content <> ''
        ) m;
    END $$;
    CREATE OR REPLACE FUNCTION {schema}.{table}_insert_memories(first bigint, last bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET gin_pending_list_limit = '{long_list}' AS $$
    BEGIN
        INSERT INTO {schema}.message_memories ({columns}) SELECT * FROM {schema}.{table}_new_memories(first, last)
        ON CONFLICT (id) DO NOTHING;
        PERFORM gin_clean_pending_list('{schema}.message_memories_terms');
    END $$;
"""
