"""Servers behind a real PgBouncer in transaction mode, which is restarted, as is the database."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import httpx2
import pytest

from fake_openai import Answer, FakeOpenAI
from fake_openai.behaviours import Trickle
from retrieval.steps import MAX_THREADS
from tests.pgbouncer import SERVER_SESSIONS, PgBouncer
from tests.replicated import PostgresServer, postgres_server
from tests.support import PATIENCE_S, ROOT, Server, clean_environment, wait_for

pytestmark = pytest.mark.soak
FACT = "The spare key is in the blue teapot."
QUESTION = "Where is the spare key?"
SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name LIKE 'verse %'
"""


@dataclass
class Site:
    """Two servers that reach the database through PgBouncer alone."""

    database: PostgresServer
    pooler: PgBouncer
    servers: list[Server]
    token: str

    def clients(self) -> list[httpx2.Client]:
        return [server.client(self.token) for server in self.servers]


@pytest.fixture(scope="module")
def site(openai_server: FakeOpenAI) -> Iterator[Site]:
    openai_server.reset()
    openai_server.chat.default = Answer("I see.")
    with postgres_server() as database:
        pooler = PgBouncer(database)
        settings = {
            "DATABASE_URL": pooler.url,
            "DATABASE_DIRECT_URL": database.url,
            "SECRET_KEY": "test",
            "PGOPTIONS": "",  # a start-up parameter, which PgBouncer refuses
            "LLM_BASE_URL": openai_server.base_url,
            "OPENAI_BASE_URL": openai_server.base_url,
            "OPENAI_API_KEY": "sk-test",
            "THROTTLE_MESSAGES": "off",
        }

        def command(*arguments: str, stdin: str = "") -> str:
            return subprocess.run(
                [sys.executable, "manage.py", *arguments],
                input=stdin, cwd=ROOT, env=clean_environment(**settings), check=True,
                stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S,
            ).stdout  # fmt: skip

        command("migrate")
        line = '{"user": "alice", "conversation": "Old", "role": "user", "content": "Hello", '
        line += '"created_at": "2026-01-02T03:04:05Z"}'
        command("import_messages", "--create-users", "-", stdin=line)
        token = command("create_token", "alice").strip()
        servers = [Server(dict(settings)) for _ in range(2)]
        yield Site(database, pooler, servers, token)
        for server in servers:
            server.end()
        pooler.stop()
    openai_server.reset()


def new_chat(client: httpx2.Client) -> int:
    return int(client.post("/api/chats/", json={}).raise_for_status().json()["id"])


def post(client: httpx2.Client, chat: int, content: str, key: str) -> httpx2.Response:
    headers = {"Idempotency-Key": key}
    return client.post(f"/api/chats/{chat}/messages/", json={"content": content}, headers=headers)


@dataclass
class Load:
    """A client that posts without a pause, and repeats each request with its key until it is 201.

    ``answers``: status and code of each answer; ``questions``: what was accepted, in order.
    """

    client: httpx2.Client
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    questions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chat = new_chat(self.client)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            question = f"{QUESTION} {len(self.questions)}"
            wait_for(partial(self._is_accepted, question))
            self.questions.append(question)

    def _is_accepted(self, question: str) -> bool:
        answer = post(self.client, self.chat, question, question)
        self.answers[answer.status_code, answer.json().get("code", "")] += 1
        return answer.status_code == 201

    def wait_for(self, count: int, status: int, code: str = "") -> None:
        """Wait for so many answers of this status and code since the start."""
        answer = (status, code)
        wait_for(lambda: self.answers[answer] >= count or not self._thread.is_alive())

    def wait_for_more(self) -> None:
        self.wait_for(self.answers[201, ""] + 5, 201)

    def stop(self) -> None:
        assert self._thread.is_alive(), self.answers
        self._ended.set()
        self._thread.join(PATIENCE_S)


