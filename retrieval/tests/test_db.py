"""Memory's statements when the extension or a table changes while the server runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import InternalError, connection, transaction

from retrieval import current_model, db, runtime, storage
from retrieval.models import message_tables
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
VECTOR = np.ones(1536, dtype=np.float32)
RECREATE_EXTENSION = """
    DROP EXTENSION vector CASCADE;
    CREATE EXTENSION vector;
    ALTER TABLE standalone_chat_messages ADD embedding vector(1536);
    ALTER TABLE chat_messages ADD embedding vector(1536)
"""


@contextmanager
def changed(statements: str) -> Iterator[None]:
    """The database after these statements; they are rolled back at the end."""
    runtime.reset()
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(statements)
            yield
            transaction.set_rollback(True)
    finally:
        runtime.reset()


def recall_by_meaning(user: User) -> list[int]:
    """Refs of what is recalled."""
    ranked = recall("Bread?", Scope(user.pk), embedding=VECTOR, model="a model")
    return [message.ref for message in ranked]


def test_a_recreated_extension_costs_one_failed_statement(alice: User) -> None:
    recall_by_meaning(alice)  # this connection knows the type by its first oid
    with changed("SELECT"):
        recall_by_meaning(alice)
        with connection.cursor() as cursor:
            cursor.execute(RECREATE_EXTENSION)
        assert recall_by_meaning(alice) == []
        rows = [(1, "A text.", VECTOR)]
        with pytest.raises(InternalError):
            storage.store_all(message_tables()[0], rows, model="a model")
        assert storage.store_all(message_tables()[0], rows, model="a model") == 0


def test_statements_follow_the_extension_to_another_schema(alice: User) -> None:
    recall_by_meaning(alice)
    with changed("CREATE SCHEMA other; ALTER EXTENSION vector SET SCHEMA other"):
        assert recall_by_meaning(alice) == []
    assert recall_by_meaning(alice) == []


def test_a_missing_table_is_no_memory_and_fails_nothing_around_it() -> None:
    with changed("ALTER TABLE embedding_models RENAME TO other_models"):
        with pytest.raises(db.NoMemory):
            current_model.current_model()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)


def test_a_value_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    value: runtime.Expiring[str] = runtime.Expiring()
    assert value.get() is None
    assert value.set("known", seconds=5) == value.get() == "known"
    now += 5
    assert value.get() is None
