"""Real servers: what Prometheus and a receiver of traces get of several processes."""

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from django.contrib.auth.models import User
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from chat.auth.api_tokens import create_token
from fake_openai import Answer, FakeOpenAI, Hang, Refuse
from tests.otlp_receiver import Receiver
from tests.support import PATIENCE_S, Server, free_port
from verse.tests.metrics_support import BEARER, TOKEN, Samples, parse

pytestmark = [
    pytest.mark.django_db(transaction=True), pytest.mark.newest_schema, pytest.mark.soak
]  # fmt: skip
StartServer = Callable[..., Server]
KEY = "sk-canary-7d2e"
CANARIES = ("Zyxwv", "alice", KEY, TOKEN, "verse_q")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def shared_memory(tmp_path: Path) -> Path:
    """Where the servers of a test create their folders."""
    folder = tmp_path / "shm"
    folder.mkdir()
    return folder


@pytest.fixture
def start(server: StartServer, openai_server: FakeOpenAI, shared_memory: Path) -> StartServer:
    """Starts servers with metrics and memory."""

    def start_server(**environment: str) -> Server:
        usual = {
            "METRICS_TOKEN": TOKEN,
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": openai_server.base_url,
            "GUNICORN_CMD_ARGS": f"--worker-tmp-dir {shared_memory} --access-logfile -",
        }
        return server(**(usual | environment))

    return start_server


def scrape(running: Server) -> Samples:
    """By a new connection, so by any worker."""
    headers = {"Authorization": BEARER}
    with httpx2.Client(base_url=running.url, headers=headers, trust_env=False) as client:
        response = client.get("/metrics", timeout=PATIENCE_S)
    assert response.status_code == 200, response.text
    return parse(response.text)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def say(client: httpx2.Client, content: str, **headers: str) -> int:
    """A turn in a new chat; the status of its response."""
    chat = client.post("/api/chats/", json={"title": "Zyxwv"}).json()["id"]
    body = {"content": content}
    return client.post(f"/api/chats/{chat}/messages/", json=body, headers=headers).status_code


def stop(running: Server) -> None:
    """SIGTERM, without connections for which the server would wait."""
    running.close_clients()
    running.signal(signal.SIGTERM)
    running.process.wait(PATIENCE_S)


def workers(running: Server) -> list[int]:
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def test_counters_outlive_a_killed_process_and_gauges_do_not(
    start: StartServer, alice: User, openai_server: FakeOpenAI, shared_memory: Path
) -> None:
    openai_server.chat.default = Answer("I see.")
    running = start(WEB_CONCURRENCY="2")
    _, token = create_token(alice)
    clients = [running.client(token) for _ in range(8)]
    for client in clients:
        assert say(client, "I keep a lizard called Zyxwv") == 201
    for _ in range(6):
        samples = scrape(running)
        assert samples["verse_turns_total outcome=complete"] == 8
        assert samples["verse_first_token_seconds_count"] == 8
    openai_server.chat.default = Hang()
    chat = clients[0].post("/api/chats/", json={}).json()["id"]
    with suppress(httpx2.HTTPError), clients[0].stream(
        "POST", f"/api/chats/{chat}/messages/", json={"content": "Zyxwv?"},
        headers={"Accept": "text/event-stream"},
    ):  # fmt: skip
        wait_until(lambda: scrape(running)["verse_running_answers"] == 1)
        for pid in workers(running):
            os.kill(pid, signal.SIGKILL)
        running.wait_until_ready(4)  # two workers took their places
    samples = scrape(running)
    assert samples["verse_running_answers"] == 0
    assert samples["verse_turns_total outcome=complete"] == 8
    wait_until(lambda: scrape(running)["verse_turns_total outcome=interrupted"] == 1)
    openai_server.chat.default = Answer("I see.")
    assert say(running.client(token), "And a snake") == 201
    assert scrape(running)["verse_turns_total outcome=complete"] == 9
    (folder,) = shared_memory.glob("verse-metrics-*")
    stop(running)
    assert not folder.exists()


