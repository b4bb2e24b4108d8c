-- Which conversations RETENTION_DAYS does not delete, and when it was run: chat/retention.
-- Lock: SHARE ROW EXCLUSIVE on standalone_chats and passages, for the foreign keys, for under a
-- millisecond.

CREATE TABLE IF NOT EXISTS kept_conversations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL,
    chat_id bigint UNIQUE,
    passage_id bigint UNIQUE,
    CHECK ((chat_id IS NULL) <> (passage_id IS NULL)),
    FOREIGN KEY (chat_id, user_id) REFERENCES standalone_chats (id, user_id) ON DELETE CASCADE,
    FOREIGN KEY (passage_id, user_id) REFERENCES passages (id, user_id) ON DELETE CASCADE
);

CREATE INDEX IF NOT EXISTS kept_conversations_user ON kept_conversations (user_id);

CREATE TABLE IF NOT EXISTS retention_state (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    begun_at timestamptz NOT NULL,
    swept_at timestamptz
);
