"""Two servers, a primary and a real streaming replica that is paused, stopped, killed, promoted."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest

from fake_openai import Answer, FakeOpenAI
from tests.replicated import PostgresServer, copy_to_replica, replicated_servers
from tests.support import PATIENCE_S, ROOT, Server, clean_environment, wait_for

pytestmark = pytest.mark.soak
FACT = "The spare key is in the blue teapot."
QUESTION = "Where is the spare key?"
ALONE, AGAIN = "The read replica is left alone", "The read replica is read from again"
FOREVER = "600"  # seconds: then only the user's own writes decide
SCANS = """
    SELECT coalesce(sum(idx_scan + seq_scan), 0)::bigint FROM pg_stat_user_tables
    WHERE relname = %s
"""


@dataclass
class Cluster:
    primary: PostgresServer
    replica: PostgresServer
    settings: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)

    def command(self, *arguments: str, stdin: str = "", may_fail: bool = False) -> str:
        """The output of a command of manage.py."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            input=stdin, cwd=ROOT, env=clean_environment(**self.settings), check=not may_fail,
            stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S,
        ).stdout  # fmt: skip

    def import_chat(self, user: str, chat: str, content: str) -> None:
        line = {"user": user, "conversation": chat, "role": "user", "content": content}
        line["created_at"] = "2026-01-02T03:04:05Z"
        self.command("import_messages", "--create-users", "-", stdin=json.dumps(line))

    def start(self, **settings: str) -> Server:
        self.servers.append(Server(self.settings | settings))
        return self.servers[-1]

    def scans(self, table: str) -> int:
        """How often statements have read the table on the replica."""
        return int(self.replica.run(SCANS, table)[0][0])

    def wait_for_scans(self, table: str, client: httpx2.Client, *addresses: str) -> None:
        """Repeat the requests until the replica counts statements on the table."""
        before = self.scans(table)

        def grows() -> bool:
            for address in addresses:
                client.get(address).raise_for_status()
            return self.scans(table) > before

        wait_for(grows)


@pytest.fixture(scope="module")
def servers_of_database(openai_server: FakeOpenAI) -> Iterator[Cluster]:
    openai_server.reset()
    openai_server.chat.default = Answer("I see.")
    with replicated_servers() as (primary, replica):
        settings = {
            "DATABASE_URL": primary.url,
            "DATABASE_REPLICA_URL": replica.url,
            "SECRET_KEY": "test",
            "PGOPTIONS": "",
            "LLM_BASE_URL": openai_server.base_url,
            "OPENAI_BASE_URL": openai_server.base_url,
            "OPENAI_API_KEY": "sk-test",
            "THROTTLE_MESSAGES": "off",
        }
        cluster = Cluster(primary, replica, settings)
        cluster.command("migrate")
        for user in ("alice", "bob"):
            cluster.import_chat(user, "Old", FACT)
            cluster.tokens[user] = cluster.command("create_token", user).strip()
        yield cluster
    openai_server.reset()


@pytest.fixture
def cluster(servers_of_database: Cluster) -> Iterator[Cluster]:
    yield servers_of_database
    for server in servers_of_database.servers:
        server.end()
    servers_of_database.servers.clear()


def new_chat(client: httpx2.Client, title: str = "") -> int:
    return int(client.post("/api/chats/", json={"title": title}).raise_for_status().json()["id"])


def say(client: httpx2.Client, chat: int, content: str) -> Any:
    answer = client.post(f"/api/chats/{chat}/messages/", json={"content": content})
    return answer.raise_for_status().json()


def contents(client: httpx2.Client, chat: int) -> list[str]:
    page = client.get(f"/api/chats/{chat}/messages/").raise_for_status().json()
    return [message["content"] for message in page["results"]]


def titles(client: httpx2.Client) -> list[str]:
    page = client.get("/api/chats/").raise_for_status().json()
    return [chat["title"] for chat in page["results"]]


def search(client: httpx2.Client) -> list[str]:
    answer = client.get("/api/memory/search/", params={"q": "rains", "limit": 50})
    page = answer.raise_for_status().json()
    return [memory["content"] for memory in page["results"]]


def test_lists_and_recall_run_on_the_replica(cluster: Cluster) -> None:
    client = cluster.start().client(cluster.tokens["alice"])
    chat = new_chat(client)
    say(client, chat, "Hello")
    cluster.wait_for_scans("standalone_chats", client, "/api/chats/")
    cluster.wait_for_scans("standalone_chat_messages", client, f"/api/chats/{chat}/messages/")
    cluster.wait_for_scans("message_memories", client, f"/api/memory/search/?q={QUESTION}")
    before = cluster.scans("message_memories")

    def answered_from_replica() -> bool:
        assert FACT in {memory["content"] for memory in say(client, chat, QUESTION)["context"]}
        return cluster.scans("message_memories") > before

    wait_for(answered_from_replica)


