-- Memory's tables and shared functions as they are after all migrations. rag_doctor compares a
-- database with this file and prints its statements as repairs; a test proves that the migrations
-- make the same. Change it together with a new migration. An empty line ends a statement;
-- {schema}, {vector}: the schema of the tables and of the extension; {concurrently}: how indexes
-- are built.

CREATE TABLE IF NOT EXISTS embedding_models (
    id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    current boolean NOT NULL DEFAULT false,
    min_similarity real,  -- retrieval/recall/min_similarity.py
    measured_at timestamptz
);

CREATE UNIQUE INDEX {concurrently}IF NOT EXISTS embedding_models_current
    ON embedding_models (current) WHERE current;

CREATE TABLE IF NOT EXISTS search_configs (
    id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    config text NOT NULL UNIQUE,
    months text[] NOT NULL,
    current boolean NOT NULL DEFAULT false
);

CREATE UNIQUE INDEX {concurrently}IF NOT EXISTS search_configs_current
    ON search_configs (current) WHERE current;

INSERT INTO search_configs (config, months, current)
SELECT 'pg_catalog.english', ARRAY['january', 'february', 'march', 'april', 'may', 'june', 'july',
    'august', 'september', 'october', 'november', 'december'], true
WHERE NOT EXISTS (SELECT FROM search_configs);

CREATE TABLE IF NOT EXISTS recall_measurements (
    measured_at timestamptz PRIMARY KEY DEFAULT now(),
    questions integer NOT NULL,
    users integer NOT NULL,
    recall real NOT NULL,
    p50_ms real NOT NULL,
    p95_ms real NOT NULL
);

-- What API calls have cost, by day.
CREATE TABLE IF NOT EXISTS embedding_usage (
    day date NOT NULL,
    model text NOT NULL,
    outcome text NOT NULL,
    calls bigint NOT NULL,
    texts bigint NOT NULL,
    tokens bigint NOT NULL,
    cost_usd double precision NOT NULL,
    PRIMARY KEY (day, model, outcome)
);

-- What of that was bought for which user.
CREATE TABLE IF NOT EXISTS user_embedding_usage (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL,
    day date NOT NULL,
    model text NOT NULL,
    texts bigint NOT NULL,
    tokens bigint NOT NULL,
    cost_usd double precision NOT NULL,
    UNIQUE (user_id, day, model)
);

CREATE INDEX {concurrently}IF NOT EXISTS user_embedding_usage_day
    ON user_embedding_usage (day, model);

-- How many errors, and starts, the servers logged. No text of a line: retrieval/log_counts.py.
CREATE TABLE IF NOT EXISTS log_counts (
    minute timestamptz NOT NULL,
    kind text NOT NULL,
    at_start boolean NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (minute, kind, at_start)
);

-- Who saw or changed what, one line for each act: retrieval/audit.py.
CREATE TABLE IF NOT EXISTS audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    who text NOT NULL,
    what text NOT NULL,
    whose text NOT NULL DEFAULT ''
);

CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log keeps every line: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE OR REPLACE TRIGGER audit_log_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

-- What users import, and which messages and conversations came with each: chat/models/imports.py.
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

CREATE UNIQUE INDEX {concurrently}IF NOT EXISTS memory_imports_running
    ON memory_imports (user_id) WHERE status = 'running';

CREATE INDEX {concurrently}IF NOT EXISTS memory_imports_user ON memory_imports (user_id, id);

CREATE TABLE IF NOT EXISTS imported_items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    import_id bigint NOT NULL REFERENCES memory_imports ON DELETE CASCADE,
    user_id bigint NOT NULL,
    ref bigint NOT NULL,
    is_conversation boolean NOT NULL,
    key bigint
);

CREATE INDEX {concurrently}IF NOT EXISTS imported_items_import ON imported_items (import_id);

CREATE UNIQUE INDEX {concurrently}IF NOT EXISTS imported_items_key ON imported_items (user_id, key);

