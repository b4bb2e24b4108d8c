-- The transaction that wrote last for each user: retrieval/replica/user_writes.py. Half of each
-- page stays free, so that a new xid changes no index. Lock: none on any table that exists.

CREATE TABLE IF NOT EXISTS user_writes (
    user_id bigint PRIMARY KEY,
    xid xid8 NOT NULL
) WITH (fillfactor = 50);