def test_turns_recall_and_lists_work_in_two_processes(site: Site) -> None:
    first, second = site.clients()
    chat = new_chat(first)
    post(first, chat, FACT, "fact").raise_for_status()
    chats = [new_chat(client) for client in (first, second) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda client=client, chat=chat: [
            post(client, chat, f"{QUESTION} {number}", f"many {chat} {number}").raise_for_status()
            for number in range(8)
        ])
        for client, chat in zip((first, first, second, second), chats, strict=True)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    for chat in chats:
        page = second.get(f"/api/chats/{chat}/messages/").raise_for_status().json()
        assert [row["status"] for row in page["results"][1::2]] == ["complete"] * 8
    turn = post(second, new_chat(second), "teapot", "teapot").raise_for_status().json()
    assert FACT in {memory["content"] for memory in turn["context"]}
    page = second.get("/api/memory/search/", params={"q": QUESTION, "limit": 50}).json()
    assert page["mode"] == "hybrid"
    assert FACT in {memory["content"] for memory in page["results"]}
    assert site.database.run(SESSIONS)[0][0] <= SERVER_SESSIONS
    assert "unsupported startup parameter" not in site.pooler.log
    assert all("prepared statement" not in server.log for server in site.servers)


@pytest.mark.parametrize("part", ["pooler", "database"])
def test_the_same_key_succeeds_after_a_restart_under_load(part: str, site: Site) -> None:
    restarted: PgBouncer | PostgresServer = getattr(site, part)
    loads = [Load(client) for client in site.clients()]
    for load in loads:
        load.wait_for_more()
    restarted.stop()
    for load in loads:
        load.wait_for(2, 503, "database_unavailable")
    restarted.start()
    for load in loads:
        load.wait_for_more()
        load.stop()
    # A turn that had begun is in progress until its process, or another, has ended its answer.
    allowed = {(201, ""), (503, "database_unavailable"), (409, "in_progress")}
    for load in loads:
        assert load.answers.keys() <= allowed, load.answers
        page = load.client.get(f"/api/chats/{load.chat}/messages/?page_size=100&newest=1").json()
        questions = [row["content"] for row in page["results"] if row["role"] == "user"]
        assert questions == load.questions[-len(questions) :]


@pytest.mark.parametrize("part", ["pooler", "database"])
def test_a_key_succeeds_after_an_outage_in_mid_turn(
    part: str, site: Site, openai_server: FakeOpenAI
) -> None:
    restarted: PgBouncer | PostgresServer = getattr(site, part)
    (client, _), question = site.clients(), f"Which way? {part}"
    chat = new_chat(client)
    openai_server.chat.script(Trickle("Slow.", every_s=0.01))
    answers: list[httpx2.Response] = []
    turn = threading.Thread(target=lambda: answers.append(post(client, chat, question, "k")))
    turn.start()
    openai_server.wait_for(lambda: question in str(openai_server.requests[-1].body))
    restarted.stop()
    turn.join(PATIENCE_S)
    restarted.start()
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "database_unavailable")
    wait_for(lambda: post(client, chat, question, "k").status_code == 201)
    page = client.get(f"/api/chats/{chat}/messages/").json()
    assert [row["content"] for row in page["results"] if row["role"] == "user"] == [question]
    assert [row["status"] for row in page["results"]][1:] in (["complete"], ["interrupted"])


def test_probes_of_a_hanging_database_take_no_thread_each(site: Site) -> None:
    """More probes than a process has threads; the requests after them are answered."""
    (client, _) = site.clients()
    site.database.signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(8) as probes:
            answers = list(probes.map(lambda _: client.get("/readyz"), range(MAX_THREADS + 8)))
    finally:
        site.database.signal(signal.SIGCONT)
    assert {answer.status_code for answer in answers} == {503}
    assert answers[0].json()["failing"].keys() == {"database"}
    wait_for(lambda: client.get("/readyz").status_code == 200)
    assert client.get("/api/chats/").status_code == 200
