-- Lock: ACCESS EXCLUSIVE on these two tables alone. What was imported stays, but a later export of
-- the same account then adds again what was changed or deleted.

DROP TABLE IF EXISTS imported_items;

DROP TABLE IF EXISTS memory_imports;
