"""From one embedding model to another and back under traffic: vectors of two models never meet."""

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import httpx2
import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import FakeOpenAI, Refuse
from fake_openai.embeddings import EmbeddingsJson
from fake_openai.exchange import Exchange
from fake_openai.shapes import JSON, Shape
from fake_openai.vectors import vector_of
from retrieval import current_model, runtime, storage
from retrieval.backfill import backfill, pending
from retrieval.backfill.fill_words import Fill
from retrieval.embeddings import bundled_models, get_embedding
from tests.support import PATIENCE_S, ROOT, Server, clean_environment, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
SMALL, LARGE = "text-embedding-3-small", "text-embedding-3-large"
FACT = "My dog is called Biscuit and he loves cheese."
DECOY = "Ferries towards Aegina leave around noon."
MISMATCH = "the stored vectors come from the model"
QUESTION = "What is my dog Biscuit called?"
SOURCE = StandaloneChatMessage.memory_table
LABELS = """
    SELECT m.content, e.name
    FROM standalone_chat_messages m JOIN message_memories p ON p.id = m.id * 2
    LEFT JOIN embedding_models e ON e.id = p.model ORDER BY m.id
"""
# The local model's vectors are zero from the 897th number; the fake's are not.
MIXED_UP = """
    SELECT count(*) FROM standalone_chat_messages m JOIN message_memories p ON p.id = m.id * 2
    JOIN embedding_models e ON e.id = p.model
    WHERE (vector_norm(subvector(m.embedding, 897, 640)) = 0) IS DISTINCT FROM (e.name = %s)
"""
STORED = """
    SELECT count(*) FROM message_memories p JOIN embedding_models e ON e.id = p.model
    WHERE e.name = %s
"""


