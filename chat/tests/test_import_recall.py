"""What is imported is in recall's table when the import ends, as if each message had been said by itself."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from retrieval.schema import bulk
from tests.old_schemas import RECORDED, add_old_memory
from tests.support import PATIENCE_S

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
SOURCE = StandaloneChatMessage.memory_table
MEMORIES = "SELECT id, user_id, conversation, created_at, by_user, terms, chars, is_question, bits, model FROM message_memories"
WORKERS = """
    SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker' AND datname = current_database()
"""
INSERT = "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content) VALUES (%s, %s, 'user', %s) RETURNING id"


def rows(sql: str, *values: Any) -> list[Any]:
    """What the database answers."""
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def known() -> set[int]:
    """The ids of the chats' messages that recall knows."""
    return {one[0] // 2 for one in rows("SELECT id FROM message_memories WHERE id & 1 = 0")}


def say_again(table: str) -> None:
    """Delete the messages and insert them as they were, by themselves."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE said AS SELECT * FROM {table}")
        cursor.execute(f"DELETE FROM {table}")
        cursor.execute(
            f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM said; DROP TABLE said"
        )


def test_an_import_teaches_recall_what_the_triggers_would_have_taught_it(
    alice: User, bob: User
) -> None:
    texts = [text.rstrip() for text in NASTY] + ["Really?", "Yes", "Yes"]
    kinds = [(user, kind) for user in ("alice", "bob") for kind in ("chat", "passage")]
    imported(*(line(user=user, kind=kind, content=text) for user, kind in kinds for text in texts))
    learnt = sorted(rows(MEMORIES))
    for table in ("standalone_chat_messages", "chat_messages"):
        say_again(table)
    assert len(learnt) == len(kinds) * len(texts)
    assert sorted(rows(MEMORIES)) == learnt


def test_more_ids_than_a_statement_takes_are_all_learnt(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MAX_IDS", 7)
    imported(*many(15))
    assert len(known()) == 15


def test_what_others_say_during_an_import_is_learnt_by_the_trigger(alice: User, other: Any) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    with during_the_inserts(lambda: other.execute(INSERT, [alice.pk, chat.pk, "Meanwhile"])):
        imported(line())
    rows(INSERT, alice.pk, chat.pk, "Afterwards")
    assert len(known()) == len(stored()) == 3


def test_only_rows_of_the_own_transaction_are_learnt_and_only_if_they_hold_text(
    alice: User, other: Any
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    with transaction.atomic():
        bulk.defer_memory_insert()
        first = rows(INSERT, alice.pk, chat.pk, "First")[0][0]
        theirs = other.execute(INSERT, [alice.pk, chat.pk, "Theirs"]).fetchone()[0]
        other.execute("DELETE FROM message_memories WHERE id = %s", [SOURCE.pack_ref(theirs)])
        rows(INSERT, alice.pk, chat.pk, "")
        last = rows(INSERT, alice.pk, chat.pk, "Last")[0][0]
        assert first < theirs < last
        assert not known()
        bulk.insert_memories(SOURCE, first, last)
    assert known() == {first, last}


@contextmanager
def refusing(table: str) -> Iterator[None]:
    """The database has no room in this table."""
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


def test_what_cannot_be_learnt_is_not_imported(alice: User, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(line(user="new"))
    with refusing("message_memories"), pytest.raises(CommandError) as failed:
        run(str(tmp_path / "file"), "--create-users")
    assert (
        str(failed.value) == "the database failed (DiskFull, SQLSTATE 53100); nothing was imported"
    )
    assert not User.objects.filter(username="new").exists()
    assert not stored()


def listed() -> int:
    """Pages of the list that the index of terms has not taken over yet; it is empty after that."""
    return int(rows("SELECT gin_clean_pending_list('message_memories_terms')")[0][0])


def test_an_import_leaves_no_long_list_to_whoever_speaks_next(alice: User) -> None:
    imported(*many(2_000))
    assert listed() == 0
    chat = StandaloneChat.objects.create(user=alice)
    for number in range(300):
        rows(
            INSERT, alice.pk, chat.pk, f"{number} the quick brown fox jumps over the lazy dog " * 5
        )
    assert 0 < listed() <= 10  # 64 kB are 8 pages
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica; DELETE FROM message_memories")
        cursor.execute("SET session_replication_role = origin")
    listed()
    assert sum(fill_words.fill(SOURCE)) == 2_300
    assert listed() <= 10


def test_words_are_worked_out_in_parallel(alice: User, other: Any) -> None:
    seen: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        until = time.monotonic() + PATIENCE_S
        while not ended.is_set() and time.monotonic() < until:
            seen.append(other.execute(WORKERS).fetchone()[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    imported(
        *(
            line(content=f"{number} the quick brown fox jumps over the lazy dog " * 20)
            for number in range(3_000)
        )
    )
    ended.set()
    watcher.join()
    assert max(seen) > 0


@pytest.fixture
def old_memory() -> Iterator[Callable[[str], None]]:
    """Adds memory as an earlier state of this repository did; afterwards today's schema again."""
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
    assert imported(*many(20)).messages == len(known()) == 20


def test_a_schema_without_bulk_functions_learns_by_row_until_migrated(
    alice: User, old_memory: Callable[[str], None]
) -> None:
    call_command("migrate", "chat", verbosity=0)
    today = schema()
    call_command("migrate", "chat", "0004_vector_indexes", verbosity=0)
    old_memory("0006_model_and_text")
    assert schema() != today
    assert imported(*many(20)).messages == len(known()) == 20
    call_command("migrate", "chat", verbosity=0)
    assert schema() == today


def schema() -> list[Any]:
    """What our functions are and are set to, and the index of terms."""
    ours = "SELECT proname, prosrc, proconfig FROM pg_proc WHERE strpos(prosrc, 'message_memories') > 0 ORDER BY 1"
    return rows(ours) + rows(
        "SELECT reloptions FROM pg_class WHERE relname = 'message_memories_terms'"
    )
