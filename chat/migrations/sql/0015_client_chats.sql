-- Which of its user's chats a client of the OpenAI API means by an id of its own:
-- chat/openai_api/client_chats.py. Lock: SHARE ROW EXCLUSIVE on standalone_chats, for the foreign
-- key, for under a millisecond.

CREATE TABLE IF NOT EXISTS client_chats (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL,
    client_id text NOT NULL,
    chat_id bigint NOT NULL,
    UNIQUE (user_id, client_id),
    FOREIGN KEY (chat_id, user_id) REFERENCES standalone_chats (id, user_id) ON DELETE CASCADE
);

CREATE INDEX IF NOT EXISTS client_chats_chat ON client_chats (chat_id);
