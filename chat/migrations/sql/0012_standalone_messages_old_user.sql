-- Django's own index of the foreign key; standalone_messages_user begins with the same column.

CREATE INDEX CONCURRENTLY IF NOT EXISTS standalone_chat_messages_user_id_281ade96
    ON standalone_chat_messages (user_id);
