"""Messages in and out as JSON Lines: each once, all or nothing, and the same again on the way out."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command, execute_from_command_line, load_command_class
from django.db import Error, connection

from chat import recalling
from chat.management.commands import import_messages
from chat.models import ChatMessage, Passage, StandaloneChat, StandaloneChatMessage
from chat.transfer import exporting, in_one_line
from chat.transfer.exporting import export_lines
from chat.transfer.importing import PROGRESS_EVERY, Imported, ImportRefusedError, import_lines
from chat.transfer.lines import MAX_LINE_BYTES, BadLineError, parse, read
from fake_openai import FakeOpenAI
from retrieval.recall import Scope
from tests.support import PATIENCE_S, ROOT, clean_environment, database_url

pytestmark = pytest.mark.django_db(transaction=True)
AT = "2024-05-03T10:00:00.123456Z"
NASTY = [
    "🐕‍🦺 Biscuit\u200d, ñandú, 犬",
    "\u202eשלום עולם\u202c مرحبا",
    'it\'s a "quote", a \\ and a \\\\',
    "\\.",
    "first\n\\.\nlast",
    "\\N",
    "\ttab\r\nand \u2028 and \u0085 and \x01 and \x7f",
    "  kept as it is  ",
    "%s %(name)s {braces} $1 :x --; DROP",
    "x" * 32_000,
    "🐕" * 32_000,
]


def line(**changes: Any) -> bytes:
    """A good line of alice's, but for the changes; a field changed to ... is left out."""
    fields = {"user": "alice", "conversation": "c", "role": "user", "content": "Hello", "created_at": AT} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode() + b"\n"


def imported(*lines: bytes, create_users: bool = False, skip_bad: bool = False) -> Imported:
    """What came of these lines."""
    return import_lines(lines, create_users=create_users, skip_bad=skip_bad, progress=lambda _lines: None)


def streamed(lines: Iterable[bytes]) -> Imported:
    """As ``imported``, reading line by line while the transaction is open."""
    return import_lines(lines, create_users=True, skip_bad=False, progress=lambda _lines: None)


def exported(user: User | None = None) -> bytes:
    """All lines of the export."""
    return b"".join(export_lines(user))


def stored() -> list[str]:
    """What the chats hold, in the order in which it was added."""
    return list(StandaloneChatMessage.objects.order_by("id").values_list("content", flat=True))


def manage(
    *arguments: str, lines: bytes = b"", stdout: int | IO[bytes] = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own, on the test's database."""
    environment = clean_environment(DATABASE_URL=database_url(connection), SECRET_KEY="test")
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, input=lines, stdout=stdout, stderr=subprocess.PIPE)


def many(count: int) -> Iterator[bytes]:
    """Lines in conversations of 80 messages."""
    for number in range(count):
        at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        yield line(conversation=f"c{number // 80}", content=f"Message {number}", created_at=at.isoformat())


# --- what a line becomes ------------------------------------------------------------------------


def test_a_line_becomes_a_message_of_a_new_chat_named_after_the_conversation(alice: User) -> None:
    assert imported(line(conversation="Holidays", role="assistant")) == Imported(1, 0, 1, 1, 0)
    message = StandaloneChatMessage.objects.get()
    assert (message.user, message.role, message.content) == (alice, "assistant", "Hello")
    assert (message.created_at, message.status) == (datetime(2024, 5, 3, 10, 0, 0, 123456, UTC), "complete")
    chat = message.conversation
    assert (chat.user, chat.source, chat.title, chat.memory) == (alice, "Holidays", "Holidays", True)


def test_what_is_imported_is_found_by_words_at_once_and_not_embedded(alice: User, remembering: FakeOpenAI) -> None:
    imported(line(content="My dog is called Biscuit."), line(kind="passage", content="Tobit had a dog."))
    assert not remembering.requests
    assert not StandaloneChatMessage.objects.filter(embedding__isnull=False).exists()
    found = recalling.search(alice.pk, "dog", Scope(alice.pk), limit=5)
    assert {one.message.content for one in found.memories} == {"My dog is called Biscuit.", "Tobit had a dog."}