-- Which of its user's chats a client of the OpenAI API means by an id of its own.
CREATE TABLE IF NOT EXISTS client_chats (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL,
    client_id text NOT NULL,
    chat_id bigint NOT NULL,
    UNIQUE (user_id, client_id),
    FOREIGN KEY (chat_id, user_id) REFERENCES standalone_chats (id, user_id) ON DELETE CASCADE
);

CREATE INDEX {concurrently}IF NOT EXISTS client_chats_chat ON client_chats (chat_id);

-- A user's messages by a digest of their text: chat/openai_api/outlines.py. A vertical tab is
-- \x0B: PostgreSQL 16 reads E'\v' as the letter v.
CREATE INDEX {concurrently}IF NOT EXISTS standalone_messages_text ON standalone_chat_messages (
    user_id,
    substr(sha256(decode(replace(btrim(replace(replace(content, E'\r\n', E'\n'), E'\r', E'\n'),
        E' \t\n\x0B\f'), E'\\', E'\\\\'), 'escape')), 1, 16),
    id
) WHERE content <> '';

-- One narrow row for each message with content; retrieval/models.py explains the columns.
CREATE TABLE IF NOT EXISTS message_memories (
    id bigint PRIMARY KEY,
    user_id bigint NOT NULL,
    conversation bigint NOT NULL,
    created_at timestamptz NOT NULL,
    by_user boolean NOT NULL,
    terms bigint[] NOT NULL,
    chars smallint NOT NULL,
    is_question boolean,
    bits bit(1536),
    model smallint,
    search_config_id smallint,
    embedding_error text
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);

CREATE INDEX {concurrently}IF NOT EXISTS message_memories_terms
    ON message_memories USING gin (terms);

CREATE INDEX {concurrently}IF NOT EXISTS message_memories_user ON message_memories (user_id, id);

-- A user's messages in the order of their conversations and times, with all that recall reads.
CREATE INDEX {concurrently}IF NOT EXISTS message_memories_recall ON message_memories
    (user_id, conversation, created_at, id) INCLUDE (bits, model, by_user, chars, is_question);

-- For servers from before chat 0008_recall, while a rollout runs; a later migration drops it.
CREATE INDEX {concurrently}IF NOT EXISTS message_memories_turns ON message_memories
    (conversation, created_at, id);

-- Rows without a vector and rows of another model, each in the order of ids: backfill_embeddings.
CREATE INDEX {concurrently}IF NOT EXISTS message_memories_pending
    ON message_memories (model, (id & 1), id);

CREATE INDEX {concurrently}IF NOT EXISTS message_memories_failed ON message_memories (id)
    WHERE embedding_error IS NOT NULL;

-- Of message tables: the admin's lists of a user, of a range of time, and of answers that did not
-- come to their end.
CREATE INDEX {concurrently}IF NOT EXISTS chat_messages_user ON chat_messages (user_id, id);

CREATE INDEX {concurrently}IF NOT EXISTS chat_messages_created
    ON chat_messages (created_at, id);

CREATE INDEX {concurrently}IF NOT EXISTS chat_messages_ended ON chat_messages (status, id)
    WHERE status IN ('failed', 'interrupted');

CREATE INDEX {concurrently}IF NOT EXISTS standalone_messages_user
    ON standalone_chat_messages (user_id, id);

CREATE INDEX {concurrently}IF NOT EXISTS standalone_messages_created
    ON standalone_chat_messages (created_at, id);

CREATE INDEX {concurrently}IF NOT EXISTS standalone_messages_ended
    ON standalone_chat_messages (status, id)
    WHERE status IN ('failed', 'interrupted');

-- Django's own indexes of the same column.
DROP INDEX IF EXISTS chat_messages_user_id_cf3eadd8;

DROP INDEX IF EXISTS standalone_chat_messages_user_id_281ade96;

-- The last run of rag_doctor from the admin's page. One row.
CREATE TABLE IF NOT EXISTS doctor_run (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    at timestamptz NOT NULL,
    who text NOT NULL,
    findings jsonb NOT NULL
);

