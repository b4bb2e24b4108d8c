-- The words of a text as 0005_memory makes them. Lock: none on any table.

-- 64-bit hashes of a text's words, mixed with the user's id so that users share none.
-- The date is part of the words ("3 may 2024"): a question that names a day finds its messages.
-- Accents are removed. Scripts without spaces (Thai, Lao, Burmese, Khmer, Japanese, Chinese) and
-- Korean, which has endings on every word, give every two neighbouring characters as a term.
-- ASCII text skips both steps. At most 50,000 characters are read; a message has 32,000.
CREATE OR REPLACE FUNCTION message_terms(
    owner_id bigint, body text, sent_at timestamptz DEFAULT NULL
) RETURNS bigint[] LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    unspaced CONSTANT text := '[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff'
        '\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+';
    day CONSTANT timestamp := sent_at AT TIME ZONE 'UTC';
    pairs text[];
    config regconfig;
    months text[];
BEGIN
    SELECT c.config, c.months INTO config, months
        FROM {schema}.search_configs c WHERE c.current;
    body := pg_catalog.left(body, 50000) || coalesce(' ' || months[extract(month FROM day)::int]
        || ' ' || extract(day FROM day) || ' ' || extract(year FROM day), '');
    IF pg_catalog.octet_length(body) <> pg_catalog.length(body) THEN
        body := pg_catalog.normalize(pg_catalog.regexp_replace(
            pg_catalog.normalize(body, 'NFKD'), '[\u0300-\u036f]', '', 'g'), 'NFKC');
        pairs := ARRAY(SELECT DISTINCT pg_catalog.substr(run[1], at, 2)
            FROM pg_catalog.regexp_matches(body, unspaced, 'g') run,
                pg_catalog.generate_series(1, greatest(pg_catalog.length(run[1]) - 1, 1)) at);
        body := pg_catalog.regexp_replace(body, unspaced, ' ', 'g');
    END IF;
    RETURN ARRAY(SELECT pg_catalog.hashtextextended(word, owner_id) FROM pg_catalog.unnest(
        pg_catalog.tsvector_to_array(pg_catalog.to_tsvector(config, body)) || pairs) word);
END $$;