def test_a_users_own_writes_are_seen_while_replay_is_paused(cluster: Cluster) -> None:
    servers = [cluster.start(REPLICA_MAX_LAG=FOREVER) for _ in range(2)]
    first, second = (server.client(cluster.tokens["alice"]) for server in servers)
    bob = servers[1].client(cluster.tokens["bob"])
    for client in (bob, servers[0].client(cluster.tokens["bob"])):
        cluster.wait_for_scans("standalone_chats", client, "/api/chats/")
    cluster.replica.run("SELECT pg_wal_replay_pause()")
    try:
        chat = new_chat(first, "Paused")
        assert "Paused" in titles(second)
        turn = say(first, chat, "One")
        assert contents(second, chat) == ["One", "I see."]
        message = f"/api/chats/{chat}/messages/{turn['user_message']['id']}/"
        second.patch(message, json={"content": "Two"}).raise_for_status()
        assert contents(first, chat) == ["Two", "I see."]
        first.patch(f"/api/chats/{chat}/", json={"title": "Renamed"}).raise_for_status()
        assert "Renamed" in titles(second)
        second.delete(message).raise_for_status()
        assert contents(first, chat) == ["I see."]
        first.delete(f"/api/chats/{chat}/").raise_for_status()
        assert "Renamed" not in titles(second)
        cluster.import_chat("alice", "Imported", "It rains.")
        assert "Imported" in titles(second)
        assert "It rains." in search(second)
        first.request("DELETE", "/api/memory/", json={"confirm": "alice"}).raise_for_status()
        assert titles(second) == [] == search(second)
        # The replica is still read for another user.
        cluster.wait_for_scans("standalone_chats", bob, "/api/chats/")
    finally:
        cluster.replica.run("SELECT pg_wal_replay_resume()")
        cluster.import_chat("alice", "Old", FACT)


def test_the_doctor_says_how_far_the_replica_is(cluster: Cluster) -> None:
    def finding() -> str:
        lines = cluster.command("rag_doctor", may_fail=True).splitlines()
        return next(line for line in lines if "server.replica" in line)

    assert "the replica is less than 1 s behind" in finding()
    cluster.replica.signal(signal.SIGSTOP)
    try:
        assert "it cannot be reached or does not answer" in finding()
    finally:
        cluster.replica.signal(signal.SIGCONT)


def test_a_transaction_counts_only_once_its_commit_is_replayed(cluster: Cluster) -> None:
    """Later transactions are replayed meanwhile; a snapshot of a standby would not tell."""
    client = cluster.start(REPLICA_MAX_LAG=FOREVER).client(cluster.tokens["bob"])
    cluster.wait_for_scans("standalone_chats", client, "/api/chats/")
    (bob,) = cluster.primary.run("SELECT id FROM auth_user WHERE username = 'bob'")[0]
    with cluster.primary.session() as session:
        session.execute("INSERT INTO standalone_chats (user_id, title) VALUES (%s, 'Late')", [bob])
        session.execute(
            "UPDATE user_writes SET xid = pg_current_xact_id() WHERE user_id = %s", [bob]
        )
        cluster.primary.run("CREATE TABLE later ()")
        wait_for(lambda: cluster.replica.run("SELECT 1 FROM pg_class WHERE relname = 'later'"))
        cluster.replica.run("SELECT pg_wal_replay_pause()")
        session.commit()
    try:
        assert "Late" in titles(client)
    finally:
        cluster.replica.run("SELECT pg_wal_replay_resume()")
        cluster.primary.run("DROP TABLE later")


def test_a_replica_that_lags_is_left_alone_and_taken_again(cluster: Cluster) -> None:
    server = cluster.start()
    client = server.client(cluster.tokens["bob"])
    cluster.wait_for_scans("standalone_chats", client, "/api/chats/")
    cluster.replica.run("SELECT pg_wal_replay_pause()")
    try:
        cluster.primary.run("CREATE TABLE far_ahead ()")
        wait_for(lambda: titles(client) and ALONE in server.log)
    finally:
        cluster.replica.run("SELECT pg_wal_replay_resume()")
    wait_for(lambda: AGAIN in server.log)
    cluster.wait_for_scans("standalone_chats", client, "/api/chats/")
    cluster.primary.run("DROP TABLE far_ahead")
    assert server.log.count("more than REPLICA_MAX_LAG behind") == server.log.count(AGAIN)


