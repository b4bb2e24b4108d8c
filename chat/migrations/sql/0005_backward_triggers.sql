-- Removes memory's triggers from one message table, whichever state of this repository made them.
-- Lock: ACCESS EXCLUSIVE on the message table where it has one, for milliseconds.

DO $$
DECLARE
    old name;
BEGIN
    FOR old IN SELECT t.tgname FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = to_regclass('{table}') AND NOT t.tgisinternal AND t.tgname IN (
            'memory_insert', 'memory_update', 'memory_embedding', 'memory_delete',
            'clear_stale_embedding', 'remember', 'learn', 'relearn', 'embed', 'forget', 'pend')
    LOOP
        EXECUTE format('DROP TRIGGER %I ON {table}', old);
    END LOOP;
END $$;
