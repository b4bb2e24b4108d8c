"""backfill_embeddings as a process: killed, stopped, twice at once, on a terminal, with edits."""

import os
import pty
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.memory.embed import embed_in_background, finish_embedding_jobs
from chat.models import Passage, Role, StandaloneChat
from chat.personal_data import erase
from fake_openai import FakeOpenAI, Vectors
from retrieval.tests.backfill_support import (
    CHAT,
    IS_OUR_SESSION,
    PASSAGE,
    add_messages,
    embedded_texts,
    only_line,
    query,
    run,
    run_process,
    start,
    texts,
    wait_for_end,
)
from tests.support import PATIENCE_S, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
MAX_WAIT_S = 0.5  # docs/promises.md, Zero downtime
LONGEST_WAIT = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND pid <> ALL (%s) AND datname = current_database()
"""


@pytest.mark.parametrize(
    ("rows", "batch", "kills"),
    [(300, 5, 4), pytest.param(5_000, 20, 20, marks=pytest.mark.soak)],
    ids=["short", "full"],
)
def test_killed_at_any_moment_it_never_pays_twice(
    rows: int, batch: int, kills: int, alice: User, remembering: FakeOpenAI
) -> None:
    contents = texts(rows)
    add_messages(alice, contents[: rows // 2])
    add_messages(alice, contents[rows // 2 :], table=PASSAGE)
    query("DELETE FROM message_memories WHERE id % 3 = 0")  # some came before the triggers
    rng = random.Random(seed := time.time_ns())
    committed: set[str] = set()
    # Calls before a kill, so few that something is left for the last one.
    max_calls = rows // batch // kills // 2
    for kill in range(kills):
        remembering.embeddings.default = Vectors(delay_s=0.1)
        process = start(remembering.base_url, "--batch-size", str(batch), "--workers", "2")
        # The first one late, so that something was stored before it.
        call = rng.randint(1, max_calls) if kill else max_calls
        kill_at(process, call, rng.uniform(0, 0.15), remembering)
        paid_again = committed & sent_since_reset(remembering)
        assert not paid_again, f"kill {kill} of seed {seed}: {sorted(paid_again)[:5]}"
        committed = embedded_texts() | embedded_texts(PASSAGE)
        remembering.reset()
    assert 0 < len(committed) < rows
    done = run_process(remembering.base_url)
    assert done.code == 0, done.err
    assert not committed & sent_since_reset(remembering)
    assert embedded_texts() | embedded_texts(PASSAGE) == set(contents)
    assert query("SELECT count(*), count(bits), count(model) FROM message_memories") == [
        (rows,) * 3
    ]


def kill_at(process: "subprocess.Popen[str]", call: int, after_s: float, fake: FakeOpenAI) -> None:
    """SIGKILL some time after the nth call; return when its last statement has ended."""
    fake.wait_for(lambda: len(fake.embeddings.requests) >= call, timeout_s=PATIENCE_S)
    time.sleep(after_s)
    process.kill()
    process.communicate()
    fake.wait_for(
        lambda: not query(f"SELECT FROM pg_stat_activity WHERE {IS_OUR_SESSION}"),
        timeout_s=PATIENCE_S,
    )


def sent_since_reset(fake: FakeOpenAI) -> set[str]:
    """The texts that were sent to the service."""
    return {text for request in fake.embeddings.requests for text in request.texts}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_running_batches_and_says_how_to_resume(
    number: signal.Signals, code: int, alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(60))
    remembering.embeddings.default = Vectors(delay_s=0.5)
    process = start(remembering.base_url, "--batch-size", "5", "--workers", "2", "--sleep", "0.1")
    remembering.wait_for(lambda: len(remembering.embeddings.requests) >= 3, timeout_s=PATIENCE_S)
    process.send_signal(number)
    done = wait_for_end(process)
    assert done.code == code
    assert only_line(done.err) == "interrupted; run backfill_embeddings again to go on"
    sent = sent_since_reset(remembering)
    assert embedded_texts() == sent
    assert 15 <= len(sent) < 60
    assert f"{60 - len(sent)} pending" in done.lines[-1]


def test_a_signal_ends_the_wait_for_an_unavailable_service(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(5))
    remembering.stop()
    try:
        process = start(remembering.base_url, EMBEDDING_TIMEOUT="0.2")
        assert process.stdout
        assert "trying again in 3 s" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert wait_for_end(process).code == 143
    finally:
        remembering.start()
    assert embedded_texts() == set()


def test_a_second_run_at_the_same_time_is_refused(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(10))
    remembering.embeddings.default = Vectors(delay_s=3)
    first = start(remembering.base_url)
    remembering.wait_for(lambda: remembering.embeddings.requests, timeout_s=PATIENCE_S)
    second = run()
    expected = "another backfill_embeddings is running: let it finish, or stop it first"
    assert (second.code, second.err) == (1, expected)
    assert wait_for_end(first).code == 0
    assert len(remembering.embeddings.requests) == 1


def test_it_ends_while_other_code_writes(alice: User, remembering: FakeOpenAI) -> None:
    """Five messages a second into each table, by code that embeds nothing; default --sleep."""
    contents = texts(150)
    for table in (CHAT, PASSAGE):
        add_messages(alice, contents, table=table)
    with Writer(alice) as writer:
        done = run_process(remembering.base_url, "--sleep", "1.0")
    assert done.code == 0, done.err
    for table in (CHAT, PASSAGE):
        first, last = [line for line in done.lines if line.startswith(f"{table}: batch")]
        total = last.removesuffix(" (100.0%)").rpartition("/")[2]
        assert f" 100/{total} (" in first
        assert f" {total}/{total} (" in last
        assert set(contents) <= embedded_texts(table)
    new_lines = [line for line in done.lines if "run backfill_embeddings again" in line]
    assert len(new_lines) == 1, done.out
    assert 20 < int(new_lines[0].split()[0]) < writer.written
    assert f"{new_lines[0].split()[0]} pending" in done.out
    left = query("SELECT count(*) FROM message_memories WHERE model IS NULL")[0][0]
    assert "Next: vacuum" in done.lines[-1]
    again = run()
    assert (again.code, again.err) == (0, "")
    assert f"{left} embedded" in again.out
    assert "run backfill_embeddings again" not in again.out


class Writer:
    """Writes five messages a second into each of the tables until it is left.

    ``embeds``: as a server does, one call a message; else as code without memory.
    """

    def __init__(self, user: User, *, embeds: bool = False) -> None:
        self._user, self._embeds = user, embeds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.written = 0

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        chat, passage = (kind.objects.create(user=self._user) for kind in (StandaloneChat, Passage))
        while not self._stop.wait(0.2):
            for conversation in (chat, passage):
                self.written += 1
                message = conversation.messages.create(
                    user=self._user, role=Role.USER, content=f"New {self.written}"
                )
                if self._embeds:
                    embed_in_background(message)
        connection.close()


@pytest.mark.soak
def test_texts_that_a_server_is_embedding_are_not_bought_again(
    alice: User, remembering: FakeOpenAI
) -> None:
    """The second run has only new messages to embed: it waits for the server's calls."""
    add_messages(alice, texts(60))
    remembering.embeddings.default = Vectors(delay_s=1)
    with Writer(alice, embeds=True) as server:
        remembering.wait_for(lambda: len(embedded_texts()) > 5, timeout_s=PATIENCE_S)
        for _ in range(2):
            assert run("--batch-size", "30").code == 0
    finish_embedding_jobs()
    bought = Counter(text for request in remembering.embeddings.requests for text in request.texts)
    assert server.written > 20
    assert set(bought) == embedded_texts() | embedded_texts(PASSAGE)
    assert sum(bought.values()) - len(bought) <= 1


