"""An import is all or nothing, blocks no other statement, and survives a failing database."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError
from django.db import Error, connection

from chat.models import StandaloneChat
from chat.tests.transfer_support import (
    during_the_inserts,
    imported,
    line,
    many,
    run,
    stored,
    streamed,
    watched,
)
from chat.transfer.refusals import ImportRefusedError
from retrieval.db_errors import describe_db_error

pytestmark = pytest.mark.django_db(transaction=True)
INSERT = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content)
    VALUES (%s, %s, 'user', 'x')
"""


def test_while_an_import_reads_others_write_and_see_nothing_of_it(alice: User, other: Any) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    seen: list[Any] = []

    def look() -> None:
        other.execute(INSERT, [alice.pk, chat.pk])
        seen.append(other.execute("SELECT count(*) FROM standalone_chat_messages").fetchone()[0])

    assert streamed(watched(look, look)).messages == 200
    assert streamed(watched(look, look)).already == 200
    assert seen == [1, 2, 203, 204]


def test_a_turn_in_an_imported_chat_waits_for_no_import(alice: User, other: Any) -> None:
    imported(line())
    chat = StandaloneChat.objects.get()

    def take_part() -> None:
        other.execute("SELECT FROM auth_user WHERE id = %s FOR NO KEY UPDATE", [alice.pk])
        other.execute(INSERT, [alice.pk, chat.pk])
        other.execute("UPDATE standalone_chats SET updated_at = now() WHERE id = %s", [chat.pk])

    with during_the_inserts(take_part):
        assert imported(*(line(content=f"{number}") for number in range(10))).messages == 10
    assert len(stored()) == 12


def test_a_second_import_at_the_same_time_is_refused_at_once(alice: User) -> None:
    refusals: list[str] = []

    def second() -> None:
        try:
            imported(line())
        except ImportRefusedError as error:
            refusals.append(str(error))
        finally:
            connection.close()

    def look() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    assert streamed(watched(look)).messages == 100
    assert refusals == ["another import is running; run this one after it"]


def test_after_a_lost_connection_nothing_is_imported(alice: User, other: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    with pytest.raises(Error) as lost:
        streamed(watched(lambda: other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])))
    connection.close()
    assert describe_db_error(lost.value) in {
        "AdminShutdown, SQLSTATE 57P01",
        "OperationalError, connection lost",
    }
    assert other.execute("SELECT count(*) FROM standalone_chats").fetchone()[0] == 0


@pytest.fixture
def full_disk(db: None) -> Iterator[None]:
    """A database that refuses each message with an error that quotes it."""
    with connection.cursor() as cursor:
        cursor.execute("""
            CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'no room for %', NEW.content USING ERRCODE = '53100'; END $$;
            CREATE TRIGGER full_disk BEFORE INSERT ON standalone_chat_messages
            FOR EACH ROW EXECUTE FUNCTION full_disk()
        """)
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION full_disk CASCADE")


def test_a_full_disk_is_one_line_without_content_and_exit_1(
    alice: User, full_disk: None, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(line(user="new"))
    with pytest.raises(CommandError) as failed:
        run(str(tmp_path / "file"), "--create-users")
    message = "the database failed (DiskFull, SQLSTATE 53100); nothing was imported"
    assert (str(failed.value), failed.value.returncode) == (message, 1)
    assert not StandaloneChat.objects.exists()
    assert not User.objects.filter(username="new").exists()


def test_time_limits_of_requests_do_not_apply_to_an_import(
    alice: User,
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 10")
        try:
            assert imported(*many(1_000)).messages == 1_000
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone()[0] == "10ms"
        finally:
            cursor.execute("SET statement_timeout = 0")
