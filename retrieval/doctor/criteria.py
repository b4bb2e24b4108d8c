"""What ``rag_doctor`` checks, as docs/doctor.md lists it: success criteria, checklist, traps.

A trap is a wrong instruction of the deployment guides that circulate; its text is the right form.
"""

CRITERIA = {
    "criterion.1": "No message is lost: each is embedded, pending, or set aside with its reason.",
    "criterion.2": "No message waits long: the oldest pending one is younger than an hour.",
    "criterion.3": "Recall finds what an exact search finds: recall@5 is at least 0.99, measured "
    "on sampled users.",
    "criterion.4": "Recall is fast: 95 of 100 recalls take less than 200 ms.",
    "criterion.5": "No user recalls another user's messages.",
    "criterion.6": "Embedding stays within EMBEDDING_BUDGET_USD, month by month.",
    "criterion.7": "Memory can be removed again: this version knows every applied migration, and "
    "each can be undone.",
}

CHECKLIST = {
    "checklist.1": "The extension vector is created in this database.",
    "checklist.2": "pgvector is 0.8.4 or later, in the database as on the server.",
    "checklist.3": "Both message tables have the nullable column embedding of type vector(1536).",
    "checklist.4": "Both HNSW indexes exist and are valid, and no interrupted build has left an "
    "index behind.",
    "checklist.5": "Memory's own tables and functions exist and are those of this version.",
    "checklist.6": "The triggers that keep recall up to date exist on both tables and are enabled.",
    "checklist.7": "Every migration is applied.",
    "checklist.8": "The configured embedding model is the one that made the stored vectors.",
    "checklist.9": "The language model and the embeddings have separate keys, so that one can be "
    "removed.",
    "checklist.10": "A backup has been made with pg_dump -Fc and restored into a new database.",
    "checklist.11": "The connection pools of all workers fit into max_connections.",
    "checklist.12": "The server's database role has every right that memory needs.",
}

TRAPS = {
    "trap.1": "The size of a vector is vector_dims(embedding); a cast to float[] fails.",
    "trap.2": "A percentage needs NULLIF(count(*), 0), or an empty table divides by zero.",
    "trap.3": "The columns of pg_stat_user_indexes are relname and indexrelname.",
    "trap.4": "Send a vector in its binary form; a text literal is parsed each time, and cannot "
    "hold '...'.",
    "trap.5": "An index in the plan proves nothing: measure recall and time.",
    "trap.6": "The extension is called vector, and does not belong in shared_preload_libraries.",
    "trap.7": "pgvector is not a trusted extension: GRANT ALL ON DATABASE does not allow to create "
    "it.",
    "trap.8": "CREATE INDEX without CONCURRENTLY blocks every write while it builds.",
    "trap.9": "Restore a backup with pg_restore into a new database; psql < backup.sql into a live "
    "one restores nothing, and sets its sequences back.",
    "trap.10": "With one key for the model and the embeddings, removing it stops the chat too.",
    "trap.11": "ALTER TABLE needs a lock_timeout: while it waits for one long query, all other "
    "queries wait behind it.",
    "trap.12": "DROP EXTENSION vector CASCADE drops the embedding columns without asking.",
    "trap.13": "format_type(atttypid, atttypmod) gives the type of a vector column; "
    "information_schema does not.",
    "trap.14": "Check both tables and both indexes.",
    "trap.15": "rag_cost_estimate computes what a backfill costs.",
    "trap.16": "pg_restore reads what pg_dump -Fc has written, not a plain file. A URL with its "
    "password on a command line is visible in the process list: use PGPASSFILE or a service file.",
    "trap.17": "To remove memory, run migrate chat 0001_initial from the version that applied the "
    "last migration; deploy the old code after it.",
    "trap.18": "DROP INDEX without CONCURRENTLY locks the table; dropping before creating leaves a "
    "time without an index.",
    "trap.19": "Code and extension may come in either order: migrate is the step that adds the "
    "columns.",
    "trap.20": "Only the embedding service's own page says whether it keeps what it is sent: quote "
    "it with its date.",
    "trap.21": "Azure wants vector listed in azure.extensions; what vendors offer changes: link to "
    "their pages, with a date.",
    "trap.22": "A lower RAG_CONTEXT_LIMIT saves on the language model, not on embeddings; pauses "
    "save nothing.",
    "trap.23": 'PostgreSQL\'s error texts are: extension "vector" is not available (not '
    'installed); type "vector" does not exist (not created); permission denied to create '
    'extension "vector". None of them needs a restart.',
    "trap.24": "Run a long job as a Kubernetes Job: kubectl exec -it dies with the terminal.",
    "trap.25": "Of the output of \\dx, compare only name and version.",
    "trap.26": '"Times used: 0" is not a fault: with a filter by user the planner may rightly use '
    "another index.",
}
