-- Recall's two statements as they are after all migrations: see current.sql. They are functions
-- because a session plans a function's statements once and keeps the plans, behind a pooler too: to
-- plan them takes longer than to run them. A running server's functions must never change, so their
-- names end with a version. They have their caller's rights; search_path is fixed, and every name
-- outside pg_catalog is qualified. The planner does not know how many messages a user has: it is
-- kept from reading whole tables, from caches for lookups, and from compiling and parallel work.

-- Whether the filters of a recall allow to return a message. The planner inlines this function and
-- the next: neither has SET.
CREATE OR REPLACE FUNCTION recall_shows_1(
    id bigint, created_at timestamptz, by_user boolean, since timestamptz, until timestamptz,
    said_by_user boolean, kind_bit integer
) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (since IS NULL OR created_at >= since) AND (until IS NULL OR created_at <= until)
        AND (said_by_user IS NULL OR by_user = said_by_user)
        AND (kind_bit IS NULL OR id & 1 = kind_bit)
$$;

-- A message's traits, packed into one number: distance * 8192 + characters * 16 + 8 (by the user)
-- + 4 (a question) + 2 (shown) + 1 (follows). The distance is that of its signs to the question's
-- three planes (retrieval/recall/question_planes.py); -1 without a vector by this model.
CREATE OR REPLACE FUNCTION recall_traits_1(
    chars smallint, is_question boolean, by_user boolean, bits bit, model smallint, shown boolean,
    follows boolean, plane_4 bit, plane_2 bit, plane_1 bit, current_model smallint
) RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(CASE WHEN model = current_model THEN 4 * (bits OPERATOR({vector}.<~>) plane_4)
            + 2 * (bits OPERATOR({vector}.<~>) plane_2) + (bits OPERATOR({vector}.<~>) plane_1)
        END::integer, -1) * 8192 + abs(chars) * 16 + CASE WHEN by_user THEN 8 ELSE 0 END
        + CASE WHEN coalesce(is_question, chars < 0) THEN 4 ELSE 0 END
        + CASE WHEN shown THEN 2 ELSE 0 END + CASE WHEN follows THEN 1 ELSE 0 END
$$;