-- Who is given memories: retrieval/rollout/state.py. One row, none before the first rag_rollout.
CREATE TABLE IF NOT EXISTS rag_rollout (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    state text NOT NULL,
    fuse_ms integer,
    fuse_errors integer,
    set_at timestamptz NOT NULL,
    blown_at timestamptz,
    blown_reason text
);

-- How many recalls of turns took how long: retrieval/rollout/recall_times.py
CREATE TABLE IF NOT EXISTS recall_times (
    slot timestamptz NOT NULL,
    bucket smallint NOT NULL,
    count bigint NOT NULL,
    errors bigint NOT NULL,
    added_tokens bigint NOT NULL,
    PRIMARY KEY (slot, bucket)
);

-- The tokens of turns, by user and day, and of all users by day: retrieval/token_usage.py
CREATE TABLE IF NOT EXISTS user_token_usage (
    user_id bigint NOT NULL,
    day date NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    embedding_tokens bigint NOT NULL,
    PRIMARY KEY (user_id, day)
);

CREATE INDEX {concurrently}IF NOT EXISTS user_token_usage_day ON user_token_usage (day);

CREATE TABLE IF NOT EXISTS token_usage (
    day date NOT NULL,
    part smallint NOT NULL,
    tokens bigint NOT NULL,
    PRIMARY KEY (day, part)
);

-- Which conversations RETENTION_DAYS does not delete, and when it was run: chat/retention.
CREATE TABLE IF NOT EXISTS kept_conversations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL,
    chat_id bigint UNIQUE,
    passage_id bigint UNIQUE,
    CHECK ((chat_id IS NULL) <> (passage_id IS NULL)),
    FOREIGN KEY (chat_id, user_id) REFERENCES standalone_chats (id, user_id) ON DELETE CASCADE,
    FOREIGN KEY (passage_id, user_id) REFERENCES passages (id, user_id) ON DELETE CASCADE
);

CREATE INDEX {concurrently}IF NOT EXISTS kept_conversations_user ON kept_conversations (user_id);

CREATE TABLE IF NOT EXISTS retention_state (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    begun_at timestamptz NOT NULL,
    swept_at timestamptz
);

-- Which process embeds which message at the moment: retrieval/backfill/claims.py.
CREATE TABLE IF NOT EXISTS embedding_claims (
    id bigint PRIMARY KEY,
    holder bigint NOT NULL,
    until timestamptz NOT NULL
);

-- What all workers and backfills may still buy: retrieval/backfill/token_bucket.py. One row.
CREATE TABLE IF NOT EXISTS embedding_rate (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    tokens double precision NOT NULL,
    at timestamptz NOT NULL
);

