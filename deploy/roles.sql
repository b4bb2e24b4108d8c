-- The database's owner, the roles of the servers and of the backfill, and the extension:
-- docs/roles.md. PostgreSQL's image runs this file once, when it creates the database. It may be
-- run again, for example with new passwords. Locks: none on any table.
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