def test_no_transaction_is_open_during_a_call(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(20))
    remembering.watch_database(database_url(connection), only="verse-backfill")
    assert run_process(remembering.base_url, "--batch-size", "5", "--workers", "2").code == 0
    assert len(remembering.embeddings.requests) == 4
    assert remembering.violations == []


@pytest.mark.soak
def test_the_next_call_starts_before_the_last_batch_is_stored(
    alice: User, remembering: FakeOpenAI
) -> None:
    """A lock on one of its messages keeps the first batch from being stored."""
    contents = texts(12)
    (first, *_) = add_messages(alice, contents)
    with psycopg.connect(database_url(connection)) as session:
        session.execute("SELECT FROM standalone_chat_messages WHERE id = %s FOR UPDATE", [first])
        process = start(remembering.base_url, "--batch-size", "4")
        remembering.wait_for(
            lambda: len(remembering.embeddings.requests) == 2, timeout_s=PATIENCE_S
        )
    done = wait_for_end(process)
    assert done.code == 0, done.err
    assert [line.split()[2] for line in done.lines if " batch " in line] == ["1,", "2,", "3,"]
    assert embedded_texts() == set(contents)
    assert [len(request.texts) for request in remembering.embeddings.requests] == [4, 4, 4]


@pytest.mark.soak
def test_on_a_terminal_a_backfill_shows_a_bar(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(20))
    ours, theirs = pty.openpty()
    process = start(remembering.base_url, "--batch-size", "5", terminal=theirs)
    os.close(theirs)
    shown = read_to_end(ours)
    assert process.wait(PATIENCE_S) == 0
    assert "standalone_chat_messages: 100%|" in shown
    assert "20/20" in shown
    assert "batch 1" not in shown
    assert "20 embedded" in shown


