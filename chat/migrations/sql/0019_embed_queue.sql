-- Which process embeds which message, and how many tokens a minute all of them buy:
-- retrieval/backfill. Lock: none on any table that exists.

CREATE TABLE IF NOT EXISTS embedding_claims (
    id bigint PRIMARY KEY,
    holder bigint NOT NULL,
    until timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS embedding_rate (
    id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    tokens double precision NOT NULL,
    at timestamptz NOT NULL
);
