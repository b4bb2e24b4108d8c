CREATE FUNCTION public.chat_messages_forget() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        DELETE FROM public.message_memories WHERE id = OLD.id * 2 + 1;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'message % of chat_messages is still in memory: %', OLD.id, SQLSTATE;
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

CREATE FUNCTION public.chat_messages_remember() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    DECLARE
        reference bigint;
        code bit(1536);
        model_id smallint;
    BEGIN
        reference := NEW.id * 2 + 1;
        code := public.binary_quantize(NEW.embedding)::bit(1536);
        IF NEW.content = '' THEN  -- an answer that is being given, or one without a word
            DELETE FROM public.message_memories WHERE id = reference;
            RETURN NULL;
        END IF;
        IF code IS NOT NULL THEN
            SELECT id INTO model_id FROM public.embedding_models WHERE current;
        END IF;
        IF TG_OP = 'UPDATE' THEN
            IF (NEW.user_id, NEW.passage_id, NEW.content, NEW.created_at, NEW.role)
                IS NOT DISTINCT FROM (OLD.user_id, OLD.passage_id, OLD.content, OLD.created_at, OLD.role) THEN
                UPDATE public.message_memories SET bits = code, model = model_id WHERE id = reference;
                IF FOUND THEN
                    RETURN NULL;
                END IF;
            END IF;
        END IF;
        INSERT INTO public.message_memories VALUES (
            reference, NEW.user_id, NEW.passage_id * 2 + 1, NEW.created_at, NEW.role = 'user',
            public.recall_terms(NEW.user_id, NEW.content, NEW.created_at)
                || public.recall_content_term(NEW.user_id, NEW.content),
            public.recall_traits(NEW.content), code, model_id)
        ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id, conversation = excluded.conversation,
            created_at = excluded.created_at, by_user = excluded.by_user, terms = excluded.terms,
            traits = excluded.traits, bits = excluded.bits, model = excluded.model;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'message % of chat_messages is not in memory: %', NEW.id, SQLSTATE;
        BEGIN  -- what is there may tell of an earlier text
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
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT coalesce(pg_catalog.array_agg(pg_catalog.hashtextextended(l, owner)), '{}')
        FROM pg_catalog.unnest(pg_catalog.tsvector_to_array(pg_catalog.to_tsvector('pg_catalog.english',
            pg_catalog.left(body, 50000) || coalesce(' ' ||
                ('{january,february,march,april,may,june,july,august,september,october,november,december}'::text[])[extract(month FROM said_at AT TIME ZONE 'UTC')::int]
                || ' ' || extract(day FROM said_at AT TIME ZONE 'UTC')::text
                || ' ' || extract(year FROM said_at AT TIME ZONE 'UTC')::text, '')))) l
    $$;

CREATE FUNCTION public.recall_traits(body text) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
        SELECT (least(pg_catalog.length(body), 300)
            * CASE WHEN pg_catalog.right(pg_catalog.rtrim(body), 1) IN ('?', '？', '؟') THEN -1 ELSE 1 END)::smallint
    $$;

CREATE FUNCTION public.standalone_chat_messages_forget() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    BEGIN
        DELETE FROM public.message_memories WHERE id = OLD.id * 2 + 0;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'message % of standalone_chat_messages is still in memory: %', OLD.id, SQLSTATE;
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

CREATE FUNCTION public.standalone_chat_messages_remember() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    DECLARE
        reference bigint;
        code bit(1536);
        model_id smallint;
    BEGIN
        reference := NEW.id * 2 + 0;
        code := public.binary_quantize(NEW.embedding)::bit(1536);
        IF NEW.content = '' THEN  -- an answer that is being given, or one without a word
            DELETE FROM public.message_memories WHERE id = reference;
            RETURN NULL;
        END IF;
        IF code IS NOT NULL THEN
            SELECT id INTO model_id FROM public.embedding_models WHERE current;
        END IF;
        IF TG_OP = 'UPDATE' THEN
            IF (NEW.user_id, NEW.chat_id, NEW.content, NEW.created_at, NEW.role)
                IS NOT DISTINCT FROM (OLD.user_id, OLD.chat_id, OLD.content, OLD.created_at, OLD.role) THEN
                UPDATE public.message_memories SET bits = code, model = model_id WHERE id = reference;
                IF FOUND THEN
                    RETURN NULL;
                END IF;
            END IF;
        END IF;
        INSERT INTO public.message_memories VALUES (
            reference, NEW.user_id, NEW.chat_id * 2 + 0, NEW.created_at, NEW.role = 'user',
            public.recall_terms(NEW.user_id, NEW.content, NEW.created_at)
                || public.recall_content_term(NEW.user_id, NEW.content),
            public.recall_traits(NEW.content), code, model_id)
        ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id, conversation = excluded.conversation,
            created_at = excluded.created_at, by_user = excluded.by_user, terms = excluded.terms,
            traits = excluded.traits, bits = excluded.bits, model = excluded.model;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'message % of standalone_chat_messages is not in memory: %', NEW.id, SQLSTATE;
        BEGIN  -- what is there may tell of an earlier text
            DELETE FROM public.message_memories WHERE id = NEW.id * 2 + 0;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        RETURN NULL;
    END $$;

CREATE TABLE public.embedding_models (
    id smallint NOT NULL,
    name text NOT NULL,
    current boolean DEFAULT false NOT NULL
);

ALTER TABLE public.embedding_models ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.embedding_models_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
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
    model smallint
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.02');

ALTER TABLE ONLY public.embedding_models
    ADD CONSTRAINT embedding_models_name_key UNIQUE (name);

ALTER TABLE ONLY public.embedding_models
    ADD CONSTRAINT embedding_models_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.message_memories
    ADD CONSTRAINT message_memories_pkey PRIMARY KEY (id);

CREATE UNIQUE INDEX embedding_models_current ON public.embedding_models USING btree (current) WHERE current;

CREATE INDEX message_memories_bits ON public.message_memories USING btree (user_id) INCLUDE (id, bits, model, conversation, created_at, by_user) WHERE (bits IS NOT NULL);

CREATE INDEX message_memories_terms ON public.message_memories USING gin (terms) WITH (fastupdate=off);

CREATE INDEX message_memories_turns ON public.message_memories USING btree (conversation, created_at, id);

CREATE INDEX message_memories_user ON public.message_memories USING btree (user_id, id);

CREATE TRIGGER forget AFTER DELETE ON public.chat_messages FOR EACH ROW EXECUTE FUNCTION public.chat_messages_forget();

CREATE TRIGGER forget AFTER DELETE ON public.standalone_chat_messages FOR EACH ROW EXECUTE FUNCTION public.standalone_chat_messages_forget();

CREATE TRIGGER pend BEFORE UPDATE OF content ON public.chat_messages FOR EACH ROW WHEN ((new.content IS DISTINCT FROM old.content)) EXECUTE FUNCTION public.chat_messages_pend();

CREATE TRIGGER pend BEFORE UPDATE OF content ON public.standalone_chat_messages FOR EACH ROW WHEN ((new.content IS DISTINCT FROM old.content)) EXECUTE FUNCTION public.standalone_chat_messages_pend();

CREATE TRIGGER remember AFTER INSERT OR UPDATE OF user_id, passage_id, role, content, created_at, embedding ON public.chat_messages FOR EACH ROW EXECUTE FUNCTION public.chat_messages_remember();

CREATE TRIGGER remember AFTER INSERT OR UPDATE OF user_id, chat_id, role, content, created_at, embedding ON public.standalone_chat_messages FOR EACH ROW EXECUTE FUNCTION public.standalone_chat_messages_remember();
