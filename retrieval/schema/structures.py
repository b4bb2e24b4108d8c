"""What recall reads besides the messages: one narrow table for both kinds, kept by triggers. All of it is SQL.

``message_memories`` holds a row for each message with content:

- ``id``, ``conversation``: references (``sources.Source.reference``), so that one number names a row of either table;
- ``user_id``, ``created_at``, ``by_user``: copies, so that no filter has to read the wide table;
- ``terms``: 64-bit hashes of its words, of its date, and one of its whole content, each mixed with the user's id;
- ``chars``: its length in characters, at most 300; ``is_question``: whether it ends with a question mark;
- ``search_config_id``: by which text search configuration its words were made (``retrieval.recall.search_config``), NULL: by an older rule;
- ``bits``: the signs of its embedding's 1,536 numbers, NULL where it has none; ``model``: where that came from.

``forgotten_messages`` holds a row for each message that was changed or deleted, until what repeats it is known, and
(``tainted``) for each message that does: docs/decisions/0013-forgetting.md.

Why a table of its own, and its figures: docs/decisions/0009-recall-structures.md.
"""

from retrieval.message_tables import MessageTable
from retrieval.recall.search_config import DEFAULT, months_of
from retrieval.schema.bulk_structures import INSERT_MEMORIES, LONG_LIST, SHORT_LIST

MAX_CHARS = 50_000  # of a text that are looked at; a message has 32,000 at most, others' inserts may have more

