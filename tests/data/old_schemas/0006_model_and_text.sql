CREATE FUNCTION public.chat_messages_embed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        UPDATE public.message_memories SET bits = public.binary_quantize(NEW.embedding)::bit(1536),
            model = CASE WHEN NEW.embedding IS NOT NULL THEN (SELECT e.id FROM public.embedding_models e WHERE e.current) END
        WHERE id = NEW.id * 2 + 1;
        IF NOT FOUND THEN
            INSERT INTO public.message_memories (id, user_id, conversation, created_at, by_user, terms, traits, bits, model, text_id)
                SELECT 
        m.id * 2 + 1, m.user_id, m.passage_id * 2 + 1, m.created_at, m.role = 'user',
        public.recall_terms(m.user_id, m.content, m.created_at)
            || public.recall_content_term(m.user_id, m.content),
        public.recall_traits(m.content), public.binary_quantize(m.embedding)::bit(1536),
        CASE WHEN m.embedding IS NOT NULL THEN (SELECT e.id FROM public.embedding_models e WHERE e.current) END,
        (SELECT t.id FROM public.recall_texts t WHERE t.current)
 FROM (SELECT NEW.*) m WHERE m.content <> '';
        END IF;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN 
        RAISE WARNING 'message % of chat_messages is not in memory: %', NEW.id, SQLSTATE;
        BEGIN
            DELETE FROM public.message_memories WHERE id = NEW.id * 2 + 1;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.chat_messages_forget() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        DELETE FROM public.message_memories USING gone WHERE message_memories.id = gone.id * 2 + 1;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'deleted messages of chat_messages are still in memory: %', SQLSTATE;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.chat_messages_learn() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        INSERT INTO public.message_memories (id, user_id, conversation, created_at, by_user, terms, traits, bits, model, text_id) SELECT 
        m.id * 2 + 1, m.user_id, m.passage_id * 2 + 1, m.created_at, m.role = 'user',
        public.recall_terms(m.user_id, m.content, m.created_at)
            || public.recall_content_term(m.user_id, m.content),
        public.recall_traits(m.content), public.binary_quantize(m.embedding)::bit(1536),
        CASE WHEN m.embedding IS NOT NULL THEN (SELECT e.id FROM public.embedding_models e WHERE e.current) END,
        (SELECT t.id FROM public.recall_texts t WHERE t.current)
 FROM added m
        WHERE m.content <> ''  -- else an answer that is being given
        ON CONFLICT (id) DO NOTHING;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'new messages of chat_messages are not in memory: %', SQLSTATE;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.chat_messages_pend() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        NEW.embedding := NULL;  -- it was the embedding of another text
        RETURN NEW;
    EXCEPTION WHEN OTHERS THEN
        RETURN NEW;
    END $$;

