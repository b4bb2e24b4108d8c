-- The triggers of one message table, and the end of those of earlier states of this repository.
-- Lock: SHARE ROW EXCLUSIVE on the message table (writes wait); ACCESS EXCLUSIVE where an earlier
-- trigger is dropped. Some milliseconds.

DO $$
DECLARE
    old name;
BEGIN
    FOR old IN SELECT t.tgname FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = to_regclass('{table}') AND NOT t.tgisinternal
            AND t.tgname IN ('remember', 'learn', 'relearn', 'embed', 'forget', 'pend')
    LOOP
        EXECUTE format('DROP TRIGGER %I ON {table}', old);
    END LOOP;
END $$;

CREATE OR REPLACE TRIGGER memory_insert AFTER INSERT ON {table}
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION {memory_insert}();

CREATE OR REPLACE TRIGGER memory_update
    AFTER UPDATE OF user_id, {conversation}, role, content, created_at ON {table} FOR EACH ROW
    WHEN ((NEW.user_id, NEW.{conversation}, NEW.content, NEW.created_at, NEW.role)
        IS DISTINCT FROM (OLD.user_id, OLD.{conversation}, OLD.content, OLD.created_at, OLD.role))
    EXECUTE FUNCTION {memory_update}();

CREATE OR REPLACE TRIGGER memory_embedding AFTER UPDATE OF embedding ON {table}
    FOR EACH ROW EXECUTE FUNCTION {memory_embedding}();

CREATE OR REPLACE TRIGGER memory_delete AFTER DELETE ON {table}
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION {memory_delete}();

CREATE OR REPLACE TRIGGER clear_stale_embedding BEFORE UPDATE OF content ON {table}
    FOR EACH ROW WHEN (NEW.content IS DISTINCT FROM OLD.content)
    EXECUTE FUNCTION {clear_stale_embedding}();