def test_a_line_of_kind_passage_becomes_a_message_about_a_passage_with_its_name_as_text(alice: User) -> None:
    imported(line(kind="passage", conversation="John 3:16-21"))
    passage = ChatMessage.objects.get().conversation
    assert (passage.source, passage.reference, passage.text) == ("John 3:16-21",) * 3
    assert not StandaloneChat.objects.exists()


def test_the_same_name_is_another_conversation_for_another_user_and_for_another_kind(alice: User, bob: User) -> None:
    done = imported(line(), line(user="bob"), line(kind="passage"), line(content="Again"))
    assert done == Imported(messages=4, users=2, conversations=3)
    assert StandaloneChat.objects.of(alice).get().messages.count() == 2
    assert StandaloneChat.objects.of(bob).get().messages.count() == Passage.objects.of(alice).count() == 1


@pytest.mark.parametrize("kind", ["chat", "passage"])
def test_a_long_name_is_kept_whole_as_source_and_cut_to_200_as_title_or_reference(kind: str, alice: User) -> None:
    name = "é" * 255
    imported(line(kind=kind, conversation=name))
    made: Any = (StandaloneChat if kind == "chat" else Passage).objects.get()
    assert (made.source, str(made)) == (name, "é" * 200)
    assert kind == "chat" or made.text == "é" * 200


def test_messages_are_added_by_time_and_equal_times_in_the_order_of_the_file(alice: User) -> None:
    later = "2024-05-03T10:00:01Z"
    imported(line(content="c", created_at=later), line(content="b"), line(content="a"), line(content="0"))
    assert stored() == ["b", "a", "0", "c"]


def test_a_conversations_times_are_those_of_its_first_and_last_message(alice: User) -> None:
    times = [f"2024-05-0{day}T10:00:00+00:00" for day in (4, 2, 3)]
    imported(*(line(created_at=at) for at in times))
    chat = StandaloneChat.objects.get()
    assert (chat.created_at.isoformat(), chat.updated_at.isoformat()) == (times[1], times[0])
    imported(line(created_at="2024-05-01T10:00:00Z"), line(created_at="2024-05-09T10:00:00Z"))
    chat.refresh_from_db()
    assert (chat.created_at.day, chat.updated_at.day) == (1, 9)


def test_a_time_is_kept_to_the_microsecond_whatever_its_offset(alice: User) -> None:
    imported(line(created_at="2024-05-03T12:30:00.000001+02:30"))
    assert StandaloneChatMessage.objects.get().created_at == datetime(2024, 5, 3, 10, 0, 0, 1, UTC)


def test_empty_lines_unknown_fields_and_a_mark_of_the_byte_order_are_passed_over(alice: User) -> None:
    done = imported(b"\xef\xbb\xbf" + line(score=[1], id=7), b"\n", b"  \r\n", line(content="Again"))
    assert (done.messages, done.skipped) == (2, 0)


def test_a_whole_last_line_needs_no_newline(alice: User) -> None:
    assert imported(line(), line(content="last").rstrip(b"\n")).messages == 2


def test_a_number_as_conversation_is_its_name(alice: User) -> None:
    imported(line(conversation=17))
    assert StandaloneChat.objects.get().source == "17"


# --- bad lines ----------------------------------------------------------------------------------

