-- The database's owner, the roles of the servers and of the backfill, and the extension:
-- docs/roles.md. PostgreSQL's image runs this file once, when it creates the database. It may be
-- run again, with new passwords or on a database that a superuser has migrated. Locks there: ACCESS
-- EXCLUSIVE on one table after the other, for an instant; at a lock timeout, run the file again.
\getenv owner_password OWNER_PASSWORD
\getenv web_password WEB_PASSWORD
\getenv backfill_password BACKFILL_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['verse_owner', 'verse_web', 'verse_backfill']) name
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name)
\gexec

-- These statements are not logged.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';

ALTER ROLE verse_owner PASSWORD :'owner_password';
ALTER ROLE verse_web PASSWORD :'web_password';
ALTER ROLE verse_backfill PASSWORD :'backfill_password';
ALTER DATABASE :"DBNAME" OWNER TO verse_owner;
CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;

-- Not REASSIGN OWNED: PostgreSQL refuses it for the superuser that created the server.
SET lock_timeout = '300ms';
SELECT format('ALTER %s public.%I OWNER TO verse_owner',
    CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.relname)
FROM pg_catalog.pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
    AND c.relowner <> 'verse_owner'::regrole
    -- Not those of the extension, nor sequences of columns, which go with their tables.
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'a', 'i'))
\gexec
SELECT format('ALTER ROUTINE %s OWNER TO verse_owner', p.oid::regprocedure)
FROM pg_catalog.pg_proc p
WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> 'verse_owner'::regrole
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
\gexec
