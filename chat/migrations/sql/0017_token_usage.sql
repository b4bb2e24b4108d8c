-- What turns use, for limits: retrieval/token_usage.py. Lock: none on any table that exists.

CREATE TABLE IF NOT EXISTS user_token_usage (
    user_id bigint NOT NULL,
    day date NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    embedding_tokens bigint NOT NULL,
    PRIMARY KEY (user_id, day)
);

CREATE INDEX IF NOT EXISTS user_token_usage_day ON user_token_usage (day);

CREATE TABLE IF NOT EXISTS token_usage (
    day date NOT NULL,
    part smallint NOT NULL,
    tokens bigint NOT NULL,
    PRIMARY KEY (day, part)
);