BAD = [
    *(("role must be user or assistant", line(role=role)) for role in (..., "system", "User", None, 1)),
    *(("kind must be chat or passage", line(kind=kind)) for kind in ("Chat", None, ["chat"])),
    *(("content must be text", line(content=content)) for content in (..., None, 1, ["x"])),
    *(("content is blank", line(content=content)) for content in ("", " \n\u00a0")),
    ("content is longer than 32,000 characters", line(content="x" * 32_001)),
    ("content holds NUL", line(content="a\0b")),
    ("content holds a lone surrogate", line(content="\ud83d")),
    *(("user must be text", line(user=user)) for user in (..., 7)),
    ("user is blank", line(user=" ")),
    ("user is longer than 150 characters", line(user="a" * 151)),
    ("user holds a lone surrogate", line(user="\udc00")),
    *(("conversation must be text", line(conversation=name)) for name in (..., True, None, 1.5)),
    ("conversation is blank", line(conversation="")),
    ("conversation is longer than 255 characters", line(conversation="x" * 256)),
    ("conversation holds NUL", line(conversation="\0")),
    ("created_at has no offset from UTC", line(created_at="2024-05-03T10:00:00")),
    *(
        ("created_at must be an ISO 8601 time with an offset", line(created_at=at))
        for at in (..., 1, "then", "2024-02-30T10:00:00Z", "0001-01-01T00:00+01:00", "9999-12-31T23:00-02:00")
    ),
    *(("not JSON", raw + b"\n") for raw in (b"{'user': 1}", b"[" * 100_000, b'{"n": ' + b"1" * 5_000 + b"}")),
    ("not a JSON object", b"[1]\n"),
    ("not UTF-8", line()[:-3] + b"\xff\xfe}\n"),
    ("longer than 1,000,000 bytes", line(extra="x" * MAX_LINE_BYTES)),
    ("longer than 1,000,000 bytes", b" " * (MAX_LINE_BYTES + 1)),  # a line of blanks is no empty line then
]  # fmt: skip


@pytest.mark.parametrize(("reason", "raw"), BAD, ids=[reason for reason, _ in BAD])
def test_a_bad_line_is_named_by_number_and_rule_without_its_content(reason: str, raw: bytes, alice: User) -> None:
    with pytest.raises(ImportRefusedError) as refused:
        imported(line(), b"\n", raw, line(content="after"))
    assert str(refused.value) == f"line 3: {reason}"
    assert not StandaloneChat.objects.exists()


def test_a_traceback_of_a_bad_line_does_not_show_the_error_that_holds_its_text() -> None:
    for _, raw in BAD:
        with pytest.raises(BadLineError) as bad:
            parse(raw)
        assert bad.value.__cause__ is None
        assert bad.value.__suppress_context__ or bad.value.__context__ is None


def test_a_file_that_ends_in_the_middle_of_a_line_is_bad_at_that_line(alice: User) -> None:
    for cut in (line()[:-9], line(content="é")[:-2], '{"content": "é'.encode()[:-1]):
        with pytest.raises(ImportRefusedError, match=r"^line 2: the file ends in the middle of it$"):
            imported(line(), cut)


def test_a_bad_line_in_the_middle_keeps_nothing_not_even_users() -> None:
    lines = [*many(500), line(role="system"), *many(500)]
    with pytest.raises(ImportRefusedError, match="line 501"):
        imported(*lines, create_users=True)
    assert not User.objects.exists()
    assert not StandaloneChat.objects.exists()
    assert not stored()


def test_bad_lines_are_skipped_where_asked_and_counted_with_the_first_five_reasons(alice: User) -> None:
    done = imported(*[line(role="x")] * 4, line(), *[line(content="")] * 3, line(user="x"), skip_bad=True)
    assert (done.messages, done.skipped, done.already) == (1, 8, 0)
    assert done.reasons == [f"line {n}: role must be user or assistant" for n in (1, 2, 3, 4)] + [
        "line 6: content is blank"
    ]


def test_an_unknown_user_is_a_bad_line(alice: User) -> None:
    lines = [line(), line(user="carol"), line(user="dave"), line(user="carol", content="More")]
    with pytest.raises(ImportRefusedError, match=r"^line 2: no user is called 'carol'$"):
        imported(*lines)
    assert not stored()
    done = imported(*lines, skip_bad=True)
    assert (done.messages, done.users, done.skipped) == (1, 1, 3)
    assert done.reasons == ["line 2: no user is called 'carol'", "line 3: no user is called 'dave'"]


