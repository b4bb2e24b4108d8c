-- What of a day's embedding_usage was bought for which user. A table of its own: code from before
-- it writes embedding_usage with ON CONFLICT (day, model, outcome), which needs just that key.
-- Lock: none on any table that exists.

CREATE TABLE IF NOT EXISTS user_embedding_usage (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id bigint NOT NULL,
    day date NOT NULL,
    model text NOT NULL,
    texts bigint NOT NULL,
    tokens bigint NOT NULL,
    cost_usd double precision NOT NULL,
    UNIQUE (user_id, day, model)
);

CREATE INDEX IF NOT EXISTS user_embedding_usage_day ON user_embedding_usage (day, model);
