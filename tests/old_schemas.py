"""Memory's schema as earlier states of this repository made it, for tests of the upgrade.

``tests/data/old_schemas`` holds a dump of memory's own tables, functions and triggers by the last
migration of each state. Each is added to a database at today's 0004_vector_indexes.
"""

from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "old_schemas"
# Migrations that no longer exist, as each state has recorded them.
RECORDED = {
    "0004_vector_indexes": ["0003_recall"],
    "0006_model_of_vectors": ["0003_recall", "0005_backfill", "0006_model_of_vectors"],
    "0006_model_and_text": ["0003_recall", "0005_backfill", "0006_model_and_text"],
    "0008_forgetting": [
        "0003_recall",
        "0005_backfill",
        "0006_model_and_text",
        "0007_import",
        "0008_forgetting",
    ],
}
RECORD = "INSERT INTO django_migrations (app, name, applied) VALUES ('chat', %s, now())"
SEED = """
    INSERT INTO recall_texts (config, months, current) VALUES ('pg_catalog.english', ARRAY['january',
        'february', 'march', 'april', 'may', 'june', 'july', 'august', 'september', 'october',
        'november', 'december'], true)
"""
# Only 0003 of the last state: what its 0005 added is missing.
WITHOUT_BACKFILL = """
    ALTER TABLE message_memories DROP COLUMN embedding_error;
    DROP INDEX IF EXISTS message_memories_pending;
    DROP TABLE embedding_usage;
    DELETE FROM django_migrations WHERE app = 'chat' AND name > '0004_vector_indexes'
"""


def add_old_memory(run: Callable[..., object], state: str) -> None:
    """Add memory as ``state`` made it; ``run`` executes SQL, with parameters, in the database."""
    text = (FOLDER / f"{state}.sql").read_text()
    run(text)
    for name in RECORDED[state]:
        run(RECORD, name)
    if "recall_texts" in text:
        run(SEED)