def test_users_are_made_where_asked_without_a_usable_password(alice: User) -> None:
    names = [f"user{number}" for number in range(1_100)]
    done = imported(line(), *(line(user=name) for name in names), create_users=True)
    assert (done.messages, done.users) == (1_101, 1_101)
    alice.refresh_from_db()
    assert alice.has_usable_password()
    made = User.objects.exclude(pk=alice.pk)
    assert {user.username for user in made} == set(names)
    assert not any(user.has_usable_password() or not user.is_active or user.is_staff for user in made)
    assert len({user.password for user in made}) == len(names)


# --- each message once --------------------------------------------------------------------------


def test_the_same_line_three_times_is_three_messages(alice: User) -> None:
    assert imported(line(), line(content="x"), line(), line()).messages == 4
    assert stored() == ["Hello", "x", "Hello", "Hello"]


def test_lines_that_differ_in_one_field_are_different_messages(alice: User, bob: User) -> None:
    other = {"role": "assistant", "content": "hello", "created_at": AT.replace("6Z", "7Z"), "kind": "passage"}
    changed = [line(**{name: value}) for name, value in (other | {"user": "bob", "conversation": "C"}).items()]
    imported(line())
    for one in changed:
        done = imported(one, line())
        assert (done.messages, done.already) == (1, 1)
    assert sorted(map(parse, export_lines(None))) == sorted(map(parse, (line(), *changed)))
    assert imported(line(), *changed) == Imported(0, 0, 2, 4, already=7)


def test_a_second_import_adds_nothing(alice: User) -> None:
    lines = [line(), line(), *(line(content=content, kind="passage") for content in NASTY), *many(200)]
    first = imported(*lines)
    before = exported()
    second = imported(*lines)
    assert (second.messages, second.already) == (0, first.messages)
    assert (second.users, second.conversations) == (first.users, first.conversations)
    assert exported() == before


def test_of_equal_lines_only_those_that_the_database_lacks_are_added(alice: User) -> None:
    imported(line(), line())
    done = imported(*[line()] * 5, line(content="new"))
    assert (done.messages, done.already) == (4, 2)
    assert imported(line()).messages == 0
    assert len(stored()) == 6


def test_ten_thousand_equal_lines_are_imported_twice_in_linear_time(alice: User) -> None:
    lines = [line()] * 10_000
    assert imported(*lines).messages == 10_000
    assert imported(*lines).already == 10_000


def test_messages_that_somebody_adds_to_an_imported_chat_stay(alice: User) -> None:
    imported(line())
    StandaloneChat.objects.get().messages.create(user=alice, role="user", content="Mine")
    assert imported(line(), line(content="new")).messages == 1
    assert sorted(stored()) == ["Hello", "Mine", "new"]


# --- transactions, locks, the database's trouble ------------------------------------------------


@pytest.fixture
def other() -> Iterator[Any]:
    """Another session, that waits for no lock longer than a second."""
    with psycopg.connect(database_url(connection), autocommit=True, options="-c lock_timeout=1s") as session:
        yield session


def watched(*looks: Callable[[], object]) -> Iterator[bytes]:
    """Lines, before each hundred of which somebody looks at the database while the import reads them."""
    for number, look in enumerate(looks):
        look()
        yield from (line(content=f"{number} {place}") for place in range(100))


def test_others_write_and_see_nothing_of_it_while_an_import_reads(alice: User, other: Any) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    insert = "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content) VALUES (%s, %s, 'user', 'x')"
    seen: list[Any] = []

    def look() -> None:
        other.execute(insert, [alice.pk, chat.pk])
        seen.append(other.execute("SELECT count(*) FROM standalone_chat_messages").fetchone()[0])

    assert streamed(watched(look, look)).messages == 200
    assert streamed(watched(look, look)).already == 200
    assert seen == [1, 2, 203, 204]


