"""What ``rag_doctor`` checks, as docs/doctor.md lists it: success criteria, checklist, traps.

The criteria and the checklist have the order of the guide that docs/deployment.md replaces.

A trap is a wrong instruction of the deployment guides that circulate; its text is the right form.
"""

CRITERIA = {
    "criterion.1": "The server starts without errors: it is ready, its schema is the latest, and "
    "its last start logged none.",
    "criterion.2": "The extension pgvector is installed and active.",
    "criterion.3": "New messages are saved with their embeddings: none has waited for an hour.",
    "criterion.4": "What worked before still works: questions are answered, and the chat can do "
    "without memory, which can be removed again.",
    "criterion.5": "The servers' logs have no errors.",
    "criterion.6": "Database queries are fast enough: 95 of 100 recalls take less than 200 ms, and "
    "recall@5 is at least 0.99, measured on sampled users against an exact search.",
    "criterion.7": "The embedding service costs no more than the budget, EMBEDDING_BUDGET_USD a "
    "month.",
}

CHECKLIST = {
    "checklist.1": "A database backup was made, with pg_dump -Fc, and restored into a new "
    "database.",
    "checklist.2": "The extension pgvector is enabled, in 0.8.4 or later, in the database as on "
    "the server.",
    "checklist.3": "The environment variables are set: OPENAI_API_KEY, and another key for the "
    "language model.",
    "checklist.4": "The new code is deployed: every connected server runs this version.",
    "checklist.5": "The database schema is verified: migrations, embedding columns, memory's "
    "tables, functions and triggers, both HNSW indexes.",
    "checklist.6": "Test messages were sent and answered.",
    "checklist.7": "Embeddings are being generated: calls to the service succeed.",
    "checklist.8": "The servers' logs have no errors.",
    "checklist.9": "Optional: historical data is backfilled; no message is lost to recall.",
    "checklist.10": "Monitoring and alerts are configured.",
    "checklist.11": "Usage of the embedding service is tracked, by day, model and user.",
    "checklist.12": "The documentation has the production details.",
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
