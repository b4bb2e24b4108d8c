-- Lock: ACCESS EXCLUSIVE on this table alone. The lines are lost: print them before by manage.py
-- audit.

DROP TABLE IF EXISTS audit_log;

DROP FUNCTION IF EXISTS refuse_audit_change();