TABLES = """
    CREATE TABLE IF NOT EXISTS {schema}.embedding_models (
        id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text NOT NULL UNIQUE,
        current boolean NOT NULL DEFAULT false,
        min_similarity real,  -- see retrieval/recall/min_similarity.py
        measured_at timestamptz
    );
    CREATE UNIQUE INDEX IF NOT EXISTS embedding_models_current ON {schema}.embedding_models (current) WHERE current;
    CREATE TABLE IF NOT EXISTS {schema}.search_configs (
        id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        config text NOT NULL UNIQUE,
        months text[] NOT NULL,
        current boolean NOT NULL DEFAULT false
    );
    CREATE UNIQUE INDEX IF NOT EXISTS search_configs_current ON {schema}.search_configs (current) WHERE current;
    INSERT INTO {schema}.search_configs (config, months, current) SELECT 'pg_catalog.{config}', '{months}', true
        WHERE NOT EXISTS (SELECT FROM {schema}.search_configs);
    CREATE TABLE IF NOT EXISTS {schema}.recall_measurements (
        measured_at timestamptz PRIMARY KEY DEFAULT now(),
        questions integer NOT NULL,
        users integer NOT NULL,
        recall real NOT NULL,
        p50_ms real NOT NULL,
        p95_ms real NOT NULL
    );
    CREATE TABLE IF NOT EXISTS {schema}.message_memories (
        id bigint PRIMARY KEY,
        user_id bigint NOT NULL,
        conversation bigint NOT NULL,
        created_at timestamptz NOT NULL,
        by_user boolean NOT NULL,
        terms bigint[] NOT NULL,
        chars smallint NOT NULL,
        bits bit(1536),
        model smallint,
        search_config_id smallint,
        is_question boolean
    ) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
    CREATE INDEX IF NOT EXISTS message_memories_terms ON {schema}.message_memories USING gin (terms);
    CREATE INDEX IF NOT EXISTS message_memories_user ON {schema}.message_memories (user_id, id);
    CREATE INDEX IF NOT EXISTS message_memories_bits ON {schema}.message_memories (user_id)
        INCLUDE (id, bits, model, conversation, created_at, by_user) WHERE bits IS NOT NULL;
    CREATE INDEX IF NOT EXISTS message_memories_turns ON {schema}.message_memories (conversation, created_at, id);
    CREATE TABLE IF NOT EXISTS {schema}.forgotten_messages (
        id bigint NOT NULL,
        user_id bigint NOT NULL,
        message_at timestamptz NOT NULL,
        forgotten_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        tainted boolean NOT NULL DEFAULT false,
        PRIMARY KEY (id, tainted)
    );
    CREATE INDEX IF NOT EXISTS forgotten_messages_user ON {schema}.forgotten_messages (user_id, tainted);
"""
# Scripts that put no spaces between words, as a class of PostgreSQL's regular expressions: Thai and Lao, Burmese,
# Khmer, Japanese, Chinese, Korean (spaced, but with endings on every word). Of these every two neighbouring
# characters are a term.
UNSPACED = (
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
)
# A day is said in words, "3 may 2024", so that a question that names it finds what was said then. Accents are taken
# off; a text of ASCII alone, most of them in English, skips all but the first two steps.
FUNCTIONS = r"""
    CREATE OR REPLACE FUNCTION {schema}.message_terms(owner bigint, body text, message_at timestamptz DEFAULT NULL)
    RETURNS bigint[] LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
    DECLARE
        day timestamp := message_at AT TIME ZONE 'UTC';
        pairs text[];
        config regconfig;
        months text[];
    BEGIN
        SELECT t.config, t.months INTO config, months FROM {schema}.search_configs t WHERE t.current;
        body := pg_catalog.left(body, {max_chars}) || coalesce(' ' || months[extract(month FROM day)::int]
            || ' ' || extract(day FROM day) || ' ' || extract(year FROM day), '');
        IF pg_catalog.octet_length(body) <> pg_catalog.length(body) THEN
            body := pg_catalog.normalize(pg_catalog.regexp_replace(
                pg_catalog.normalize(body, 'NFKD'), '[\u0300-\u036f]', '', 'g'), 'NFKC');
            pairs := ARRAY(SELECT DISTINCT pg_catalog.substr(run[1], at, 2)
                FROM pg_catalog.regexp_matches(body, '{unspaced}', 'g') run,
                    pg_catalog.generate_series(1, greatest(pg_catalog.length(run[1]) - 1, 1)) at);
            body := pg_catalog.regexp_replace(body, '{unspaced}', ' ', 'g');
        END IF;
        RETURN ARRAY(SELECT pg_catalog.hashtextextended(l, owner)
            FROM pg_catalog.unnest(pg_catalog.tsvector_to_array(pg_catalog.to_tsvector(config, body)) || pairs) l);
    END $$;
    CREATE OR REPLACE FUNCTION {schema}.content_term(owner bigint, body text)
    RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
        SELECT pg_catalog.hashtextextended('content ' || body, owner)
    $$;
"""
# A message ``m`` as its row in message_memories; ``model`` is SQL for where its embedding came from.
ROW = """
        m.id * 2 + {number}, m.user_id, m.{conversation} * 2 + {number}, m.created_at, m.role = 'user',
        {schema}.message_terms(m.user_id, m.content, m.created_at)
            || {schema}.content_term(m.user_id, m.content),
        least(pg_catalog.length(m.content), 300)::smallint, pg_catalog.right(pg_catalog.rtrim(m.content), 1)
            IN ('?', '？', '؟'), {vector}.binary_quantize(m.embedding)::bit(1536),
        CASE WHEN m.embedding IS NOT NULL THEN {model} END,
        (SELECT t.id FROM {schema}.search_configs t WHERE t.current)
"""
COLUMNS = "id, user_id, conversation, created_at, by_user, terms, chars, is_question, bits, model, search_config_id"
# Whoever stores an embedding has made sure that it comes from the current model (retrieval/current_model.py).
CURRENT = "(SELECT e.id FROM {schema}.embedding_models e WHERE e.current)"
# Of an embedding that was stored earlier, and whose model was not noted: known only where there has been one model.
ONLY = "(SELECT max(e.id) FROM {schema}.embedding_models e HAVING count(*) = 1)"
# SECURITY DEFINER: whoever may write a message need not be granted anything on recall's table. The search_path is
# fixed for that, and every name outside pg_catalog has its schema: old code's may lack the extension's.
# Inserts and deletes are followed a statement at a time: an EXCEPTION block takes a transaction number of its own,
# and a million of them in one import would be a burden to the whole server. An update that names the column of the
# embedding has a trigger of its own, since it alone says that the vector is the current model's: an update of
# anything else leaves the vector as it is, and so where it came from.
FOLLOW = """
    CREATE OR REPLACE FUNCTION {schema}.{table}_memory_insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp {short} AS $$
    BEGIN
        IF current_setting('verse.defer_memory_insert', true) = 'on' THEN
            RETURN NULL;  -- who set it calls insert_memories
        END IF;
        INSERT INTO {schema}.message_memories ({columns}) SELECT {row} FROM added m
        WHERE m.content <> ''  -- else an answer that is being given
        ON CONFLICT (id) DO NOTHING;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'new messages of {table} are not in memory: %', SQLSTATE;
        RETURN NULL;
    END $$;
    CREATE OR REPLACE FUNCTION {schema}.{table}_memory_update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp {short} AS $$
    DECLARE
        known smallint;  -- the model of an embedding that stays
    BEGIN
        DELETE FROM {schema}.message_memories p WHERE p.id = NEW.id * 2 + {number} RETURNING p.model INTO known;
        INSERT INTO {schema}.message_memories ({columns})
            SELECT {row_known} FROM (SELECT NEW.*) m WHERE m.content <> '';
        IF NEW.content <> OLD.content AND OLD.content <> '' THEN
            DELETE FROM {schema}.forgotten_messages f WHERE f.tainted AND f.id = NEW.id * 2 + {number};
            -- By the clock of who wrote it, if that tells: what was given the new text came later by the same clock.
            INSERT INTO {schema}.forgotten_messages (id, user_id, message_at, forgotten_at)
                VALUES (NEW.id * 2 + {number}, NEW.user_id, OLD.created_at, coalesce(
                    CASE WHEN NEW.edited_at IS DISTINCT FROM OLD.edited_at THEN NEW.edited_at END,
                    clock_timestamp())) {noted};
        END IF;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN {leave_out}
    END $$;
    CREATE OR REPLACE FUNCTION {schema}.{table}_memory_embedding() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp {short} AS $$
    BEGIN
        PERFORM FROM {schema}.message_memories p WHERE p.id = NEW.id * 2 + {number} AND p.model = {current}
            AND p.bits = {vector}.binary_quantize(NEW.embedding)::bit(1536);
        IF FOUND THEN  -- written by who wrote the embedding, for many rows at once
            RETURN NULL;
        END IF;
        UPDATE {schema}.message_memories SET bits = {vector}.binary_quantize(NEW.embedding)::bit(1536),
            model = CASE WHEN NEW.embedding IS NOT NULL THEN {current} END
        WHERE id = NEW.id * 2 + {number};
        IF NOT FOUND THEN
            INSERT INTO {schema}.message_memories ({columns})
                SELECT {row} FROM (SELECT NEW.*) m WHERE m.content <> '';
        END IF;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN {leave_out}
    END $$;
    CREATE OR REPLACE FUNCTION {schema}.{table}_memory_delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        DELETE FROM {schema}.message_memories USING gone WHERE message_memories.id = gone.id * 2 + {number};
        -- For good: until this is committed, others are given it still. Its mark goes with this note, not here: a
        -- recall that marks many and a statement that deletes many would wait for each other.
        INSERT INTO {schema}.forgotten_messages (id, user_id, message_at, forgotten_at)
            SELECT gone.id * 2 + {number}, gone.user_id, gone.created_at, 'infinity' FROM gone
            WHERE gone.content <> '' ORDER BY gone.id {noted};
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'deleted messages of {table} are still in memory: %', SQLSTATE;
        RETURN NULL;
    END $$;
    CREATE OR REPLACE FUNCTION {schema}.{table}_clear_stale_embedding() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        NEW.embedding := NULL;  -- it was the embedding of another text
        RETURN NEW;
    EXCEPTION WHEN OTHERS THEN
        RETURN NEW;
    END $$;
    CREATE OR REPLACE TRIGGER memory_insert AFTER INSERT ON {schema}.{table}
        REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION {schema}.{table}_memory_insert();
    CREATE OR REPLACE TRIGGER memory_update
        AFTER UPDATE OF user_id, {conversation}, role, content, created_at ON {schema}.{table} FOR EACH ROW
        WHEN ((NEW.user_id, NEW.{conversation}, NEW.content, NEW.created_at, NEW.role)
            IS DISTINCT FROM (OLD.user_id, OLD.{conversation}, OLD.content, OLD.created_at, OLD.role))
        EXECUTE FUNCTION {schema}.{table}_memory_update();
    CREATE OR REPLACE TRIGGER memory_embedding
        AFTER UPDATE OF embedding ON {schema}.{table} FOR EACH ROW EXECUTE FUNCTION {schema}.{table}_memory_embedding();
    CREATE OR REPLACE TRIGGER memory_delete AFTER DELETE ON {schema}.{table}
        REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION {schema}.{table}_memory_delete();
    CREATE OR REPLACE TRIGGER clear_stale_embedding
        BEFORE UPDATE OF content ON {schema}.{table} FOR EACH ROW
        WHEN (NEW.content IS DISTINCT FROM OLD.content) EXECUTE FUNCTION {schema}.{table}_clear_stale_embedding();
    -- Else anybody could put them on a table of their own, and write to recall's with its owner's rights.
    REVOKE ALL ON FUNCTION {schema}.{table}_memory_insert(), {schema}.{table}_memory_update(), {schema}.{table}_memory_embedding(),
        {schema}.{table}_memory_delete(), {schema}.{table}_clear_stale_embedding() FROM PUBLIC;
    {insert_memories}
"""
NOTED = "ON CONFLICT (id, tainted) DO UPDATE SET forgotten_at = excluded.forgotten_at"
# What repeats a message that went while no trigger noted it, NOTE_ROWS rows of a table at a time; how far it is.
NOTE_LOST = """
    WITH seen AS MATERIALIZED (
        SELECT id FROM message_memories WHERE id > %(after)s AND (id & 1) = {number} ORDER BY id LIMIT %(rows)s
    ), noted AS (
        INSERT INTO forgotten_messages (id, user_id, message_at) SELECT seen.id, m.user_id, m.created_at
        FROM seen CROSS JOIN LATERAL (SELECT * FROM {table} WHERE id = seen.id >> 1 LIMIT 1) m
        WHERE m.role = 'assistant' AND m.content <> '' AND {lost}
        ON CONFLICT DO NOTHING
    )
    SELECT max(id) FROM seen
"""
# In a trigger that has failed: the row waits for the backfill, and what is there may tell of an earlier text.
LEAVE_OUT = """
        RAISE WARNING 'message % of {table} is not in memory: %', NEW.id, SQLSTATE;
        BEGIN
            DELETE FROM {schema}.message_memories WHERE id = NEW.id * 2 + {number};
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        RETURN NULL;"""
UNFOLLOW = """
    DROP TRIGGER IF EXISTS memory_insert ON {schema}.{table};
    DROP TRIGGER IF EXISTS memory_update ON {schema}.{table};
    DROP TRIGGER IF EXISTS memory_embedding ON {schema}.{table};
    DROP TRIGGER IF EXISTS memory_delete ON {schema}.{table};
    DROP TRIGGER IF EXISTS clear_stale_embedding ON {schema}.{table};
    DROP FUNCTION IF EXISTS {schema}.{table}_memory_insert(), {schema}.{table}_memory_update(), {schema}.{table}_memory_embedding(),
        {schema}.{table}_memory_delete(), {schema}.{table}_clear_stale_embedding(), {schema}.{table}_new_memories(bigint, bigint),
        {schema}.{table}_insert_memories(bigint, bigint);
"""
# What a backfill needs beside: which rows wait, which were set aside and why, and what calls have cost, by day.
# ``model`` first in the index: rows without a vector, and rows with another model's, each in the order of ids.
BACKFILL = """
    ALTER TABLE {schema}.message_memories ADD COLUMN IF NOT EXISTS embedding_error text;
    CREATE TABLE IF NOT EXISTS {schema}.embedding_usage (
        day date NOT NULL,
        model text NOT NULL,
        outcome text NOT NULL,
        calls bigint NOT NULL,
        texts bigint NOT NULL,
        tokens bigint NOT NULL,
        cost_usd double precision NOT NULL,
        PRIMARY KEY (day, model, outcome)
    );
"""
BACKFILL_INDEXES = {
    "message_memories_pending": "message_memories (model, (id & 1), id)",
    "message_memories_failed": "message_memories (id) WHERE embedding_error IS NOT NULL",
}
# Of a database that was migrated before: what TABLES makes at once today.
CATCH_UP = """
    ALTER TABLE {schema}.message_memories ADD COLUMN IF NOT EXISTS search_config_id smallint;
    ALTER TABLE {schema}.embedding_models ADD COLUMN IF NOT EXISTS min_similarity real,
        ADD COLUMN IF NOT EXISTS measured_at timestamptz;
    ALTER INDEX {schema}.message_memories_terms RESET (fastupdate);
"""
DROP_BACKFILL = """
    DROP TABLE IF EXISTS {schema}.embedding_usage;
    ALTER TABLE {schema}.message_memories DROP COLUMN IF EXISTS embedding_error;
"""
DROP_TABLES = """
    DROP TABLE IF EXISTS {schema}.message_memories, {schema}.embedding_models, {schema}.search_configs,
        {schema}.recall_measurements, {schema}.forgotten_messages;
    DROP FUNCTION IF EXISTS {schema}.message_terms(bigint, text, timestamptz),
        {schema}.content_term(bigint, text);
"""


def tables(schema: str) -> str:
    """Statements for the tables and functions that both kinds share. No lock on a live table."""
    months = "{" + ",".join(months_of(DEFAULT)) + "}"
    made = TABLES.format(schema=schema, config=DEFAULT, months=months)
    return made + FUNCTIONS.format(schema=schema, unspaced=UNSPACED, max_chars=MAX_CHARS)


def for_source(statements: str, source: MessageTable, *, schema: str, vector: str = "") -> str:
    """The statements for one table of messages; ``vector`` is the extension's schema."""
    names = {"table": source.table, "conversation": source.conversation, "number": source.kind_bit}
    parts = {
        "{insert_memories}": INSERT_MEMORIES,
        "{short}": f"SET gin_pending_list_limit = '{SHORT_LIST}'",
        "{long_list}": LONG_LIST,
        "{columns}": COLUMNS,
        "{row}": ROW.replace("{model}", CURRENT),
        "{row_known}": ROW.replace("{model}", f"coalesce(known, {ONLY})"),
        "{current}": CURRENT,
        "{leave_out}": LEAVE_OUT,
        "{noted}": NOTED,
    }
    for part, text in parts.items():
        statements = statements.replace(part, text)
    return statements.format(schema=schema, vector=vector, **names)
