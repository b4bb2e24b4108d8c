-- The words of a text in a time that grows with its length alone. Lock: none on any table.

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
