-- Lock: ACCESS EXCLUSIVE on these tables, and on standalone_chats and passages for an instant.

DROP TABLE IF EXISTS kept_conversations;

DROP TABLE IF EXISTS retention_state;
