-- What the catalogs say about the tables %(names)s. Locks: none that others wait for.

-- name: tables
SELECT c.relname, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner),
    pg_catalog.pg_has_role(c.relowner, 'USAGE')
FROM unnest(%(names)s::text[]) AS name
JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(pg_catalog.quote_ident(name))

-- name: columns
SELECT c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
    pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated <> ''
FROM unnest(%(names)s::text[]) AS name
JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(pg_catalog.quote_ident(name))
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
ORDER BY c.relname, a.attnum

-- name: constraints
SELECT c.relname, k.conname, k.contype::text, pg_catalog.pg_get_constraintdef(k.oid),
    k.convalidated, pg_catalog.pg_get_expr(k.conbin, k.conrelid),
    ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS key(number, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = key.number
        ORDER BY key.position),
    parent.relname,
    ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS key(number, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = key.number
        ORDER BY key.position)
FROM unnest(%(names)s::text[]) AS name
JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(pg_catalog.quote_ident(name))
JOIN pg_catalog.pg_constraint k ON k.conrelid = c.oid AND k.contype IN ('c', 'f', 'x')
LEFT JOIN pg_catalog.pg_class parent ON parent.oid = k.confrelid
ORDER BY c.relname, k.conname

-- name: indexes
SELECT c.relname, x.relname,
    substring(pg_catalog.pg_get_indexdef(i.indexrelid) FROM ' USING (.*)$'),
    i.indisunique, i.indimmediate, i.indisvalid, k.contype::text,
    ARRAY(SELECT a.attname::text
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS key(number, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = key.number
        ORDER BY key.position)
FROM unnest(%(names)s::text[]) AS name
JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(pg_catalog.quote_ident(name))
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
LEFT JOIN pg_catalog.pg_constraint k
    ON k.conindid = i.indexrelid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')
ORDER BY c.relname, x.relname

-- name: sequence
WITH key AS (
    SELECT a.attrelid, a.attnum FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = pg_catalog.to_regclass(pg_catalog.quote_ident(%(table)s))
        AND a.attname = %(column)s
), source AS (
    SELECT d.objid AS id FROM pg_catalog.pg_depend d
    JOIN key ON d.refobjid = key.attrelid AND d.refobjsubid = key.attnum
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'i'
    UNION ALL
    SELECT d.refobjid FROM pg_catalog.pg_attrdef f
    JOIN key ON f.adrelid = key.attrelid AND f.adnum = key.attnum
    JOIN pg_catalog.pg_depend d
        ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
)
SELECT n.nspname, s.relname,
    pg_catalog.pg_get_serial_sequence(pg_catalog.quote_ident(%(table)s), %(column)s) IS NOT NULL
FROM source
JOIN pg_catalog.pg_class s ON s.oid = source.id AND s.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
LIMIT 1