def wait_for_lines(server: Server, beginning: str, count: int) -> None:
    wait_for(lambda: server.log.count(beginning) >= count)


def test_what_the_replica_cancels_runs_on_the_primary(cluster: Cluster) -> None:
    """As by a conflict with recovery: the connection lives, so the replica is not left alone."""
    server = cluster.start()
    client = server.client(cluster.tokens["bob"])
    cluster.wait_for_scans("message_memories", client, f"/api/memory/search/?q={QUESTION}")
    cluster.replica.run("ALTER SYSTEM SET statement_timeout = '1ms'")
    cluster.replica.run("SELECT pg_reload_conf()")
    try:

        def is_cancelled() -> bool:
            answer = client.get("/api/memory/search/", params={"q": QUESTION})
            assert FACT in {row["content"] for row in answer.raise_for_status().json()["results"]}
            return "canceling statement due to statement timeout" in cluster.replica.log

        wait_for(is_cancelled)
    finally:
        cluster.replica.run("ALTER SYSTEM RESET statement_timeout")
        cluster.replica.run("SELECT pg_reload_conf()")
    assert ALONE not in server.log


class Load:
    """Requests of all kinds until ``stop``; ``failures`` are the answers of 500 and above."""

    def __init__(self, server: Server, token: str) -> None:
        self.failures: list[str] = []
        self.done = 0
        self._client = server.client(token)
        self._chat = new_chat(self._client)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            say(self._client, self._chat, f"{QUESTION} {self.done}")
            for address in (
                "/api/chats/", f"/api/chats/{self._chat}/messages/?newest=1",
                f"/api/memory/search/?q={QUESTION}", "/readyz",
            ):  # fmt: skip
                answer = self._client.get(address)
                if answer.status_code >= 400:
                    self.failures.append(f"{address}: {answer.text}")
            self.done += 1

    def wait_for_more(self) -> None:
        """Wait for some more rounds."""
        enough = self.done + 5
        wait_for(lambda: self.done >= enough or not self._thread.is_alive())

    def stop(self) -> None:
        assert self._thread.is_alive(), "a turn failed"
        self._ended.set()
        self._thread.join(PATIENCE_S)


def test_no_request_fails_while_the_replica_hangs_dies_and_returns(cluster: Cluster) -> None:
    server = cluster.start()
    load = Load(server, cluster.tokens["bob"])
    load.wait_for_more()
    replica = cluster.replica
    faults: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "hangs": (partial(replica.signal, signal.SIGSTOP), partial(replica.signal, signal.SIGCONT)),
        "is killed": (replica.kill, replica.start),
        "restarts": (replica.stop, replica.start),
    }
    for stop, restart in faults.values():
        outages = server.log.count(ALONE)
        stop()
        wait_for_lines(server, ALONE, outages + 1)
        load.wait_for_more()
        restart()
        wait_for_lines(server, AGAIN, outages + 1)
        load.wait_for_more()
    load.stop()
    assert load.failures == []
    assert "Error retrieving relevant context" not in server.log, server.log
    client = server.client(cluster.tokens["bob"])
    cluster.wait_for_scans("standalone_chats", client, "/api/chats/")


def test_a_promoted_replica_is_left_alone_until_it_is_made_anew(cluster: Cluster) -> None:
    server = cluster.start()
    client = server.client(cluster.tokens["bob"])
    cluster.wait_for_scans("standalone_chats", client, "/api/chats/")
    cluster.replica.run("SELECT pg_promote()")
    wait_for(lambda: titles(client) and ALONE in server.log)
    assert "it is no standby" in server.log
    cluster.replica.run("UPDATE standalone_chats SET title = 'Elsewhere'")
    assert "Elsewhere" not in titles(client)
    cluster.replica.kill()
    copy_to_replica(cluster.primary, cluster.replica)
    cluster.replica.start()
    wait_for(lambda: AGAIN in server.log)
    cluster.wait_for_scans("standalone_chats", client, "/api/chats/")


def test_without_the_primary_requests_are_503(cluster: Cluster) -> None:
    server = cluster.start()
    client = server.client(cluster.tokens["bob"])
    cluster.wait_for_scans("standalone_chats", client, "/api/chats/")
    cluster.primary.stop()
    try:
        for address in ("/api/chats/", f"/api/memory/search/?q={QUESTION}"):
            answer = client.get(address)
            assert answer.status_code == 503
            assert answer.json()["code"] == "database_unavailable"
    finally:
        cluster.primary.start()
    wait_for(lambda: client.get("/api/chats/").status_code == 200)
