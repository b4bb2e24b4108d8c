-- The triggers of each message table, the functions that they call, and insert_memories with which
-- an import inserts in their place; as they are after all migrations: see current.sql. {table},
-- {conversation}, {kind_bit}: of the message table; {memory_insert} and so on: the qualified names
-- of its functions.
-- SECURITY DEFINER: writing a message needs no right on memory's tables. So the search_path is
-- fixed, and every name outside pg_catalog is qualified. A trigger never fails a write: it warns,
-- and the message waits for backfill_embeddings. Inserts and deletes are handled by statement: an
-- EXCEPTION block uses up a transaction id, and an import of a million rows would use a million.

-- New messages. An answer that is being written has no content yet.
CREATE OR REPLACE FUNCTION {memory_insert}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET gin_pending_list_limit = '64kB' AS $$
BEGIN
    IF current_setting('verse.defer_memory_insert', true) = 'on' THEN
        RETURN NULL;  -- this transaction calls insert_memories at its end
    END IF;
    INSERT INTO {schema}.message_memories (id, user_id, conversation, created_at, by_user,
        terms, chars, is_question, search_config_id, bits, model)
    SELECT r.*, {vector}.binary_quantize(m.embedding)::bit(1536), CASE WHEN m.embedding IS NOT NULL
        THEN (SELECT e.id FROM {schema}.embedding_models e WHERE e.current) END
    FROM added m CROSS JOIN LATERAL {schema}.memory_row(
        {kind_bit}, m.id, m.user_id, m.{conversation}, m.created_at, m.role, m.content) r
    WHERE m.content <> ''
    ON CONFLICT (id) DO NOTHING;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'new messages of % are not in memory: %', TG_TABLE_NAME, SQLSTATE;
    RETURN NULL;
END $$;

-- Another text, owner, conversation or time. An embedding that stays keeps its model; where the
-- model was not stored it is known only if there has been a single one.
CREATE OR REPLACE FUNCTION {memory_update}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET gin_pending_list_limit = '64kB' AS $$
DECLARE
    known_model smallint;
BEGIN
    DELETE FROM {schema}.message_memories p WHERE p.id = NEW.id * 2 + {kind_bit}
        RETURNING p.model INTO known_model;
    INSERT INTO {schema}.message_memories (id, user_id, conversation, created_at, by_user,
        terms, chars, is_question, search_config_id, bits, model)
    SELECT r.*, {vector}.binary_quantize(m.embedding)::bit(1536), CASE WHEN m.embedding IS NOT NULL
        THEN coalesce(known_model,
            (SELECT max(e.id) FROM {schema}.embedding_models e HAVING count(*) = 1)) END
    FROM (SELECT NEW.*) m CROSS JOIN LATERAL {schema}.memory_row(
        {kind_bit}, m.id, m.user_id, m.{conversation}, m.created_at, m.role, m.content) r
    WHERE m.content <> '';
    IF NEW.content <> OLD.content AND OLD.content <> '' THEN
        DELETE FROM {schema}.forgotten_messages f
            WHERE f.tainted AND f.id = NEW.id * 2 + {kind_bit};
        -- edited_at where the writer has set it: the answers' times come from the same clock.
        INSERT INTO {schema}.forgotten_messages (id, user_id, message_at, forgotten_at)
        VALUES (NEW.id * 2 + {kind_bit}, NEW.user_id, OLD.created_at, coalesce(
            CASE WHEN NEW.edited_at IS DISTINCT FROM OLD.edited_at THEN NEW.edited_at END,
            clock_timestamp()))
        ON CONFLICT (id, tainted) DO UPDATE SET forgotten_at = excluded.forgotten_at;
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'message % of % is not in memory: %', NEW.id, TG_TABLE_NAME, SQLSTATE;
    BEGIN  -- the row may hold an earlier text: without it the message waits for the backfill
        DELETE FROM {schema}.message_memories WHERE id = NEW.id * 2 + {kind_bit};
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    RETURN NULL;
END $$;

-- An embedding was written. Only a statement that names the column says that the vector is the
-- current model's: every other update leaves the vector, and so its model, as it is.
CREATE OR REPLACE FUNCTION {memory_embedding}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET gin_pending_list_limit = '64kB' AS $$
BEGIN
    PERFORM FROM {schema}.message_memories p WHERE p.id = NEW.id * 2 + {kind_bit}
        AND p.model = (SELECT e.id FROM {schema}.embedding_models e WHERE e.current)
        AND p.bits = {vector}.binary_quantize(NEW.embedding)::bit(1536);
    IF FOUND THEN  -- storage.store_all has written many rows at once
        RETURN NULL;
    END IF;
    UPDATE {schema}.message_memories
    SET bits = {vector}.binary_quantize(NEW.embedding)::bit(1536),
        model = CASE WHEN NEW.embedding IS NOT NULL
            THEN (SELECT e.id FROM {schema}.embedding_models e WHERE e.current) END
    WHERE id = NEW.id * 2 + {kind_bit};
    IF NOT FOUND THEN
        INSERT INTO {schema}.message_memories (id, user_id, conversation, created_at, by_user,
            terms, chars, is_question, search_config_id, bits, model)
        SELECT r.*, {vector}.binary_quantize(m.embedding)::bit(1536),
            CASE WHEN m.embedding IS NOT NULL
                THEN (SELECT e.id FROM {schema}.embedding_models e WHERE e.current) END
        FROM (SELECT NEW.*) m CROSS JOIN LATERAL {schema}.memory_row(
            {kind_bit}, m.id, m.user_id, m.{conversation}, m.created_at, m.role, m.content) r
        WHERE m.content <> '';
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'message % of % is not in memory: %', NEW.id, TG_TABLE_NAME, SQLSTATE;
    BEGIN  -- the row may hold an earlier vector: without it the message waits for the backfill
        DELETE FROM {schema}.message_memories WHERE id = NEW.id * 2 + {kind_bit};
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    RETURN NULL;
END $$;