-- The transaction that wrote last for each user: retrieval/replica/user_writes.py.
CREATE TABLE IF NOT EXISTS user_writes (
    user_id bigint PRIMARY KEY,
    xid xid8 NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE IF NOT EXISTS forgotten_messages (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    message_at timestamptz NOT NULL,
    forgotten_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tainted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (id, tainted)
);

CREATE INDEX {concurrently}IF NOT EXISTS forgotten_messages_user
    ON forgotten_messages (user_id, tainted);

-- 64-bit hashes of a text's words, mixed with the user's id so that users share none.
-- The date is part of the words ("3 may 2024"): a question that names a day finds its messages.
-- Accents are removed. Scripts without spaces (Thai, Lao, Burmese, Khmer, Japanese, Chinese) and
-- Korean, which has endings on every word, give every two neighbouring characters as a term.
-- ASCII text skips both steps. The time grows with the length alone: at most 50,000 characters are
-- read (a message has 32,000), and of scripts without spaces the first and the last 3,000, about as
-- much as an embedding model reads. PostgreSQL's parser reads long chains such as a_a_a_…, a@a@…,
-- a-1-b-2-… and ~/~/… again from each of their parts: they are separated first.
CREATE OR REPLACE FUNCTION message_terms(
    owner_id bigint, body text, sent_at timestamptz DEFAULT NULL
) RETURNS bigint[] LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    unspaced CONSTANT text := '\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff'
        '\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff';
    chain CONSTANT text := '(?:\S*?(?:[_@~-]|/\.)){{11}}|(?:\S*?@){{4}}';
    day CONSTANT timestamp := sent_at AT TIME ZONE 'UTC';
    runs text;  -- what is in scripts without spaces, with a space for all that lies between
    letters text[];
    config regconfig;
    months text[];
BEGIN
    SELECT c.config, c.months INTO config, months
        FROM {schema}.search_configs c WHERE c.current;
    body := coalesce(months[extract(month FROM day)::int] || ' ' || extract(day FROM day) || ' '
        || extract(year FROM day) || ' ', '') || pg_catalog.left(body, 50000);
    IF pg_catalog.octet_length(body) <> pg_catalog.length(body) THEN
        body := pg_catalog.normalize(pg_catalog.regexp_replace(pg_catalog.left(
            pg_catalog.normalize(body, 'NFKD'), 50000), '[\u0300-\u036f]+', '', 'g'), 'NFKC');
        runs := pg_catalog.regexp_replace(body, '[^' || unspaced || ']+', ' ', 'g');
        IF pg_catalog.length(runs) > 6000 THEN
            runs := pg_catalog.left(runs, 3000) || ' ' || pg_catalog.right(runs, 3000);
        END IF;
        IF runs <> ' ' THEN
            letters := pg_catalog.string_to_array(' ' || runs || ' ', NULL);
            body := pg_catalog.regexp_replace(body, '[' || unspaced || ']+', ' ', 'g');
        END IF;
    END IF;
    IF body ~ chain THEN
        SELECT pg_catalog.string_agg(CASE WHEN part ~ chain
            THEN pg_catalog.regexp_replace(part, '[_@~-]|/(?=\.)|\.(?=/)', ' ', 'g') ELSE part
            END, ' ') INTO body FROM pg_catalog.regexp_split_to_table(body, '\s+') part;
    END IF;
    RETURN ARRAY(
        SELECT DISTINCT pg_catalog.hashtextextended(word, owner_id) AS term FROM (
            SELECT pg_catalog.unnest(pg_catalog.tsvector_to_array(
                pg_catalog.to_tsvector(config, body)))
            UNION ALL
            -- A character and the next; one without neighbours alone.
            SELECT CASE next WHEN ' ' THEN letter ELSE letter || next END
            FROM ROWS FROM (pg_catalog.unnest(letters), pg_catalog.unnest(letters[2:]),
                pg_catalog.unnest(pg_catalog.array_prepend(' ', letters))) x (letter, next, before)
            WHERE letter <> ' ' AND (next <> ' ' OR before = ' ')
        ) words (word) ORDER BY term
    );
END $$;

-- A hash of the whole text, stored among its terms: finds equal texts of the same user.
CREATE OR REPLACE FUNCTION content_term(owner_id bigint, body text)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.hashtextextended('content ' || body, owner_id)
$$;

-- What message_memories holds of a message, but for its vector. kind_bit tells the two message
-- tables apart: retrieval/message_tables.py. The planner inlines it: it has no SET, and callers
-- pass no subquery.
CREATE OR REPLACE FUNCTION memory_row(
    kind_bit integer, message_id bigint, owner_id bigint, parent_id bigint, sent_at timestamptz,
    sender text, body text
) RETURNS TABLE (
    id bigint, user_id bigint, conversation bigint, created_at timestamptz, by_user boolean,
    terms bigint[], chars smallint, is_question boolean, search_config_id smallint
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT message_id * 2 + kind_bit, owner_id, parent_id * 2 + kind_bit, sent_at, sender = 'user',
        {schema}.message_terms(owner_id, body, sent_at) || {schema}.content_term(owner_id, body),
        least(pg_catalog.length(body), 300)::smallint,
        pg_catalog.right(pg_catalog.rtrim(body), 1) IN ('?', '？', '؟'),
        (SELECT c.id FROM {schema}.search_configs c WHERE c.current)
$$;