-- What a recall ranks, in the order of conversations and times: refs, conversations and traits. A
-- row follows the one before it in the arrays if it is the next message of the same conversation.
-- term_numbers[i] is a term of the question (1, 2, …), term_refs[i] a message that has it.
-- A user with at most max_rows messages gets all of them, and no frequencies. Else those that are
-- found by words, and by meaning with the upper two planes, with neighbours on either side; then
-- frequencies says how many of the shown messages have each term, negative if the term is too
-- frequent to find seeds by it. total: how many messages the user has, 10,000 at most.
-- Locks nothing.
CREATE OR REPLACE FUNCTION recall_candidates_1(
    owner bigint, question text, planes bit, model_name text,
    excluded bigint[], hidden bigint[], since timestamptz, until timestamptz, said_by_user boolean,
    kind_bit integer, max_rows integer, word_seeds integer, meaning_seeds integer,
    either_side integer, max_term_messages integer, max_term_share float8,
    OUT total integer, OUT refs bigint[], OUT conversations bigint[], OUT traits integer[],
    OUT term_numbers integer[], OUT term_refs bigint[], OUT frequencies integer[]
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_memoize = off
SET random_page_cost = 1 SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    hashes CONSTANT bigint[] := {schema}.message_terms(owner, question);
    -- Conditions that hold for all rows are decided once.
    none_excluded CONSTANT boolean := cardinality(excluded) = 0 AND cardinality(hidden) = 0;
    all_shown CONSTANT boolean :=
        coalesce(since, until) IS NULL AND said_by_user IS NULL AND kind_bit IS NULL;
    numbers CONSTANT integer := length(planes) / 3;
    plane_4 CONSTANT bit varying := substring(planes FROM 1 FOR numbers);
    plane_2 CONSTANT bit varying := substring(planes FROM numbers + 1 FOR numbers);
    plane_1 CONSTANT bit varying := substring(planes FROM 2 * numbers + 1);
    current_model smallint;
    frequent bigint[];
    frequent_numbers integer[];
    more_numbers integer[];
    more_refs bigint[];
BEGIN
    IF planes IS NOT NULL THEN
        SELECT e.id INTO current_model
        FROM {schema}.embedding_models e WHERE e.current AND e.name = model_name;
    END IF;
    SELECT count(*) INTO total FROM (
        SELECT FROM {schema}.message_memories p WHERE p.user_id = owner LIMIT 10000) x;
    IF total <= max_rows THEN
        SELECT array_agg(x.id), array_agg(x.conversation), array_agg(x.traits)
        INTO refs, conversations, traits FROM (
            SELECT p.id, p.conversation, {schema}.recall_traits_1(p.chars, p.is_question,
                p.by_user, p.bits, p.model, all_shown OR {schema}.recall_shows_1(p.id,
                    p.created_at, p.by_user, since, until, said_by_user, kind_bit),
                true, plane_4, plane_2, plane_1, current_model) AS traits
            FROM {schema}.message_memories p WHERE p.user_id = owner AND (none_excluded
                OR NOT (p.id = ANY (excluded) OR p.conversation = ANY (hidden)))
            ORDER BY p.conversation, p.created_at, p.id
        ) x;
        -- The user is compared outside the inner query: inside, the planner could read all of the
        -- user's rows for each term.
        SELECT array_agg(t.number::integer), array_agg(x.id) INTO term_numbers, term_refs
        FROM unnest(hashes) WITH ORDINALITY t (hash, number) CROSS JOIN LATERAL (
            WITH p AS MATERIALIZED (
                SELECT id, user_id FROM {schema}.message_memories WHERE terms && ARRAY[t.hash]
            )
            SELECT p.id FROM p WHERE p.user_id = owner
        ) x;
        RETURN;
    END IF;
    -- For each term the user's messages that have it; one more than the limit are read.
    WITH term_message AS MATERIALIZED (
        SELECT t.number, x.id, x.conversation, x.created_at, NOT x.id = ANY (excluded)
            AND NOT x.conversation = ANY (hidden)
            AND {schema}.recall_shows_1(
                x.id, x.created_at, x.by_user, since, until, said_by_user, kind_bit) AS shown
        FROM unnest(hashes) WITH ORDINALITY t (hash, number) CROSS JOIN LATERAL (
            WITH p AS MATERIALIZED (
                SELECT id, user_id, conversation, created_at, by_user
                FROM {schema}.message_memories WHERE terms && ARRAY[t.hash]
            )
            SELECT * FROM p LIMIT max_term_messages + 1
        ) x WHERE x.user_id = owner
    ),
    frequency AS MATERIALIZED (
        SELECT number, count(*) FILTER (WHERE shown) AS messages,
            count(*) > max_term_messages AS is_cut, count(*) FILTER (WHERE shown)
                <= least(max_term_messages, greatest(30, max_term_share * total)) AS spreads
        FROM term_message GROUP BY number
    ),
    -- The rarer the terms that a message has, the better.
    by_words AS (
        SELECT m.id, m.conversation, m.created_at
        FROM term_message m JOIN frequency f USING (number) WHERE m.shown AND f.spreads
        GROUP BY m.id, m.conversation, m.created_at
        ORDER BY sum(ln(1 + total::float8 / f.messages)) DESC, m.id DESC LIMIT word_seeds
    ),
    by_meaning AS (
        -- The excluded ones are few: they are left out at the end.
        SELECT p.id, p.conversation, p.created_at FROM (
            SELECT p.id, p.conversation, p.created_at FROM {schema}.message_memories p
            WHERE current_model IS NOT NULL AND p.user_id = owner AND p.model = current_model
                AND (cardinality(hidden) = 0 OR NOT p.conversation = ANY (hidden))
                AND (all_shown OR {schema}.recall_shows_1(
                    p.id, p.created_at, p.by_user, since, until, said_by_user, kind_bit))
            ORDER BY 2 * (p.bits OPERATOR({vector}.<~>) plane_4)
                + (p.bits OPERATOR({vector}.<~>) plane_2), p.id DESC
            LIMIT meaning_seeds + cardinality(excluded)
        ) p WHERE NOT p.id = ANY (excluded) LIMIT meaning_seeds
    ),
    -- Each seed and its neighbours, of the same user whatever the seed's conversation holds.
    near AS MATERIALIZED (
        SELECT w.*, lag(w.id) OVER (PARTITION BY s.id ORDER BY w.created_at, w.id)
            IS NOT NULL AS follows
        FROM (SELECT * FROM by_words UNION SELECT * FROM by_meaning) s CROSS JOIN LATERAL (
            (SELECT p.id, p.conversation, p.created_at, {schema}.recall_traits_1(p.chars,
                p.is_question, p.by_user, p.bits, p.model, {schema}.recall_shows_1(p.id,
                    p.created_at, p.by_user, since, until, said_by_user, kind_bit),
                false, plane_4, plane_2, plane_1, current_model) AS traits
            FROM {schema}.message_memories p WHERE p.user_id = owner
                AND p.conversation = s.conversation
                AND (p.created_at, p.id) >= (s.created_at, s.id) AND NOT p.id = ANY (excluded)
            ORDER BY p.created_at, p.id LIMIT either_side + 1)
            UNION ALL
            (SELECT p.id, p.conversation, p.created_at, {schema}.recall_traits_1(p.chars,
                p.is_question, p.by_user, p.bits, p.model, {schema}.recall_shows_1(p.id,
                    p.created_at, p.by_user, since, until, said_by_user, kind_bit),
                false, plane_4, plane_2, plane_1, current_model) AS traits
            FROM {schema}.message_memories p WHERE p.user_id = owner
                AND p.conversation = s.conversation
                AND (p.created_at, p.id) < (s.created_at, s.id) AND NOT p.id = ANY (excluded)
            ORDER BY p.created_at DESC, p.id DESC LIMIT either_side)
        ) w
    ),
    hit AS (
        SELECT m.number, m.id FROM term_message m JOIN frequency f USING (number)
        WHERE NOT f.is_cut AND m.id IN (SELECT n.id FROM near n)
    ),
    term_cut AS (
        SELECT number, hashes[number] AS hash FROM frequency WHERE is_cut
    )
    SELECT rows.refs, rows.conversations, rows.traits,
        (SELECT array_agg(number::integer) FROM hit), (SELECT array_agg(id) FROM hit),
        ARRAY(SELECT coalesce(CASE WHEN f.spreads THEN f.messages ELSE -f.messages END, 0)::integer
            FROM generate_series(1, cardinality(hashes)) t (number) LEFT JOIN frequency f
            ON f.number = t.number ORDER BY t.number),
        (SELECT array_agg(hash) FROM term_cut), (SELECT array_agg(number::integer) FROM term_cut)
    INTO refs, conversations, traits, term_numbers, term_refs, frequencies, frequent,
        frequent_numbers
    FROM (
        SELECT array_agg(x.id) AS refs, array_agg(x.conversation) AS conversations,
            array_agg(x.traits + CASE WHEN x.follows THEN 1 ELSE 0 END) AS traits
        FROM (
            SELECT id, conversation, created_at, traits, bool_or(follows) AS follows FROM near
            GROUP BY id, conversation, created_at, traits ORDER BY conversation, created_at, id
        ) x
    ) rows;
    -- Of a term that was cut the rows are asked.
    IF frequent IS NOT NULL THEN
        SELECT array_agg(t.number), array_agg(r.id) INTO more_numbers, more_refs
        FROM unnest(refs) r (id) CROSS JOIN LATERAL (
            SELECT p.terms FROM {schema}.message_memories p WHERE p.id = r.id LIMIT 1
        ) p CROSS JOIN unnest(frequent, frequent_numbers) t (hash, number)
        WHERE t.hash = ANY (p.terms);
        term_numbers := term_numbers || more_numbers;
        term_refs := term_refs || more_refs;
    END IF;
END $$;

-- The message that a ref names, if it is the owner's and finished. The planner inlines this and the
-- next function. "+ 0" keeps it from indexes of users, which have thousands of rows.
CREATE OR REPLACE FUNCTION recall_message_1(ref bigint, owner bigint) RETURNS TABLE (
    conversation bigint, role text, content text, created_at timestamptz, edited_at timestamptz,
    reply_to bigint, context jsonb, embedding {vector}.vector
) LANGUAGE sql STABLE AS $$
    SELECT m.chat_id, m.role, m.content, m.created_at, m.edited_at, m.reply_to, m.context,
        m.embedding
    FROM {schema}.standalone_chat_messages m
    WHERE m.id = CASE WHEN ref & 1 = 0 THEN ref >> 1 END AND m.user_id + 0 = owner
        AND m.status IN ('complete', 'interrupted') AND m.content <> ''
    UNION ALL
    SELECT m.passage_id, m.role, m.content, m.created_at, m.edited_at, m.reply_to, m.context,
        m.embedding
    FROM {schema}.chat_messages m
    WHERE m.id = CASE WHEN ref & 1 = 1 THEN ref >> 1 END AND m.user_id + 0 = owner
        AND m.status IN ('complete', 'interrupted') AND m.content <> ''
$$;

-- The refs that taint an answer; without any it may be recalled. They are its own ref if it is
-- marked, and the refs of messages that it was given and that are missing, were edited after it was
-- written, or are marked. retrieval/forgetting.sql explains each step.
CREATE OR REPLACE FUNCTION tainted_by_1(
    ref bigint, reply_to bigint, context jsonb, written_at timestamptz
) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    SELECT f.id FROM {schema}.forgotten_messages f
    WHERE f.tainted AND f.id = ref AND f.message_at >= written_at
    UNION ALL
    SELECT given.ref
    FROM (
        SELECT reply_to << 1 | (ref & 1) WHERE reply_to IS NOT NULL
        UNION ALL
        SELECT ids.id::bigint << 1 | ids.kind_bit
        FROM jsonb_array_elements(
            CASE jsonb_typeof(context) WHEN 'array' THEN context ELSE '[]' END) entry
        CROSS JOIN LATERAL (
            SELECT CASE entry ->> 'kind' WHEN 'passage' THEN 1 ELSE 0 END AS kind_bit) kind
        CROSS JOIN LATERAL (
            SELECT entry ->> 'id' AS id, kind.kind_bit
            UNION ALL SELECT jsonb_array_elements_text(CASE jsonb_typeof(entry -> 'with')
                WHEN 'array' THEN entry -> 'with' ELSE '[]' END), kind.kind_bit
            UNION ALL SELECT jsonb_array_elements_text(CASE jsonb_typeof(entry -> 'history')
                WHEN 'array' THEN entry -> 'history' ELSE '[]' END), ref & 1
        ) ids WHERE ids.id ~ '^[0-9]{{1,18}}$'
    ) given (ref) LEFT JOIN LATERAL (
        SELECT m.created_at, m.edited_at FROM {schema}.standalone_chat_messages m
        WHERE m.id = CASE WHEN given.ref & 1 = 0 THEN given.ref >> 1 END
        UNION ALL
        SELECT m.created_at, m.edited_at FROM {schema}.chat_messages m
        WHERE m.id = CASE WHEN given.ref & 1 = 1 THEN given.ref >> 1 END
    ) source ON true
    WHERE source.created_at IS NULL OR source.edited_at > written_at OR EXISTS (
        SELECT FROM {schema}.forgotten_messages f WHERE f.tainted AND f.id = given.ref
            AND f.message_at >= coalesce(source.edited_at, source.created_at))
$$;

-- The messages of the best scores, at most max_messages, best first. The score of a ref is its base
-- and similarity_weight times what its similarity, the cosine to the question, is above
-- mean_similarity. A message whose similarity is below its min_similarity is left out; NaN: it has
-- no vector by this model, and then there is no minimum. Left out are messages that are deleted,
-- unfinished or tainted. companions: 0, or
-- another message of the same conversation, which comes with it unless it is left out itself.
-- One row with a NULL as ref: an edit or deletion of the user's has to be propagated first
-- (retrieval/forgetting.py). Each message is read once. Locks nothing.
CREATE OR REPLACE FUNCTION recall_messages_2(
    owner bigint, refs bigint[], bases float8[], min_similarities float8[], companions bigint[],
    question real[], model_name text, mean_similarity float8, similarity_weight float8,
    max_messages integer
) RETURNS TABLE (
    ref bigint, score float8, similarity float8, conversation bigint, title text,
    role text, content text, created_at timestamptz, edited_at timestamptz, companion bigint,
    companion_role text, companion_content text, companion_created_at timestamptz,
    companion_edited_at timestamptz
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_memoize = off
SET random_page_cost = 1 SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    -- NULL if the model is no longer the current one: vectors may be by another.
    asked CONSTANT {vector}.vector := (SELECT question::{vector}.vector
        FROM {schema}.embedding_models e WHERE e.current AND e.name = model_name);
BEGIN
    IF EXISTS (SELECT FROM {schema}.forgotten_messages f
            WHERE f.user_id = owner AND NOT f.tainted) THEN
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY
    WITH ranked AS MATERIALIZED (
        SELECT r.ref, r.base + similarity_weight * coalesce(s.similarity - mean_similarity, 0)
            AS score, s.similarity, m.conversation, m.role, m.content, m.created_at, m.edited_at,
            m.reply_to, m.context, r.companion
        FROM unnest(refs, bases, min_similarities, companions)
            r (ref, base, min_similarity, companion)
        CROSS JOIN LATERAL {schema}.recall_message_1(r.ref, owner) m
        CROSS JOIN LATERAL (
            SELECT CASE WHEN r.min_similarity <> 'NaN' THEN
                nullif(1 - (m.embedding OPERATOR({vector}.<=>) asked), 'NaN') END AS similarity
            OFFSET 0 -- computed once: the planner cannot inline it
        ) s
        WHERE r.min_similarity = 'NaN' OR coalesce(s.similarity, -1) >= r.min_similarity
        ORDER BY score DESC, m.role DESC, r.ref DESC
    )
    SELECT k.ref, k.score, k.similarity, k.conversation, CASE WHEN k.ref & 1 = 0
            THEN (SELECT p.title FROM {schema}.standalone_chats p WHERE p.id = k.conversation)
            ELSE (SELECT p.reference FROM {schema}.passages p WHERE p.id = k.conversation)
            END::text, k.role, k.content, k.created_at, k.edited_at,
        c.ref, c.role, c.content, c.created_at, c.edited_at
    FROM ranked k LEFT JOIN LATERAL (
        SELECT k.companion AS ref, o.*
        FROM {schema}.recall_message_1(nullif(k.companion, 0), owner) o
        WHERE k.companion & 1 = k.ref & 1 AND o.conversation = k.conversation
            AND (o.role <> 'assistant' OR NOT EXISTS (SELECT FROM {schema}.tainted_by_1(
                k.companion, o.reply_to, o.context, coalesce(o.edited_at, o.created_at))))
    ) c ON true
    WHERE k.role <> 'assistant' OR NOT EXISTS (SELECT FROM {schema}.tainted_by_1(
        k.ref, k.reply_to, k.context, coalesce(k.edited_at, k.created_at)))
    LIMIT max_messages;
END $$;

-- The rest is for servers of the version before, which call it until a rollout has ended. A later
-- migration drops it.

-- Whether an answer must not be recalled: it is marked, or was given a message that is missing, was
-- edited after it was written, or is marked; retrieval/forgetting.sql explains each step.
CREATE OR REPLACE FUNCTION is_tainted_1(
    ref bigint, role text, reply_to bigint, context jsonb, written_at timestamptz
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF role <> 'assistant' THEN
        RETURN false;
    END IF;
    RETURN EXISTS (
        SELECT FROM {schema}.forgotten_messages f
        WHERE f.tainted AND f.id = ref AND f.message_at >= written_at
    ) OR EXISTS (
        SELECT FROM (
            SELECT reply_to << 1 | (ref & 1) WHERE reply_to IS NOT NULL
            UNION ALL
            SELECT ids.id::bigint << 1 | ids.kind_bit
            FROM jsonb_array_elements(
                CASE jsonb_typeof(context) WHEN 'array' THEN context ELSE '[]' END) entry
            CROSS JOIN LATERAL (
                SELECT CASE entry ->> 'kind' WHEN 'passage' THEN 1 ELSE 0 END AS kind_bit) kind
            CROSS JOIN LATERAL (
                SELECT entry ->> 'id' AS id, kind.kind_bit
                UNION ALL SELECT jsonb_array_elements_text(CASE jsonb_typeof(entry -> 'with')
                    WHEN 'array' THEN entry -> 'with' ELSE '[]' END), kind.kind_bit
                UNION ALL SELECT jsonb_array_elements_text(CASE jsonb_typeof(entry -> 'history')
                    WHEN 'array' THEN entry -> 'history' ELSE '[]' END), ref & 1
            ) ids WHERE ids.id ~ '^[0-9]{{1,18}}$'
        ) given (ref) LEFT JOIN LATERAL (
            SELECT m.created_at, m.edited_at FROM {schema}.standalone_chat_messages m
            WHERE m.id = CASE WHEN given.ref & 1 = 0 THEN given.ref >> 1 END
            UNION ALL
            SELECT m.created_at, m.edited_at FROM {schema}.chat_messages m
            WHERE m.id = CASE WHEN given.ref & 1 = 1 THEN given.ref >> 1 END
            LIMIT 1
        ) source ON true
        WHERE source.created_at IS NULL OR source.edited_at > written_at OR EXISTS (
            SELECT FROM {schema}.forgotten_messages f WHERE f.tainted AND f.id = given.ref
                AND f.message_at >= coalesce(source.edited_at, source.created_at))
    );
END $$;

-- The messages of the best scores, at most max_messages, best first. The score of a ref is its base
-- and similarity_weight times what its similarity, the cosine to the question, is above
-- mean_similarity. Where needs_similarity, the similarity must be min_similarity at least. Left out
-- are messages that are deleted, unfinished or tainted. companions: 0, or another message of the
-- same conversation, which is returned with it unless it is left out itself.
-- One row with a NULL as ref: an edit or deletion of the user's has to be propagated first
-- (retrieval/forgetting.py). Each row is looked up by its key: "+ 0" keeps the planner from indexes
-- of users and conversations, which have thousands of rows. Locks nothing.
CREATE OR REPLACE FUNCTION recall_messages_1(
    owner bigint, refs bigint[], bases float8[], needs_similarity boolean[], companions bigint[],
    question real[], model_name text, mean_similarity float8, similarity_weight float8,
    min_similarity float8, max_messages integer
) RETURNS TABLE (
    ref bigint, score float8, similarity float8, conversation bigint, title text,
    role text, content text, created_at timestamptz, edited_at timestamptz, companion bigint,
    companion_role text, companion_content text, companion_created_at timestamptz,
    companion_edited_at timestamptz
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_memoize = off
SET random_page_cost = 1 SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
#variable_conflict use_column
DECLARE
    asked CONSTANT {vector}.vector := question::{vector}.vector;
    current_model smallint;
BEGIN
    IF EXISTS (SELECT FROM {schema}.forgotten_messages f
            WHERE f.user_id = owner AND NOT f.tainted) THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF asked IS NOT NULL THEN
        SELECT e.id INTO current_model
        FROM {schema}.embedding_models e WHERE e.current AND e.name = model_name;
    END IF;
    RETURN QUERY
    WITH ranked AS MATERIALIZED (
        SELECT r.ref, r.companion, s.similarity, p.by_user,
            r.base + similarity_weight * coalesce(s.similarity - mean_similarity, 0) AS score
        FROM unnest(refs, bases, needs_similarity, companions)
            r (ref, base, needs_similarity, companion)
        CROSS JOIN LATERAL (
            SELECT p.by_user, p.model FROM {schema}.message_memories p
            WHERE p.id = r.ref AND p.user_id + 0 = owner LIMIT 1
        ) p LEFT JOIN LATERAL (
            SELECT nullif(1 - (m.embedding OPERATOR({vector}.<=>) asked), 'NaN') AS similarity
            FROM (
                SELECT m.embedding FROM {schema}.standalone_chat_messages m
                WHERE m.id = CASE WHEN r.ref & 1 = 0 AND p.model = current_model
                    THEN r.ref >> 1 END
                UNION ALL
                SELECT m.embedding FROM {schema}.chat_messages m
                WHERE m.id = CASE WHEN r.ref & 1 = 1 AND p.model = current_model
                    THEN r.ref >> 1 END
                LIMIT 1
            ) m
        ) s ON true
        WHERE NOT r.needs_similarity OR s.similarity >= min_similarity
        ORDER BY score DESC, p.by_user DESC, r.ref DESC
    )
    SELECT x.ref, x.score, x.similarity, x.conversation, x.title, x.role, x.content, x.created_at,
        x.edited_at, x.companion, x.companion_role, x.companion_content, x.companion_created_at,
        x.companion_edited_at
    FROM (
        SELECT k.ref, k.score, k.similarity, k.by_user, m.conversation, m.title, m.role, m.content,
            m.created_at, m.edited_at, c.ref AS companion, c.role AS companion_role,
            c.content AS companion_content, c.created_at AS companion_created_at,
            c.edited_at AS companion_edited_at
        FROM ranked k CROSS JOIN LATERAL (
            SELECT m.chat_id AS conversation, p.title::text, m.role::text, m.content, m.created_at,
                m.edited_at, m.reply_to, m.context
            FROM {schema}.standalone_chat_messages m JOIN {schema}.standalone_chats p
                ON p.id = m.chat_id
            WHERE m.id = CASE WHEN k.ref & 1 = 0 THEN k.ref >> 1 END AND m.user_id + 0 = owner
                AND m.status IN ('complete', 'interrupted') AND m.content <> ''
            UNION ALL
            SELECT m.passage_id, p.reference, m.role, m.content, m.created_at, m.edited_at,
                m.reply_to, m.context
            FROM {schema}.chat_messages m JOIN {schema}.passages p ON p.id = m.passage_id
            WHERE m.id = CASE WHEN k.ref & 1 = 1 THEN k.ref >> 1 END AND m.user_id + 0 = owner
                AND m.status IN ('complete', 'interrupted') AND m.content <> ''
            LIMIT 1
        ) m LEFT JOIN LATERAL (
            SELECT k.companion AS ref, o.role, o.content, o.created_at, o.edited_at
            FROM (
                SELECT o.role::text, o.content, o.created_at, o.edited_at, o.reply_to, o.context
                FROM {schema}.standalone_chat_messages o
                WHERE o.id = CASE WHEN k.ref & 1 = 0 AND k.companion > 0 THEN k.companion >> 1 END
                    AND o.user_id + 0 = owner AND o.chat_id + 0 = m.conversation
                    AND o.status IN ('complete', 'interrupted') AND o.content <> ''
                UNION ALL
                SELECT o.role, o.content, o.created_at, o.edited_at, o.reply_to, o.context
                FROM {schema}.chat_messages o
                WHERE o.id = CASE WHEN k.ref & 1 = 1 AND k.companion > 0 THEN k.companion >> 1 END
                    AND o.user_id + 0 = owner AND o.passage_id + 0 = m.conversation
                    AND o.status IN ('complete', 'interrupted') AND o.content <> ''
                LIMIT 1
            ) o WHERE NOT {schema}.is_tainted_1(k.companion, o.role, o.reply_to, o.context,
                coalesce(o.edited_at, o.created_at))
        ) c ON true
        WHERE NOT {schema}.is_tainted_1(
            k.ref, m.role, m.reply_to, m.context, coalesce(m.edited_at, m.created_at))
        LIMIT max_messages
    ) x ORDER BY x.score DESC, x.by_user DESC, x.ref DESC;
END $$;