def read_to_end(terminal: int) -> str:
    """The terminal's output until its other side is closed."""
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:  # on Linux: the other side is closed
            part = b""
        if not part:
            os.close(terminal)
            return shown.decode()
        shown += part


@pytest.mark.soak
def test_edits_and_erasures_neither_fail_nor_wait_during_a_run(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    """Lock waits are read in the database: on a busy machine a request's time says little."""
    mine = add_messages(alice, [*texts(60), *(f"POISON {number}" for number in range(20))])
    add_messages(bob, texts(60))
    remembering.embeddings.refuse_text("POISON")
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ((before,),) = query(deadlocks)
    people = People(database_url(connection), mine, bob)
    with people:
        until = time.monotonic() + 5
        while time.monotonic() < until:
            run("--batch-size", "20", "--workers", "2", "--retry-failed")
    assert people.failures == []
    assert people.longest_wait_s < MAX_WAIT_S
    assert people.done > 50
    time.sleep(1.1)  # a session reports its deadlocks once a second
    assert query(deadlocks) == [(before,)]
    orphans = """
        SELECT count(*) FROM message_memories p
        WHERE NOT EXISTS (SELECT FROM standalone_chat_messages WHERE id = p.id >> 1)
    """
    assert query(orphans) == [(0,)]
    run("--retry-failed")
    left = """
        SELECT count(*) FROM standalone_chat_messages
        WHERE embedding IS NULL AND content NOT LIKE 'POISON%'
    """
    assert query(left) == [(0,)]


class People:
    """Edits alice's messages, one and ten at a time, and erases all of bob's, again and again."""

    def __init__(self, url: str, mine: list[int], bob: User) -> None:
        self._url, self._mine, self._bob = url, mine, bob
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.longest_wait_s = 0.0
        self.done = 0
        work = (self._edit_one, self._edit_ten, self._erase, self._look)
        self._threads = [threading.Thread(target=self._repeat, args=[task]) for task in work]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[["psycopg.Connection[tuple[object, ...]]"], None]) -> None:
        with psycopg.connect(self._url, autocommit=True, application_name="people") as session:
            while not self._stop.is_set():
                try:
                    work(session)
                except Exception as error:  # noqa: BLE001 # any error fails the test
                    self.failures.append(repr(error))
        connection.close()

    def _edit_one(self, session: "psycopg.Connection[tuple[object, ...]]") -> None:
        self._edit(session, random.sample(self._mine, 1))

    def _edit_ten(self, session: "psycopg.Connection[tuple[object, ...]]") -> None:
        self._edit(session, random.sample(self._mine, 10))

    def _edit(self, session: "psycopg.Connection[tuple[object, ...]]", ids: list[int]) -> None:
        session.execute(
            f"UPDATE {CHAT} m SET content = content || '.'"
            " FROM unnest(%s::bigint[]) WITH ORDINALITY chosen(id, n) WHERE m.id = chosen.id",
            [ids],
        )  # fmt: skip
        self.done += 1
        time.sleep(0.02)

    def _erase(self, _session: object) -> None:
        erase(self._bob.pk)
        self.done += 1
        add_messages(self._bob, texts(60))
        time.sleep(0.1)

    def _look(self, session: "psycopg.Connection[tuple[object, ...]]") -> None:
        backfill = session.execute(
            f"SELECT pid FROM pg_stat_activity WHERE {IS_OUR_SESSION}"
        ).fetchall()
        row = session.execute(LONGEST_WAIT, [[pid for (pid,) in backfill]]).fetchone()
        self.longest_wait_s = max(self.longest_wait_s, float(str(row[0])) if row else 0.0)
        time.sleep(0.02)
