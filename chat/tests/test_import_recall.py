"""Imported messages are in memory when the import ends, as if inserted one by one."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.transfer_support import (
    NASTY,
    during_the_inserts,
    imported,
    line,
    many,
    run,
    stored,
)
from retrieval.backfill import fill_words
from retrieval.schema import bulk_insert_memories
from tests.old_schemas import RECORDED, add_old_memory
from tests.support import PATIENCE_S

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
SOURCE = StandaloneChatMessage.memory_table
MEMORIES = """
    SELECT id, user_id, conversation, created_at, by_user, terms, chars, is_question, bits, model
    FROM message_memories
"""
WORKERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'parallel worker' AND datname = current_database()
"""
INSERT = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content)
    VALUES (%s, %s, 'user', %s) RETURNING id
"""


def rows(sql: str, *values: Any) -> list[Any]:
    """The statement's rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def remembered() -> set[int]:
    """The ids of the chats' messages that are in memory."""
    return {row[0] // 2 for row in rows("SELECT id FROM message_memories WHERE id & 1 = 0")}


def insert_again(table: str) -> None:
    """Delete the messages and insert them again, without the importer."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE copies AS SELECT * FROM {table}")
        cursor.execute(f"DELETE FROM {table}")
        cursor.execute(
            f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM copies; DROP TABLE copies"
        )


def test_an_import_inserts_the_memories_that_the_triggers_would(alice: User, bob: User) -> None:
    texts = [text.rstrip() for text in NASTY] + ["Really?", "Yes", "Yes"]
    kinds = [(user, kind) for user in ("alice", "bob") for kind in ("chat", "passage")]
    imported(*(line(user=user, kind=kind, content=text) for user, kind in kinds for text in texts))
    imported_rows = sorted(rows(MEMORIES))
    for table in ("standalone_chat_messages", "chat_messages"):
        insert_again(table)
    assert len(imported_rows) == len(kinds) * len(texts)
    assert sorted(rows(MEMORIES)) == imported_rows


def test_more_ids_than_one_statement_takes_are_all_remembered(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_insert_memories, "MAX_IDS", 7)
    imported(*many(15))
    assert len(remembered()) == 15


def test_the_trigger_remembers_messages_inserted_during_an_import(alice: User, other: Any) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    with during_the_inserts(lambda: other.execute(INSERT, [alice.pk, chat.pk, "Meanwhile"])):
        imported(line())
    rows(INSERT, alice.pk, chat.pk, "Afterwards")
    assert len(remembered()) == len(stored()) == 3


def test_only_rows_with_text_of_the_same_transaction_are_remembered(
    alice: User, other: Any
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    with transaction.atomic():
        bulk_insert_memories.defer_memory_insert()
        first = rows(INSERT, alice.pk, chat.pk, "First")[0][0]
        theirs = other.execute(INSERT, [alice.pk, chat.pk, "Theirs"]).fetchone()[0]
        other.execute("DELETE FROM message_memories WHERE id = %s", [SOURCE.pack_ref(theirs)])
        rows(INSERT, alice.pk, chat.pk, "")
        last = rows(INSERT, alice.pk, chat.pk, "Last")[0][0]
        assert first < theirs < last
        assert not remembered()
        bulk_insert_memories.insert_memories(SOURCE, first, last)
    assert remembered() == {first, last}


@contextmanager
def refusing(table: str) -> Iterator[None]:
    """Inserts into this table fail as on a full disk."""
    with connection.cursor() as cursor:
        cursor.execute(f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'no room for %', NEW USING ERRCODE = '53100'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()
        """)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION refuse CASCADE")


def test_messages_that_cannot_be_remembered_are_not_imported(alice: User, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(line(user="new"))
    with refusing("message_memories"), pytest.raises(CommandError) as failed:
        run(str(tmp_path / "file"), "--create-users")
    assert (
        str(failed.value) == "the database failed (DiskFull, SQLSTATE 53100); nothing was imported"
    )
    assert not User.objects.filter(username="new").exists()
    assert not stored()


def pending_list_pages() -> int:
    """Pages of the index's pending list; it is empty after this call."""
    return int(rows("SELECT gin_clean_pending_list('message_memories_terms')")[0][0])


def test_an_import_leaves_no_long_pending_list(alice: User) -> None:
    imported(*many(2_000))
    assert pending_list_pages() == 0
    chat = StandaloneChat.objects.create(user=alice)
    for number in range(300):
        rows(
            INSERT, alice.pk, chat.pk, f"{number} the quick brown fox jumps over the lazy dog " * 5
        )
    assert 0 < pending_list_pages() <= 10  # 64 kB are 8 pages
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica; DELETE FROM message_memories")
        cursor.execute("SET session_replication_role = origin")
    pending_list_pages()
    assert sum(fill_words.Fill(SOURCE)) == 2_300
    assert pending_list_pages() <= 10


def test_terms_are_computed_in_parallel(alice: User, other: Any) -> None:
    text = "the quick brown fox jumps over the lazy dog " * 20
    seen = threading.Event()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if other.execute(WORKERS).fetchone()[0]:
                seen.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    until = time.monotonic() + PATIENCE_S
    # More than one import: other databases of the server may hold all of its parallel workers. Each
    # into a new conversation: lines that are there already are not imported again.
    for number in count():
        if seen.is_set() or time.monotonic() > until:
            break
        lines = (line(conversation=str(number), content=f"{at} {text}") for at in range(3_000))
        assert imported(*lines).messages == 3_000
    ended.set()
    watcher.join()
    assert seen.is_set()


@pytest.fixture
def old_memory() -> Iterator[Callable[[str], None]]:
    """Adds memory as an earlier state of this repository did; later restores today's schema."""
    call_command("migrate", "chat", "0004_vector_indexes", verbosity=0)
    with connection.cursor() as cursor:
        yield lambda state: add_old_memory(
            lambda sql, *names: cursor.execute(sql, names or None), state
        )
    call_command("migrate", "chat", verbosity=0)


def test_an_import_works_on_the_first_schema(alice: User) -> None:
    call_command("migrate", "chat", "0001_initial", verbosity=0)
    try:
        assert imported(*many(20)).messages == 20
    finally:
        call_command("migrate", "chat", verbosity=0)


@pytest.mark.parametrize("state", RECORDED)
def test_an_import_is_in_memory_on_older_schemas_too(
    alice: User, state: str, old_memory: Callable[[str], None]
) -> None:
    old_memory(state)
    assert imported(*many(20)).messages == len(remembered()) == 20


@pytest.mark.soak
def test_an_old_schema_remembers_row_by_row_until_migrated(
    alice: User, old_memory: Callable[[str], None]
) -> None:
    call_command("migrate", "chat", verbosity=0)
    today = schema()
    call_command("migrate", "chat", "0004_vector_indexes", verbosity=0)
    old_memory("0006_model_and_text")
    assert schema() != today
    assert imported(*many(20)).messages == len(remembered()) == 20
    call_command("migrate", "chat", verbosity=0)
    assert schema() == today


def schema() -> list[Any]:
    """Our functions with their settings, and the options of the index of terms."""
    ours = """
        SELECT proname, prosrc, proconfig FROM pg_proc
        WHERE strpos(prosrc, 'message_memories') > 0 ORDER BY 1
    """
    return rows(ours) + rows(
        "SELECT reloptions FROM pg_class WHERE relname = 'message_memories_terms'"
    )