def test_a_turn_in_an_imported_chat_waits_for_no_import(alice: User, other: Any) -> None:
    imported(line())
    chat = StandaloneChat.objects.get()
    insert = "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content) VALUES (%s, %s, 'user', 'x')"

    def take_part() -> None:
        other.execute("SELECT FROM auth_user WHERE id = %s FOR NO KEY UPDATE", [alice.pk])
        other.execute(insert, [alice.pk, chat.pk])
        other.execute("UPDATE standalone_chats SET updated_at = now() WHERE id = %s", [chat.pk])

    with during_the_inserts(take_part):
        assert imported(*(line(content=f"{number}") for number in range(10))).messages == 10
    assert len(stored()) == 12


@contextmanager
def during_the_inserts(act: Callable[[], object]) -> Iterator[None]:
    """``act`` is done by somebody else once an import has inserted its messages and before it is committed."""
    done: list[bool] = []

    def execute(run: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        result = run(sql, *arguments)
        if "both_sides" in sql and not done:
            done.append(True)
            act()
        return result

    with connection.execute_wrapper(execute):
        yield
    assert done


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


def test_a_lost_database_is_one_line_and_nothing_is_kept(alice: User, other: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    with pytest.raises(Error) as lost:
        streamed(watched(lambda: other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])))
    connection.close()
    assert in_one_line(lost.value) in {"AdminShutdown, SQLSTATE 57P01", "OperationalError, connection lost"}
    assert other.execute("SELECT count(*) FROM standalone_chats").fetchone()[0] == 0


@pytest.fixture
def full_disk(db: None) -> Iterator[None]:
    """A database that has no room for a message, and quotes it."""
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


