"""The words of the deployment guide: seven success criteria, twelve items of the checklist, the right form of what
circulating guides get wrong. The guide prints them, the doctor checks them, each by its id.
"""

CRITERIA = {
    "criterion.1": "No message is lost: each is embedded, waits to be, or is set aside with its reason.",
    "criterion.2": "No message waits long: the oldest pending one is younger than an hour.",
    "criterion.3": "Recall finds what an exact search finds: recall@5 is at least 0.99, measured on sampled users.",
    "criterion.4": "Recall is quick: 95 of 100 take less than 200 ms.",
    "criterion.5": "Nobody recalls what another has said.",
    "criterion.6": "Embedding stays within EMBEDDING_BUDGET_USD, month by month.",
    "criterion.7": "The way back is open: every migration of memory can be undone, and this version knows them all.",
}

CHECKLIST = {
    "checklist.1": "The extension vector is made in this database.",
    "checklist.2": "pgvector is 0.8.4 or later, in the database as on the server.",
    "checklist.3": "Both tables of messages have the nullable column embedding, of the type vector(1536).",
    "checklist.4": "Both HNSW indexes are there and valid, and no build has left a piece behind.",
    "checklist.5": "Recall's own tables, indexes and functions are there.",
    "checklist.6": "The triggers by which recall follows both tables are there and enabled.",
    "checklist.7": "Every migration is applied.",
    "checklist.8": "The configured embedding model is the one that the stored vectors came from.",
    "checklist.9": "Language model and embeddings have a key each, so that one can be taken away.",
    "checklist.10": "A backup has been made with pg_dump -Fc, and restored into a new database.",
    "checklist.11": "The pools of all workers fit into max_connections.",
    "checklist.12": "The server's role may use all that memory needs.",
}

# What each check of a trap looks at is told in retrieval/doctor/traps.py.
TRAPS = {
    "trap.1": "The size of a vector is vector_dims(embedding); a cast to float[] fails.",
    "trap.2": "A share of nothing: NULLIF(count(*), 0), or an empty table divides by zero.",
    "trap.3": "pg_stat_user_indexes has relname and indexrelname.",
    "trap.4": "A vector is sent in its binary form; a text literal is parsed each time, and holds no '...'.",
    "trap.5": "An index in the plan proves nothing: recall and time are measured.",
    "trap.6": "The extension is called vector, and does not belong in shared_preload_libraries.",
    "trap.7": "pgvector is not a trusted extension: GRANT ALL ON DATABASE does not allow to create it.",
    "trap.8": "CREATE INDEX without CONCURRENTLY holds up every write while it builds.",
    "trap.9": "A backup is restored by pg_restore into a new database; psql < backup.sql into a live one restores "
    "nothing, and sets its sequences back.",
    "trap.10": "With one key for the model and the embeddings, taking it away takes the chat down too.",
    "trap.11": "ALTER TABLE needs a lock_timeout: while it waits for one long query, everybody waits behind it.",
    "trap.12": "DROP EXTENSION vector CASCADE drops the columns of embeddings without asking.",
    "trap.13": "The type of a column of vectors is told by format_type(atttypid, atttypmod).",
    "trap.14": "Both tables, and both indexes, are to be looked at.",
    "trap.15": "What a backfill costs is told by rag_cost_estimate.",
    "trap.16": "pg_restore reads what pg_dump -Fc has written, not a plain file. A URL with its password on a "
    "command line stands in the process list: use PGPASSFILE or a service file.",
    "trap.17": "The way back is migrate chat 0001_initial, run from the version that made the last migration; "
    "the old code comes after it.",
    "trap.18": "DROP INDEX without CONCURRENTLY locks the table; drop-then-create leaves a time without an index.",
    "trap.19": "Code and extension may come in either order: migrate is the step that adds the columns.",
    "trap.20": "Whether the embedding service keeps what it is sent is told by its own page: quote it with its date.",
    "trap.21": "Azure wants vector listed in azure.extensions; what vendors offer ages: link to them, with a date.",
    "trap.22": "A lower RAG_CONTEXT_LIMIT saves on the language model, not on embeddings; pauses save nothing.",
    "trap.23": 'PostgreSQL\'s own words: extension "vector" is not available (not installed); type "vector" does not '
    'exist (not created); permission denied to create extension "vector". None of them needs a restart.',
    "trap.24": "A long job runs as a Job of Kubernetes: kubectl exec -it dies with the terminal.",
    "trap.25": "Of \\dx only the name and the version are to be compared.",
    "trap.26": '"Times used: 0" is no fault: with a user\'s filter the planner may rightly take another index.',
}