CREATE FUNCTION public.chat_messages_relearn() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    DECLARE
        known smallint;  -- the model of an embedding that stays
    BEGIN
        DELETE FROM public.message_memories p WHERE p.id = NEW.id * 2 + 1 RETURNING p.model INTO known;
        INSERT INTO public.message_memories (id, user_id, conversation, created_at, by_user, terms, traits, bits, model, text_id)
            SELECT 
        m.id * 2 + 1, m.user_id, m.passage_id * 2 + 1, m.created_at, m.role = 'user',
        public.recall_terms(m.user_id, m.content, m.created_at)
            || public.recall_content_term(m.user_id, m.content),
        public.recall_traits(m.content), public.binary_quantize(m.embedding)::bit(1536),
        CASE WHEN m.embedding IS NOT NULL THEN coalesce(known, (SELECT max(e.id) FROM public.embedding_models e HAVING count(*) = 1)) END,
        (SELECT t.id FROM public.recall_texts t WHERE t.current)
 FROM (SELECT NEW.*) m WHERE m.content <> '';
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN 
        RAISE WARNING 'message % of chat_messages is not in memory: %', NEW.id, SQLSTATE;
        BEGIN
            DELETE FROM public.message_memories WHERE id = NEW.id * 2 + 1;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.recall_content_term(owner bigint, body text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT pg_catalog.hashtextextended('content ' || body, owner)
    $$;

CREATE FUNCTION public.recall_terms(owner bigint, body text, said_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS bigint[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
    DECLARE
        day timestamp := said_at AT TIME ZONE 'UTC';
        pairs text[];
        config regconfig;
        months text[];
    BEGIN
        SELECT t.config, t.months INTO config, months FROM public.recall_texts t WHERE t.current;
        body := pg_catalog.left(body, 50000) || coalesce(' ' || months[extract(month FROM day)::int]
            || ' ' || extract(day FROM day) || ' ' || extract(year FROM day), '');
        IF pg_catalog.octet_length(body) <> pg_catalog.length(body) THEN
            body := pg_catalog.normalize(pg_catalog.regexp_replace(
                pg_catalog.normalize(body, 'NFKD'), '[\u0300-\u036f]', '', 'g'), 'NFKC');
            pairs := ARRAY(SELECT DISTINCT pg_catalog.substr(run[1], at, 2)
                FROM pg_catalog.regexp_matches(body, '[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+', 'g') run,
                    pg_catalog.generate_series(1, greatest(pg_catalog.length(run[1]) - 1, 1)) at);
            body := pg_catalog.regexp_replace(body, '[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+', ' ', 'g');
        END IF;
        RETURN ARRAY(SELECT pg_catalog.hashtextextended(l, owner)
            FROM pg_catalog.unnest(pg_catalog.tsvector_to_array(pg_catalog.to_tsvector(config, body)) || pairs) l);
    END $$;

CREATE FUNCTION public.recall_traits(body text) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT (least(pg_catalog.length(body), 300)
            * CASE WHEN pg_catalog.right(pg_catalog.rtrim(body), 1) IN ('?', '？', '؟') THEN -1 ELSE 1 END)::smallint
    $$;

CREATE FUNCTION public.standalone_chat_messages_embed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        UPDATE public.message_memories SET bits = public.binary_quantize(NEW.embedding)::bit(1536),
            model = CASE WHEN NEW.embedding IS NOT NULL THEN (SELECT e.id FROM public.embedding_models e WHERE e.current) END
        WHERE id = NEW.id * 2 + 0;
        IF NOT FOUND THEN
            INSERT INTO public.message_memories (id, user_id, conversation, created_at, by_user, terms, traits, bits, model, text_id)
                SELECT 
        m.id * 2 + 0, m.user_id, m.chat_id * 2 + 0, m.created_at, m.role = 'user',
        public.recall_terms(m.user_id, m.content, m.created_at)
            || public.recall_content_term(m.user_id, m.content),
        public.recall_traits(m.content), public.binary_quantize(m.embedding)::bit(1536),
        CASE WHEN m.embedding IS NOT NULL THEN (SELECT e.id FROM public.embedding_models e WHERE e.current) END,
        (SELECT t.id FROM public.recall_texts t WHERE t.current)
 FROM (SELECT NEW.*) m WHERE m.content <> '';
        END IF;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN 
        RAISE WARNING 'message % of standalone_chat_messages is not in memory: %', NEW.id, SQLSTATE;
        BEGIN
            DELETE FROM public.message_memories WHERE id = NEW.id * 2 + 0;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.standalone_chat_messages_forget() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        DELETE FROM public.message_memories USING gone WHERE message_memories.id = gone.id * 2 + 0;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'deleted messages of standalone_chat_messages are still in memory: %', SQLSTATE;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.standalone_chat_messages_learn() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        INSERT INTO public.message_memories (id, user_id, conversation, created_at, by_user, terms, traits, bits, model, text_id) SELECT 
        m.id * 2 + 0, m.user_id, m.chat_id * 2 + 0, m.created_at, m.role = 'user',
        public.recall_terms(m.user_id, m.content, m.created_at)
            || public.recall_content_term(m.user_id, m.content),
        public.recall_traits(m.content), public.binary_quantize(m.embedding)::bit(1536),
        CASE WHEN m.embedding IS NOT NULL THEN (SELECT e.id FROM public.embedding_models e WHERE e.current) END,
        (SELECT t.id FROM public.recall_texts t WHERE t.current)
 FROM added m
        WHERE m.content <> ''  -- else an answer that is being given
        ON CONFLICT (id) DO NOTHING;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'new messages of standalone_chat_messages are not in memory: %', SQLSTATE;
        RETURN NULL;
    END $$;

CREATE FUNCTION public.standalone_chat_messages_pend() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        NEW.embedding := NULL;  -- it was the embedding of another text
        RETURN NEW;
    EXCEPTION WHEN OTHERS THEN
        RETURN NEW;
    END $$;

CREATE FUNCTION public.standalone_chat_messages_relearn() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    DECLARE
        known smallint;  -- the model of an embedding that stays
    BEGIN
        DELETE FROM public.message_memories p WHERE p.id = NEW.id * 2 + 0 RETURNING p.model INTO known;
        INSERT INTO public.message_memories (id, user_id, conversation, created_at, by_user, terms, traits, bits, model, text_id)
            SELECT 
        m.id * 2 + 0, m.user_id, m.chat_id * 2 + 0, m.created_at, m.role = 'user',
        public.recall_terms(m.user_id, m.content, m.created_at)
            || public.recall_content_term(m.user_id, m.content),
        public.recall_traits(m.content), public.binary_quantize(m.embedding)::bit(1536),
        CASE WHEN m.embedding IS NOT NULL THEN coalesce(known, (SELECT max(e.id) FROM public.embedding_models e HAVING count(*) = 1)) END,
        (SELECT t.id FROM public.recall_texts t WHERE t.current)
 FROM (SELECT NEW.*) m WHERE m.content <> '';
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN 
        RAISE WARNING 'message % of standalone_chat_messages is not in memory: %', NEW.id, SQLSTATE;
        BEGIN
            DELETE FROM public.message_memories WHERE id = NEW.id * 2 + 0;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        RETURN NULL;
    END $$;

CREATE TABLE public.embedding_models (
    id smallint NOT NULL,
    name text NOT NULL,
    current boolean DEFAULT false NOT NULL,
    min_similarity real,
    measured_at timestamp with time zone
);

ALTER TABLE public.embedding_models ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.embedding_models_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.embedding_usage (
    day date NOT NULL,
    model text NOT NULL,
    outcome text NOT NULL,
    calls bigint NOT NULL,
    texts bigint NOT NULL,
    tokens bigint NOT NULL,
    cost_usd double precision NOT NULL
);

CREATE TABLE public.message_memories (
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    conversation bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    by_user boolean NOT NULL,
    terms bigint[] NOT NULL,
    traits smallint NOT NULL,
    bits bit(1536),
    model smallint,
    text_id smallint,
    embedding_error text
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.02');

CREATE TABLE public.recall_measurements (
    measured_at timestamp with time zone DEFAULT now() NOT NULL,
    questions integer NOT NULL,
    users integer NOT NULL,
    recall real NOT NULL,
    p50_ms real NOT NULL,
    p95_ms real NOT NULL
);

CREATE TABLE public.recall_texts (
    id smallint NOT NULL,
    config text NOT NULL,
    months text[] NOT NULL,
    current boolean DEFAULT false NOT NULL
);

ALTER TABLE public.recall_texts ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.recall_texts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.embedding_models
    ADD CONSTRAINT embedding_models_name_key UNIQUE (name);

ALTER TABLE ONLY public.embedding_models
    ADD CONSTRAINT embedding_models_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.embedding_usage
    ADD CONSTRAINT embedding_usage_pkey PRIMARY KEY (day, model, outcome);

ALTER TABLE ONLY public.message_memories
    ADD CONSTRAINT message_memories_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.recall_measurements
    ADD CONSTRAINT recall_measurements_pkey PRIMARY KEY (measured_at);

ALTER TABLE ONLY public.recall_texts
    ADD CONSTRAINT recall_texts_config_key UNIQUE (config);

ALTER TABLE ONLY public.recall_texts
    ADD CONSTRAINT recall_texts_pkey PRIMARY KEY (id);

CREATE UNIQUE INDEX embedding_models_current ON public.embedding_models USING btree (current) WHERE current;

CREATE INDEX message_memories_bits ON public.message_memories USING btree (user_id) INCLUDE (id, bits, model, conversation, created_at, by_user) WHERE (bits IS NOT NULL);

CREATE INDEX message_memories_failed ON public.message_memories USING btree (id) WHERE (embedding_error IS NOT NULL);

CREATE INDEX message_memories_pending ON public.message_memories USING btree (model, ((id & (1)::bigint)), id);

CREATE INDEX message_memories_terms ON public.message_memories USING gin (terms) WITH (fastupdate=off);

CREATE INDEX message_memories_turns ON public.message_memories USING btree (conversation, created_at, id);

CREATE INDEX message_memories_user ON public.message_memories USING btree (user_id, id);

CREATE UNIQUE INDEX recall_texts_current ON public.recall_texts USING btree (current) WHERE current;

CREATE TRIGGER embed AFTER UPDATE OF embedding ON public.chat_messages FOR EACH ROW EXECUTE FUNCTION public.chat_messages_embed();

CREATE TRIGGER embed AFTER UPDATE OF embedding ON public.standalone_chat_messages FOR EACH ROW EXECUTE FUNCTION public.standalone_chat_messages_embed();

CREATE TRIGGER forget AFTER DELETE ON public.chat_messages REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.chat_messages_forget();

CREATE TRIGGER forget AFTER DELETE ON public.standalone_chat_messages REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.standalone_chat_messages_forget();

CREATE TRIGGER learn AFTER INSERT ON public.chat_messages REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.chat_messages_learn();

CREATE TRIGGER learn AFTER INSERT ON public.standalone_chat_messages REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.standalone_chat_messages_learn();

CREATE TRIGGER pend BEFORE UPDATE OF content ON public.chat_messages FOR EACH ROW WHEN ((new.content IS DISTINCT FROM old.content)) EXECUTE FUNCTION public.chat_messages_pend();

CREATE TRIGGER pend BEFORE UPDATE OF content ON public.standalone_chat_messages FOR EACH ROW WHEN ((new.content IS DISTINCT FROM old.content)) EXECUTE FUNCTION public.standalone_chat_messages_pend();

CREATE TRIGGER relearn AFTER UPDATE OF user_id, passage_id, role, content, created_at ON public.chat_messages FOR EACH ROW WHEN ((((((new.user_id IS DISTINCT FROM old.user_id) OR (new.passage_id IS DISTINCT FROM old.passage_id)) OR (new.content IS DISTINCT FROM old.content)) OR (new.created_at IS DISTINCT FROM old.created_at)) OR ((new.role)::text IS DISTINCT FROM (old.role)::text))) EXECUTE FUNCTION public.chat_messages_relearn();

CREATE TRIGGER relearn AFTER UPDATE OF user_id, chat_id, role, content, created_at ON public.standalone_chat_messages FOR EACH ROW WHEN ((((((new.user_id IS DISTINCT FROM old.user_id) OR (new.chat_id IS DISTINCT FROM old.chat_id)) OR (new.content IS DISTINCT FROM old.content)) OR (new.created_at IS DISTINCT FROM old.created_at)) OR ((new.role)::text IS DISTINCT FROM (old.role)::text))) EXECUTE FUNCTION public.standalone_chat_messages_relearn();

REVOKE ALL ON FUNCTION public.chat_messages_embed() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.chat_messages_forget() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.chat_messages_learn() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.chat_messages_pend() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.chat_messages_relearn() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.standalone_chat_messages_embed() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.standalone_chat_messages_forget() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.standalone_chat_messages_learn() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.standalone_chat_messages_pend() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.standalone_chat_messages_relearn() FROM PUBLIC;