def test_a_full_disk_is_one_line_without_content_exit_1_and_nothing_is_kept(
    alice: User, full_disk: None, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(line(user="new"))
    with pytest.raises(CommandError) as failed:
        run(str(tmp_path / "file"), "--create-users")
    said = "the database failed (DiskFull, SQLSTATE 53100); nothing was imported"
    assert (str(failed.value), failed.value.returncode) == (said, 1)
    assert not StandaloneChat.objects.exists()
    assert not User.objects.filter(username="new").exists()


def test_limits_of_time_meant_for_requests_do_not_end_an_import_and_are_there_again_after_it(alice: User) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 10")
        try:
            assert imported(*many(1_000)).messages == 1_000
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone()[0] == "10ms"
        finally:
            cursor.execute("SET statement_timeout = 0")


# --- out again ----------------------------------------------------------------------------------


def test_what_is_exported_imported_into_an_empty_database_and_exported_again_is_the_same(alice: User) -> None:
    names = ["c", "Z", "chat 17", "chat 2 (2)", "ñ", "🐕", "\\.", '"', "a\nb", "a\tb"]
    lines = [
        line(user=user, kind=kind, conversation=name, content=content, role=role)
        for user, role in (("alice", "user"), ("Émile", "assistant"), ("Zoë", "user"))
        for kind in ("chat", "passage")
        for name, content in zip(names, NASTY, strict=False)
    ]
    imported(*lines, line(content="b"), line(content="a"), line(content="a"), create_users=True)
    for number in range(12):
        chat = StandaloneChat.objects.create(user=alice)
        chat.messages.create(user=alice, role="user", content=f"Chat without a name, {number}")
    first = exported()
    assert first.count(b"\n") == len(lines) + 3 + 12
    User.objects.all().delete()
    imported(*io.BytesIO(first), create_users=True)
    assert exported() == first


@pytest.mark.parametrize("content", NASTY)
def test_whatever_is_said_comes_out_as_it_went_in(content: str, alice: User) -> None:
    imported(line(content=content, conversation=content[:50]))
    (raw,) = export_lines(None)
    assert json.loads(raw) == {
        "user": "alice",
        "conversation": content[:50],
        "kind": "chat",
        "role": "user",
        "content": content,
        "created_at": AT,
    }


def test_an_export_goes_by_user_kind_conversation_time_and_id(alice: User, bob: User) -> None:
    wanted = [
        (user, kind, name, at)
        for user in ("Ann", "alice", "bob")
        for kind in ("chat", "passage")
        for name in ("B", "a", "b")
        for at in ("2024-05-03T10:00:00.000000Z", "2024-05-03T10:00:00.000001Z")
    ]
    lines = [line(user=user, kind=kind, conversation=name, created_at=at) for user, kind, name, at in wanted]
    imported(*reversed(lines), create_users=True)
    got = [json.loads(raw) for raw in export_lines(None)]
    assert [(one["user"], one["kind"], one["conversation"], one["created_at"]) for one in got] == wanted


def test_of_one_conversation_the_earlier_message_comes_first_whichever_was_added_first(alice: User) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    for day in (3, 1, 2):
        at = datetime(2024, 5, day, tzinfo=UTC)
        chat.messages.create(user=alice, role="user", content=f"{day}", created_at=at)
    with connection.cursor() as cursor:  # by an index they would be in order by chance
        cursor.execute("SET enable_indexscan = off; SET enable_bitmapscan = off")
        try:
            assert [json.loads(raw)["content"] for raw in export_lines(None)] == ["1", "2", "3"]
        finally:
            cursor.execute("RESET enable_indexscan; RESET enable_bitmapscan")


def test_one_users_export_holds_nothing_of_anothers(alice: User, bob: User) -> None:
    imported(line(content="alice's"), line(user="bob", content="bob's"), line(user="bob", kind="passage"))
    assert [json.loads(raw)["content"] for raw in export_lines(bob)] == ["bob's", "Hello"]
    assert exported(User.objects.create(username="carol")) == b""


def test_a_conversation_without_a_name_is_called_by_its_id_and_never_like_another(alice: User, bob: User) -> None:
    chats = [StandaloneChat.objects.create(user=alice) for _ in range(3)]
    passage = Passage.objects.create(user=alice, reference="x", text="x")
    unnamed: list[Any] = [*chats, passage]
    for conversation in unnamed:
        conversation.messages.create(user=alice, role="user", content=f"{conversation.kind}{conversation.pk}")
    taken = [f"chat {chats[0].pk}", f"chat {chats[0].pk} (2)", f"chat {chats[1].pk}"]
    imported(*(line(conversation=name) for name in taken), line(user="bob", conversation=f"chat {chats[2].pk}"))
    names = {one["content"]: one["conversation"] for one in map(json.loads, export_lines(alice))}
    assert names.pop("Hello") in taken
    assert names == {
        f"chat{chats[0].pk}": f"chat {chats[0].pk} (3)",
        f"chat{chats[1].pk}": f"chat {chats[1].pk} (2)",
        f"chat{chats[2].pk}": f"chat {chats[2].pk}",
        f"passage{passage.pk}": f"passage {passage.pk}",
    }


def test_answers_that_failed_or_are_still_being_given_are_left_out(alice: User) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    for status in ("failed", "streaming", "interrupted"):
        chat.messages.create(user=alice, role="assistant", content="", status=status)
    chat.messages.create(user=alice, role="assistant", content="Half an", status="interrupted")
    assert [json.loads(raw)["content"] for raw in export_lines(None)] == ["Half an"]


def test_pages_join_without_a_gap_where_many_messages_have_the_same_time(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 7)
    count = 2 * 7 + 1
    imported(*(line(content=f"{number}") for number in range(count)))
    assert [json.loads(raw)["content"] for raw in export_lines(alice)] == [str(number) for number in range(count)]


def test_more_users_and_conversations_than_a_page_are_all_exported(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 7)
    names = [f"{number:02}" for number in range(2 * 7 + 1)]
    imported(*(line(user=f"user{name}", conversation=name) for name in names), create_users=True)
    imported(*(line(conversation=name) for name in names))
    assert [json.loads(raw)["conversation"] for raw in export_lines(None)] == names * 2


def test_a_time_with_another_offset_comes_out_in_utc(alice: User) -> None:
    at = datetime(2024, 5, 3, 23, tzinfo=timezone(timedelta(hours=-3)))
    chat = StandaloneChat.objects.create(user=alice)
    chat.messages.create(user=alice, role="user", content="x", created_at=at)
    assert b'"created_at": "2024-05-04T02:00:00.000000Z"' in exported()


# --- the commands -------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    """What the import printed."""
    out = io.StringIO()
    call_command("import_messages", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Callable[[Iterable[bytes]], str]:
    """Makes a file of lines."""

    def make(lines: Iterable[bytes]) -> str:
        with (tmp_path / "messages.jsonl").open("wb") as made:
            made.writelines(lines)
        return made.name

    return make


def test_the_command_says_what_it_did_and_what_comes_next(
    alice: User, file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = file([*many(1_234), line(user="bob"), line(role="x"), line(content="")])
    then = "They are found by words at once; backfill_embeddings embeds them.\n"
    said = "Imported 1,235 messages in 17 conversations of 2 users; 0 were there already; 2 bad lines skipped\n"
    assert run(name, "--create-users", "--skip-bad") == said + then
    assert capsys.readouterr().err == "line 1236: role must be user or assistant\nline 1237: content is blank\n"
    name = file([line(user="bob"), line(user="bob", content="x")])
    assert run(name) == "Imported 1 message in 1 conversation of 1 user; 1 were there already\n" + then


def test_the_command_gives_json_for_scripts(alice: User, file: Callable[..., str]) -> None:
    found = json.loads(run(file([line(), line(role="x")]), "--json", "--skip-bad"))
    assert found == {"messages": 1, "skipped": 1, "users": 1, "conversations": 1, "already": 0}


def test_a_hundred_thousand_lines_are_told_of_and_take_little_memory(
    alice: User, capsys: pytest.CaptureFixture[str], file: Callable[..., str]
) -> None:
    # The second time, as only reading is looked at here: adding so many takes the database a while.
    imported(line())
    name = file([line()] * 100_000)
    tracemalloc.start()
    try:
        with pytest.raises(CommandError, match="line 100001"):
            call_command("import_messages", file_with_bad_end(name))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert capsys.readouterr().err == "100,000 lines read\n"
    assert peak < 5_000_000


def test_a_long_import_tells_when_reading_is_over(
    alice: User, capsys: pytest.CaptureFixture[str], file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_messages, "TOLD_EVERY", PROGRESS_EVERY)
    run(file([line()] * PROGRESS_EVERY))
    assert capsys.readouterr().err == "10,000 lines read\nall lines read, now the database adds them\n"
    run(file([line()]))
    assert not capsys.readouterr().err


def file_with_bad_end(name: str) -> str:
    """The file, and a bad line."""
    with Path(name).open("ab") as end:
        end.write(b"x\n")
    return name


def test_a_line_without_an_end_is_not_read_into_memory(alice: User) -> None:
    pieces = list(read(io.BytesIO(b"x" * 10_000_000 + b"\n" + line())))
    assert [len(piece) for piece in pieces] == [MAX_LINE_BYTES + 1, len(line())]
    assert [len(piece) for piece in read(io.BytesIO(b"y" * (2 * MAX_LINE_BYTES + 2)))] == [MAX_LINE_BYTES + 1]
    longest = line(extra="x" * (MAX_LINE_BYTES - len(line(extra=""))))
    assert len(longest) == MAX_LINE_BYTES
    assert list(read(io.BytesIO(longest * 2))) == [longest] * 2
    assert imported(longest).messages == 1


def test_through_pipes_an_export_goes_into_an_import(alice: User) -> None:
    imported(*(line(content=content) for content in NASTY))
    out = manage("export_messages")
    assert (out.returncode, out.stdout, out.stderr) == (0, exported(), b"")
    StandaloneChat.objects.all().delete()
    back = manage("import_messages", "-", lines=out.stdout)
    assert (back.returncode, back.stderr) == (0, b"")
    assert exported() == out.stdout


def test_what_is_wrong_is_one_line_and_exit_1(alice: User, tmp_path: Path, file: Callable[..., str]) -> None:
    name = file([line(), line(role="system")])
    for argument, reason in {
        str(tmp_path / "none"): f"{tmp_path / 'none'}: No such file or directory; nothing was imported",
        str(tmp_path): f"{tmp_path}: Is a directory; nothing was imported",
        name: "line 2: role must be user or assistant; nothing was imported",
    }.items():
        with pytest.raises(CommandError) as raised:
            run(argument)
        assert (str(raised.value), raised.value.returncode) == (reason, 1)
    with pytest.raises(CommandError, match=r"^No user is called 'carol'$"):
        call_command("export_messages", "--user", "carol")
    ran = manage("import_messages", name)
    said = b"CommandError: line 2: role must be user or assistant; nothing was imported\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, b"", said)


EXAMPLES = {"import_messages": "history.jsonl --create-users", "export_messages": "--user alice > alice.jsonl"}


COPYING = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY import_lines%' AND datname = current_database()"
# A process started in the background of a shell script ignores SIGINT, and so do those that it starts.
INTERRUPTIBLE = """
import signal, sys
from django.core.management import execute_from_command_line
signal.signal(signal.SIGINT, signal.default_int_handler)
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


def test_an_import_that_is_interrupted_says_so_in_one_line_and_keeps_nothing(alice: User, other: Any) -> None:
    environment = clean_environment(
        DATABASE_URL=database_url(connection), SECRET_KEY="test", DJANGO_SETTINGS_MODULE="verse.settings"
    )
    command = [sys.executable, "-c", INTERRUPTIBLE, "import_messages", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write(line())
        process.stdin.flush()
        until = time.monotonic() + PATIENCE_S
        while not other.execute(COPYING).fetchone() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    said = b"CommandError: interrupted; nothing was imported\n"
    assert (process.returncode, out, err) == (130, b"", said)
    assert not stored()


def test_wrong_usage_is_exit_2_and_the_help_teaches_by_an_example() -> None:
    for arguments in (["import_messages"], ["import_messages", "a", "b"], ["export_messages", "alice"]):
        with pytest.raises(SystemExit) as ended:
            execute_from_command_line(["manage.py", *arguments])
        assert ended.value.code == 2
    helps = {
        name: load_command_class("chat", name).create_parser("manage.py", name).format_help() for name in EXAMPLES
    }
    assert all(f"\n  manage.py {name} {EXAMPLES[name]}\n" in helps[name] for name in EXAMPLES)


def test_a_reader_who_goes_away_ends_an_export_without_a_word(alice: User) -> None:
    imported(*(line(content=f"{number} " + "x" * 30_000) for number in range(20)))
    read_end, write_end = os.pipe()
    os.close(read_end)
    ran = manage("export_messages", stdout=write_end)
    os.close(write_end)
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_a_disk_that_is_full_ends_an_export_in_one_line(alice: User) -> None:
    imported(line())
    with Path("/dev/full").open("wb") as full:
        ran = manage("export_messages", stdout=full)
    said = b"CommandError: the export is not whole: No space left on device\n"
    assert (ran.returncode, ran.stderr) == (1, said)


MEASURED = """
import resource, sys
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


@pytest.mark.soak
def test_a_million_lines_go_in_and_out_in_less_than_200_mb(alice: User, file: Callable[..., str]) -> None:
    environment = clean_environment(
        DATABASE_URL=database_url(connection), SECRET_KEY="test", DJANGO_SETTINGS_MODULE="verse.settings"
    )
    name = file(many(1_000_000))
    for arguments, lines in ((["import_messages", name], 2), (["export_messages"], 1_000_000)):
        ran = subprocess.run(
            [sys.executable, "-c", MEASURED, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True
        )
        assert ran.stdout.count(b"\n") == lines
        assert int(ran.stderr.split()[-1]) < 200
