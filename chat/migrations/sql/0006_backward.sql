-- Lock: ACCESS EXCLUSIVE on this table alone.

DROP TABLE IF EXISTS user_embedding_usage;