def test_the_folder_of_a_killed_server_is_removed_by_the_next(
    start: StartServer, shared_memory: Path
) -> None:
    killed = start()
    other = start()
    assert len(list(shared_memory.glob("verse-metrics-*"))) == 2
    killed.kill()
    assert len(list(shared_memory.glob("verse-metrics-*"))) == 2
    start()
    assert len(list(shared_memory.glob("verse-metrics-*"))) == 2
    assert scrape(other)["verse_running_answers"] == 0


def test_without_settings_nothing_is_loaded_or_written(
    start: StartServer, shared_memory: Path
) -> None:
    running = start(METRICS_TOKEN="")
    assert running.client().get("/metrics").status_code == 404
    assert list(shared_memory.glob("verse-metrics-*")) == []
    for pid in workers(running):
        loaded = Path(f"/proc/{pid}/maps").read_text()
        assert "uvloop" in loaded  # a compiled module is seen so, as is
        assert "google/_upb" not in loaded  # protobuf's, of the exporter of traces


def test_a_turn_is_one_trace_from_request_to_model(
    start: StartServer, alice: User, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("Zyxwv is a lizard.")
    with Receiver() as receiver:
        running = start(
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_BSP_SCHEDULE_DELAY="100",
            LOG_FORMAT="json", HTTP_PROXY=f"http://127.0.0.1:{free_port()}",
        )  # fmt: skip
        client = running.client(create_token(alice)[1], traceparent=TRACEPARENT)
        client.headers["baggage"] = "note=Zyxwv"
        assert say(client, "I keep a lizard called Zyxwv") == 201
        assert say(client, "Zyxwv eats crickets", accept="text/event-stream") == 200
        client.get("/api/memory/search/", params={"q": "Zyxwv", "verse_q": "1"})
        client.get("/no-such-page/", params={"verse_q": "1"})
        openai_server.chat.default = Refuse(500, message="Zyxwv")
        assert say(client, "What is Zyxwv?") == 502
        wanted = {"turn", "turn.embedding", "turn.recall", "turn.model", "turn.answer_embedding",
                  "POST api/chats/<int:conversation_id>/messages/"}  # fmt: skip
        spans = receiver.wait_for(lambda spans: wanted <= {span.name for span in spans})
        wait_until(lambda: sum(span.name == "turn" for span in receiver.spans) == 3)
        stop(running)
        spans = receiver.spans
    assert set(receiver.paths) == {"/v1/traces"}
    assert {span.trace_id.hex() for span in spans} == {TRACEPARENT[3:35]}
    by_id = {span.span_id: span for span in spans}
    for turn in (span for span in spans if span.name == "turn"):
        assert by_id[turn.parent_span_id].kind == Span.SPAN_KIND_SERVER
    model = next(span for span in spans if span.name == "turn.model")
    called = [span for span in spans if span.parent_span_id == model.span_id]
    assert "POST" in {span.name for span in called}  # the request to the model's server
    statements = [s for s in spans if any(a.key == "db.system" for a in s.attributes)]
    assert len(statements) > 10
    assert all(span.parent_span_id for span in statements)
    sent = [request.headers for request in openai_server.requests]
    assert all(headers["traceparent"].startswith(TRACEPARENT[:35]) for headers in sent)
    assert not any("baggage" in headers for headers in sent)
    received = b"".join(receiver.bodies)
    assert [canary for canary in CANARIES if canary.encode() in received] == []
    assert [canary for canary in CANARIES if canary in running.log] == []
    assert '"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"' in running.log


@pytest.mark.parametrize("is_listening", [False, True], ids=["away", "hanging"])
def test_a_receiver_that_is_away_is_one_line_and_slows_nothing(
    start: StartServer, alice: User, openai_server: FakeOpenAI, is_listening: bool
) -> None:
    receiver = socket.create_server(("127.0.0.1", 0))  # accepts nothing, so it never answers
    port = receiver.getsockname()[1]
    if not is_listening:
        receiver.close()
    openai_server.chat.default = Answer("I see.")
    running = start(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_SCHEDULE_DELAY="50",
    )
    client = running.client(create_token(alice)[1])
    for _ in range(5):
        assert say(client, "I keep a lizard") == 201
    wait_until(lambda: "Traces cannot be sent" in running.log)
    for _ in range(5):
        assert say(client, "I keep a lizard") == 201
    stop(running)
    assert running.log.count("Traces cannot be sent") == 1
    assert running.log.lower().count("trace") == 1
    receiver.close()