def query(sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """The statement's rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        return list(cursor.fetchall()) if cursor.description else []


def run(*arguments: str) -> str:
    """The output of a command in this process."""
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


@pytest.fixture
def remembered(alice: User, remembering: FakeOpenAI) -> StandaloneChatMessage:
    """Alice's message with a vector of the small model."""
    chat = StandaloneChat.objects.create(user=alice)
    message: StandaloneChatMessage = StandaloneChatMessage.objects.create(
        conversation=chat, user=alice, role="user", content=FACT
    )
    backfill(batch_size=10)
    return message


def configure(settings: Settings, model: str) -> None:
    """Configure this process for another model."""
    settings.EMBEDDING_MODEL = model
    runtime.reset()


def test_it_shows_the_models_and_how_many_rows_each_has(
    remembered: StandaloneChatMessage, settings: Settings
) -> None:
    assert run("rag_model") == f"{SMALL}: 1 messages, current\nwithout a vector: 0 messages\n"
    configure(settings, LARGE)
    assert f"The settings name {LARGE}. To switch to it: manage.py rag_model use" in run(
        "rag_model"
    )
    assert json.loads(run("rag_model", "--json")) == {
        "current": SMALL,
        "configured": LARGE,
        "models": [{"name": SMALL, "current": True, "rows": 1}],
        "without": 0,
    }


def test_before_the_first_vector_there_is_no_model(remembering: FakeOpenAI) -> None:
    assert "No vectors yet" in run("rag_model")
    assert json.loads(run("rag_model", "--json"))["current"] is None


def test_a_switch_is_estimated_confirmed_and_paid_by_the_backfill(
    remembered: StandaloneChatMessage, settings: Settings, remembering: FakeOpenAI
) -> None:
    configure(settings, LARGE)
    with pytest.raises(
        CommandError, match=f"{SMALL}, the settings name {LARGE}.*rag_model use.*EMBEDDING_MODEL="
    ):
        run("backfill_embeddings", "--sleep", "0")
    with pytest.raises(
        CommandError, match="not switched: without a terminal to ask on, --yes is needed"
    ):
        run("rag_model", "use")
    with pytest.raises(CommandError, match="is over --max-cost 0"):
        run("rag_model", "use", "--yes", "--max-cost", "0")
    assert current_model.current_model() == SMALL
    output = run("rag_model", "use", "--yes", "--max-cost", "1")
    assert output.startswith(
        f"From {SMALL} to {LARGE}\nMessages to embed again: 1\n"
        "Estimated tokens: 100\nEstimated cost: $0.00\n"
    )
    assert query(LABELS) == [(FACT, SMALL)]
    run("backfill_embeddings", "--sleep", "0")
    assert query(LABELS) == [(FACT, LARGE)]
    assert "already: nothing to switch" in run("rag_model", "use")


def test_the_way_back_pays_only_for_messages_embedded_since(
    remembered: StandaloneChatMessage, settings: Settings, remembering: FakeOpenAI
) -> None:
    configure(settings, LARGE)
    run("rag_model", "use", "--yes")
    configure(settings, SMALL)
    back = json.loads(run("rag_model", "use", "--yes", "--json"))
    assert back == {
        "switched": True,
        "taken_up_again": 0,
        "from": LARGE,
        "to": SMALL,
        "messages": 0,
        "tokens": 0,
        "cost_usd": 0.0,
    }
    assert pending.count(SOURCE, model=None).embedded == 1


def test_a_model_that_does_not_answer_is_refused(
    remembered: StandaloneChatMessage, settings: Settings, remembering: FakeOpenAI
) -> None:
    configure(settings, "text-embedding-3-smal")
    remembering.embeddings.default = Refuse(404, "model_not_found", "The model does not exist.")
    with pytest.raises(CommandError, match="model_not_found"):
        run("rag_model", "use", "--yes")
    assert current_model.current_model() == SMALL


def test_without_a_model_there_is_nothing_to_switch_to(
    settings: Settings, remembering: FakeOpenAI
) -> None:
    settings.EMBEDDINGS = "none"
    with pytest.raises(CommandError, match="no embedding model is configured: set OPENAI_API_KEY"):
        run("rag_model", "use", "--yes")


def test_messages_that_the_old_model_refused_are_retried(
    remembered: StandaloneChatMessage, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "RETRY_BATCH_ROWS", 2)
    for number in range(5):
        StandaloneChatMessage.objects.create(
            conversation=remembered.conversation,
            user=remembered.user,
            role="user",
            content=f"Said {number}",
        )
    query("UPDATE message_memories SET embedding_error = 'refused' WHERE model IS NULL")
    configure(settings, LARGE)
    result = json.loads(run("rag_model", "use", "--yes", "--json"))
    assert (result["messages"], result["taken_up_again"]) == (6, 5)
    assert pending.count(SOURCE, model=None).pending == 6


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_on_a_terminal_it_asks_before_switching(
    answer: str, code: int, remembered: StandaloneChatMessage, server: Any
) -> None:
    fake = FakeOpenAI()
    with fake:
        ours, theirs = pty.openpty()
        command = subprocess.Popen(
            [sys.executable, "manage.py", "rag_model", "use"], cwd=ROOT, stdin=theirs, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment(fake) | {"EMBEDDING_MODEL": LARGE},
        )  # fmt: skip
        os.write(ours, f"{answer}\n".encode())
        out, err = command.communicate(timeout=PATIENCE_S)
        os.close(ours)
        os.close(theirs)
    assert command.returncode == code, err
    assert "Estimated cost: $0.00" in out
    assert "Switch? [y/N] " in err
    assert current_model.current_model() == (SMALL if code else LARGE)


WRITES = {
    "its time": "UPDATE standalone_chat_messages SET created_at = created_at - interval '1 day'",
    "its role": "UPDATE standalone_chat_messages SET role = 'assistant'",
    "the same text": "UPDATE standalone_chat_messages SET content = content, status = 'complete'",
}


@pytest.mark.parametrize("what", WRITES)
def test_a_vector_keeps_its_model_when_other_columns_change(
    what: str, remembered: StandaloneChatMessage
) -> None:
    current_model.switch(LARGE)
    query(WRITES[what])
    assert query(LABELS) == [(FACT, SMALL)]
    assert query("SELECT bits IS NULL FROM message_memories") == [(False,)]


def test_a_vector_of_an_unknown_model_counts_as_none(
    remembered: StandaloneChatMessage,
) -> None:
    query("DELETE FROM message_memories")
    backfill(batch_size=10)
    assert query(LABELS) == [(FACT, SMALL)]  # there has been no other
    current_model.switch(LARGE)
    query("DELETE FROM message_memories")
    assert sum(Fill(SOURCE)) == 1
    assert query(LABELS) == [(FACT, None)]


def test_an_equal_text_gets_no_vector_of_another_model(remembered: StandaloneChatMessage) -> None:
    user = remembered.user_id
    assert storage.known(user, FACT, model=SMALL) is not None
    current_model.switch(LARGE)
    assert storage.known(user, FACT, model=SMALL) is None
    assert storage.known(user, FACT, model=LARGE) is None


@contextmanager
def locked(pk: int) -> Iterator[psycopg.Connection[Any]]:
    """Another session locks the row."""
    with psycopg.connect(database_url(connection)) as other:
        other.execute("SELECT FROM standalone_chat_messages WHERE id = %s FOR UPDATE", [pk])
        yield other


def waits_for_lock(like: str) -> bool:
    """Whether a session with such a statement waits for a lock."""
    waiting = """
        SELECT 1 FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND query LIKE %s AND datname = current_database()
    """
    return bool(query(waiting, like))


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def in_thread(work: Callable[[], Any]) -> Any:
    """The result of ``work``; closes the thread's connection."""
    try:
        return work()
    finally:
        connection.close()


@pytest.mark.parametrize("many", [False, True])
def test_a_vector_stored_during_the_switch_keeps_its_model(
    many: bool, remembered: StandaloneChatMessage
) -> None:
    query("UPDATE standalone_chat_messages SET embedding = NULL")
    vector = get_embedding(FACT)
    row = (remembered.pk, FACT, vector)

    def store() -> bool:
        if many:
            return bool(storage.store_all(SOURCE, [row], model=SMALL))
        return storage.store(SOURCE, *row, model=SMALL)

    with ThreadPoolExecutor(2) as threads, locked(remembered.pk) as other:
        storing = threads.submit(in_thread, store)
        # It has seen that its model is the current one, and waits for the row.
        wait_until(lambda: waits_for_lock("%SET embedding%"))
        switching = threads.submit(in_thread, lambda: current_model.switch(LARGE))
        wait_until(lambda: switching.done() or waits_for_lock("%LOCK TABLE%"))
        other.rollback()
        stored = storing.result(20)
        switching.result(20)
    assert (
        stored or many
    )  # a batch retries row by row, and the switch may come before that: then it is refused
    assert current_model.current_model() == LARGE
    label = SMALL if stored else None
    assert query(LABELS) == [(FACT, label)]
    assert not store()  # from now on it is refused
    assert query(LABELS) == [(FACT, label)]


def environment(fake: FakeOpenAI, **values: str) -> dict[str, str]:
    """For commands and servers that use the fake for embeddings."""
    return clean_environment(
        DATABASE_URL=database_url(connection), SECRET_KEY="test", LLM_BASE_URL=fake.base_url,
        OPENAI_BASE_URL=fake.base_url, OPENAI_API_KEY="sk-test-0123456789", THROTTLE_MESSAGES="off",
    ) | values  # fmt: skip


def manage(values: dict[str, str], *arguments: str) -> str:
    """The output of a command in a process of its own, which succeeds."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env=values, text=True, timeout=120,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Given:
    """Real vectors, except for the question, which gets this one."""

    vector: list[float]

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        assert isinstance(shape, EmbeddingsJson)
        texts = exchange.request.texts
        vectors = [self.vector if QUESTION in text else vector_of(text, 1536) for text in texts]
        items = [shape.item(at, vector) for at, vector in enumerate(vectors)]
        await exchange.send_whole(shape.body(items), content_type=JSON)


@dataclass
class Traffic:
    """Users who chat through the servers until ``stop``; the status of each turn."""

    statuses: list[int] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def through(self, clients: list[httpx2.Client]) -> Iterator[None]:
        """One person a client."""
        with ThreadPoolExecutor(len(clients)) as people:
            chatting = [
                people.submit(self._chat, client, name) for name, client in enumerate(clients)
            ]
            try:
                yield
            finally:
                self.stop.set()
        for chat in chatting:
            chat.result()

    def _chat(self, client: httpx2.Client, name: int) -> None:
        address = f"/api/chats/{client.post('/api/chats/', json={}).json()['id']}/messages/"
        number = 0
        while not self.stop.is_set():
            number += 1
            message = {"content": f"Person {name} planted apple tree number {number} by the river"}
            self.statuses.append(client.post(address, json=message).status_code)
            self.stop.wait(0.2)

    def more(self, turns: int, seconds: float = 60) -> None:
        """Wait for so many more turns."""
        enough, until = len(self.statuses) + turns, time.monotonic() + seconds
        while len(self.statuses) < enough:
            assert time.monotonic() < until, self.statuses
            time.sleep(0.05)


def notices(server: Server, client: httpx2.Client, *, times: int = 1, seconds: float = 30) -> None:
    """Search until the server has logged the mismatch so many times: it looks every 15 s."""
    until = time.monotonic() + seconds
    while server.log.count(MISMATCH) < times and time.monotonic() < until:
        searched(client)
        time.sleep(0.2)


def searched(client: httpx2.Client) -> tuple[str, list[str]]:
    """The mode and the contents of a search for the question."""
    answer = client.get("/api/memory/search/", params={"q": QUESTION, "limit": 20}).json()
    return answer["mode"], [memory["content"] for memory in answer["results"]]


def say(client: httpx2.Client, content: str) -> None:
    """Send a message in a new chat."""
    chat = client.post("/api/chats/", json={}).json()["id"]
    assert client.post(f"/api/chats/{chat}/messages/", json={"content": content}).status_code == 201


def settled(model: str) -> None:
    """Wait until background work stores nothing more."""
    before = -1
    while before != (before := query(STORED, model)[0][0]):
        time.sleep(1)


@pytest.mark.soak
def test_from_local_to_a_service_and_back_under_traffic(
    server: Callable[..., Server], openai_server: FakeOpenAI, alice: User, bob: User
) -> None:
    fake = openai_server
    usual = {
        "OPENAI_BASE_URL": fake.base_url,
        "OPENAI_API_KEY": "sk-test-0123456789",
        "THROTTLE_MESSAGES": "off",
    }
    local, service = server(**usual, EMBEDDINGS="local"), server(**usual)
    environments = {"local": environment(fake, EMBEDDINGS="local"), "service": environment(fake)}
    by_local, by_service = (running.client(create_token(alice)[1]) for running in (local, service))
    for content in (FACT, DECOY):
        say(by_local, content)
    settled(bundled_models.DEFAULT)
    # Compared with the local model's vectors, the question would equal the decoy.
    fake.embeddings.default = Given(
        [float(running) for running in bundled_models.embed([DECOY], bundled_models.DEFAULT)[0]]
    )
    traffic = Traffic()
    with traffic.through(
        [running.client(create_token(bob)[1]) for running in (local, service, local, service)]
    ):
        traffic.more(8)
        mode, contents = searched(by_service)
        assert (mode, FACT in contents, DECOY in contents) == ("lexical", True, False)

        output = manage(environments["service"], "rag_model", "use", "--yes")
        assert f"Switched to {SMALL}" in output
        by_old_model = query(STORED, bundled_models.DEFAULT)[0][0]
        mode, contents = searched(by_service)
        assert (FACT in contents, DECOY in contents) == (True, False), mode
        say(by_service, "A new thing, embedded at once.")
        traffic.more(8)
        assert ("A new thing, embedded at once.", SMALL) in query(LABELS)
        notices(local, by_local)
        mode, contents = searched(by_local)
        assert (mode, FACT in contents) == ("lexical", True)
        assert (
            query(STORED, bundled_models.DEFAULT)[0][0] == by_old_model
        )  # the other server stores no more
        assert query(MIXED_UP, bundled_models.DEFAULT) == [(0,)]
        manage(environments["service"], "backfill_embeddings", "--sleep", "0")
        assert searched(by_service)[0] == "hybrid"

        manage(environments["local"], "rag_model", "use", "--yes")
        mode, contents = searched(by_local)
        assert FACT in contents
        assert searched(by_service)[0] == "lexical"
        traffic.more(8)
        assert query(MIXED_UP, bundled_models.DEFAULT) == [(0,)]
        manage(environments["local"], "backfill_embeddings", "--sleep", "0")
        mode, contents = searched(by_local)
        assert (mode, FACT in contents) == ("hybrid", True)
        notices(service, by_service, times=2)
    assert set(traffic.statuses) == {201}
    assert (local.log.count(MISMATCH), service.log.count(MISMATCH)) == (
        1,
        2,
    )  # once a switch away from what it is set to


def test_the_vectors_of_the_two_models_differ_in_form() -> None:
    """The test above can see a mix-up: only the local model's vectors end in zeros."""
    assert not any(bundled_models.embed([FACT], bundled_models.DEFAULT)[0][896:])
    assert any(vector_of(FACT, 1536)[896:])