-- Deleted messages. forgotten_at is infinity: until the deletion is committed, answers still
-- receive the message. Taint marks are not deleted here: a recall that marks many rows and a
-- statement that deletes many messages could deadlock.
CREATE OR REPLACE FUNCTION {memory_delete}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM {schema}.message_memories USING gone
        WHERE message_memories.id = gone.id * 2 + {kind_bit};
    INSERT INTO {schema}.forgotten_messages (id, user_id, message_at, forgotten_at)
    SELECT gone.id * 2 + {kind_bit}, gone.user_id, gone.created_at, 'infinity' FROM gone
    WHERE gone.content <> '' ORDER BY gone.id
    ON CONFLICT (id, tainted) DO UPDATE SET forgotten_at = excluded.forgotten_at;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'deleted messages of % are still in memory: %', TG_TABLE_NAME, SQLSTATE;
    RETURN NULL;
END $$;

-- A new text: the stored embedding belongs to the old one.
CREATE OR REPLACE FUNCTION {clear_stale_embedding}() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.embedding := NULL;
    RETURN NEW;
EXCEPTION WHEN OTHERS THEN
    RETURN NEW;
END $$;

-- PostgreSQL lets everyone call a new function: with a trigger on a table of their own, anyone
-- could write to message_memories with its owner's rights.
REVOKE ALL ON FUNCTION {memory_insert}(), {memory_update}(), {memory_embedding}(),
    {memory_delete}(), {clear_stale_embedding}() FROM PUBLIC;

-- Memory rows of the messages that this transaction added (xmin): no other session can have
-- changed or deleted one. RETURN QUERY can work in parallel, INSERT ... SELECT cannot. The settings
-- say that parallel work is free; coalesce() makes the planner expect half of the rows, not one.
CREATE OR REPLACE FUNCTION {new_memories}(first bigint, last bigint) RETURNS TABLE (
    id bigint, user_id bigint, conversation bigint, created_at timestamptz, by_user boolean,
    terms bigint[], chars smallint, is_question boolean, search_config_id smallint,
    bits bit, model smallint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET parallel_setup_cost = 0 SET parallel_tuple_cost = 0
SET min_parallel_table_scan_size = 0 SET min_parallel_index_scan_size = 0 AS $$
#variable_conflict use_column
DECLARE
    own CONSTANT xid := pg_current_xact_id()::xid;
BEGIN
    RETURN QUERY
    SELECT r.*, {vector}.binary_quantize(m.embedding)::bit(1536),
        CASE WHEN m.embedding IS NOT NULL
            THEN (SELECT e.id FROM {schema}.embedding_models e WHERE e.current) END
    FROM {schema}.{table} m CROSS JOIN LATERAL {schema}.memory_row(
        {kind_bit}, m.id, m.user_id, m.{conversation}, m.created_at, m.role, m.content) r
    WHERE m.id BETWEEN first AND last AND coalesce(m.xmin = own, false) AND m.content <> '';
END $$;

-- Insert many messages of one transaction into memory at once: bulk_insert_memories.py.
CREATE OR REPLACE FUNCTION {insert_memories}(first bigint, last bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET gin_pending_list_limit = '1MB' AS $$
BEGIN
    INSERT INTO {schema}.message_memories (id, user_id, conversation, created_at, by_user,
        terms, chars, is_question, search_config_id, bits, model)
    SELECT * FROM {new_memories}(first, last)
    ON CONFLICT (id) DO NOTHING;
    PERFORM gin_clean_pending_list('{schema}.message_memories_terms');
END $$;

CREATE OR REPLACE TRIGGER memory_insert AFTER INSERT ON {table}
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION {memory_insert}();

CREATE OR REPLACE TRIGGER memory_update
    AFTER UPDATE OF user_id, {conversation}, role, content, created_at ON {table} FOR EACH ROW
    WHEN ((NEW.user_id, NEW.{conversation}, NEW.content, NEW.created_at, NEW.role)
        IS DISTINCT FROM (OLD.user_id, OLD.{conversation}, OLD.content, OLD.created_at, OLD.role))
    EXECUTE FUNCTION {memory_update}();

CREATE OR REPLACE TRIGGER memory_embedding AFTER UPDATE OF embedding ON {table}
    FOR EACH ROW EXECUTE FUNCTION {memory_embedding}();

CREATE OR REPLACE TRIGGER memory_delete AFTER DELETE ON {table}
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION {memory_delete}();

CREATE OR REPLACE TRIGGER clear_stale_embedding BEFORE UPDATE OF content ON {table}
    FOR EACH ROW WHEN (NEW.content IS DISTINCT FROM OLD.content)
    EXECUTE FUNCTION {clear_stale_embedding}();
