"""No answer is lost: two server processes, clients that disconnect, processes that are killed."""

import json
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.auth.api_tokens import create_token
from chat.models import RunningAnswer, StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI, Hang, HangAfter
from tests.support import PATIENCE_S, Server, database_url, wait_for

pytestmark = pytest.mark.django_db(transaction=True)
Start = Callable[..., Server]
EVENTS = {"Accept": "text/event-stream"}
TEXT = " ".join(f"word{number}" for number in range(50))


def chats_of(user: User, count: int = 1) -> list[int]:
    """Ids of new chats."""
    return [StandaloneChat.objects.create(user=user).pk for _ in range(count)]


def events_in(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Each event's name and data."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def read_stream(client: httpx2.Client, url: str, **request: Any) -> list[tuple[str, Any]]:
    """All events of a POST (or of a GET where ``method`` says so)."""
    method = request.pop("method", "POST")
    with client.stream(
        method, url, headers=EVENTS | request.pop("headers", {}), **request
    ) as response:
        assert response.status_code == 200, response.read()
        return list(events_in(response.iter_lines()))


def text_of(events: list[tuple[str, Any]]) -> str:
    """The deltas joined."""
    return "".join(data["text"] for name, data in events if name == "delta")


def begin_and_leave(client: httpx2.Client, url: str, *, after_events: int) -> None:
    """POST, read so many events, go away."""
    with client.stream("POST", url, headers=EVENTS, json={"content": "Hello"}) as response:
        for _ in zip(range(after_events), events_in(response.iter_lines()), strict=False):
            pass


def wait_for_statuses(expected: set[str], timeout_s: float = 15) -> None:
    """Until the assistant's messages have these statuses and no other."""
    until = time.monotonic() + timeout_s
    while True:
        statuses = set(
            StandaloneChatMessage.objects.filter(role="assistant").values_list("status", flat=True)
        )
        if statuses == expected:
            return
        assert time.monotonic() < until, statuses
        time.sleep(0.1)


def test_a_stream_sends_context_then_text_then_the_saved_answer(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer(TEXT, tokens_per_s=100)
    (chat,) = chats_of(alice)
    client = server().client(create_token(alice)[1])
    events = read_stream(client, f"/api/chats/{chat}/messages/", json={"content": "Hello"})
    assert events[0][0] == "context"
    assert events[0][1]["user_message"]["content"] == "Hello"
    assert {name for name, _ in events[1:-1]} == {"delta"}
    assert len(events) > 10, "the text came in one piece"
    assert text_of(events) == TEXT
    assert events[-1][0] == "done"
    saved = client.get(f"/api/chats/{chat}/messages/").json()["results"][1]
    assert events[-1][1]["assistant_message"] == saved
    assert saved["content"] == TEXT


@pytest.mark.parametrize("after_events", [0, 1, 10])
def test_an_answer_completes_after_its_client_disconnected(
    after_events: int, alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer(TEXT, tokens_per_s=100)
    (chat,) = chats_of(alice)
    client = server().client(create_token(alice)[1])
    begin_and_leave(client, f"/api/chats/{chat}/messages/", after_events=after_events)
    wait_for_statuses({"complete"})
    assert StandaloneChatMessage.objects.get(role="assistant").content == TEXT


def test_events_give_the_whole_text_once_from_any_process_at_any_moment(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer(TEXT, tokens_per_s=25)
    (chat,) = chats_of(alice)
    token = create_token(alice)[1]
    first, other = server(), server()
    begin_and_leave(first.client(token), f"/api/chats/{chat}/messages/", after_events=1)
    answer = other.client(token).get(f"/api/chats/{chat}/messages/").json()["results"][1]
    assert answer["status"] == "streaming"
    url = f"/api/chats/{chat}/messages/{answer['id']}/events/"

    def follow(place: tuple[Server, float]) -> list[tuple[str, Any]]:
        time.sleep(place[1])
        return read_stream(place[0].client(token), url, method="GET")

    moments = [(of, pause) for of in (first, other) for pause in (0, 0.7, 1.4, 3)]
    with ThreadPoolExecutor(len(moments)) as pool:
        for events in pool.map(follow, moments):
            assert text_of(events) == TEXT
            assert [name for name, _ in events].count("done") == 1
            assert events[-1][1]["assistant_message"]["content"] == TEXT


@pytest.mark.soak
def test_text_is_written_more_often_only_while_another_process_follows(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    """A follower gets at most 10 words at a time, of 25 a second: 0.4 s."""
    openai_server.chat.default = Answer(" ".join(["word"] * 100), tokens_per_s=25)
    (chat,) = chats_of(alice)
    token = create_token(alice)[1]
    first, other = server(), server()
    begin_and_leave(first.client(token), f"/api/chats/{chat}/messages/", after_events=1)
    assert len(set(texts_written(1.5))) <= 3
    answer = StandaloneChatMessage.objects.get(role="assistant")
    events = read_stream(
        other.client(token), f"/api/chats/{chat}/messages/{answer.pk}/events/", method="GET"
    )
    words = [data["text"].count("word") for name, data in events if name == "delta"]
    assert sum(words) == 100
    assert statistics.median(words[1:]) <= 10


def texts_written(seconds: float) -> Iterator[str]:
    """The text of the running answer, 50 times a second."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield RunningAnswer.objects.values_list("text", flat=True).get()
        time.sleep(0.02)


def test_stop_from_another_process_ends_answer_and_call_within_a_second(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = HangAfter("I was saying")
    (chat,) = chats_of(alice)
    token = create_token(alice)[1]
    first, other = server(), server()
    begin_and_leave(first.client(token), f"/api/chats/{chat}/messages/", after_events=2)
    answer = StandaloneChatMessage.objects.get(role="assistant")
    stopped_at = time.monotonic()
    stopped = other.client(token).post(f"/api/chats/{chat}/messages/{answer.pk}/stop/")
    assert time.monotonic() - stopped_at < 1.2
    assert (stopped.status_code, stopped.json()["status"]) == (200, "interrupted")
    assert stopped.json()["content"] == "I was saying"
    left_at = openai_server.wait_for(
        lambda: openai_server.chat.requests[0].client_gone_at, timeout_s=PATIENCE_S
    )
    assert left_at is not None
    assert left_at - stopped_at < 1
    again = first.client(token).post(f"/api/chats/{chat}/messages/{answer.pk}/stop/")
    assert again.json() == stopped.json()


def test_twenty_equal_posts_at_once_are_one_message_and_one_call(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("Once.", first_token_s=0.3)
    (chat,) = chats_of(alice)
    token = create_token(alice)[1]
    both = [server(), server()]

    def post(number: int) -> httpx2.Response:
        client = both[number % 2].client(token, **{"Idempotency-Key": "one"})
        return client.post(f"/api/chats/{chat}/messages/", json={"content": "Hello"})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(post, range(20)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.text for answer in answers if answer.status_code == 201}) == 1
    assert all(
        answer.json()["code"] == "in_progress" for answer in answers if answer.status_code == 409
    )
    assert StandaloneChatMessage.objects.filter(role="user").count() == 1
    assert len(openai_server.chat.requests) == 1
    replay = post(0)
    assert replay.headers["Idempotent-Replayed"] == "true"


@pytest.mark.soak
def test_all_processes_together_refuse_the_61st_message_of_a_minute(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    token = create_token(alice)[1]
    (chat,) = chats_of(alice)
    clients = [server().client(token), server().client(token)]
    answers = [
        clients[number % 2].post(
            f"/api/chats/{chat}/messages/",
            json={"content": "Hi"},
            headers={"Idempotency-Key": str(number)},
        )
        for number in range(61)
    ]
    assert [answer.status_code for answer in answers] == [201] * 60 + [429]
    assert answers[-1].json()["code"] == "throttled"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    replayed = clients[1].post(
        f"/api/chats/{chat}/messages/", json={"content": "Hi"}, headers={"Idempotency-Key": "0"}
    )
    assert replayed.status_code == 201
    assert StandaloneChatMessage.objects.filter(role="user").count() == 60


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.soak)])
def test_no_connection_is_held_during_an_answer_or_after_clients_disconnect(
    processes: str, alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer(TEXT, first_token_s=0.5, tokens_per_s=50)
    openai_server.watch_database(database_url(connection))
    chats = chats_of(alice, 50)
    settings = {"DATABASE_POOL_SIZE": "2", "WEB_CONCURRENCY": processes}
    running = server(STREAMS_PER_USER="1000", **settings)
    token = create_token(alice)[1]
    with ThreadPoolExecutor(10) as pool:

        def leave(chat: int) -> None:
            begin_and_leave(running.client(token), f"/api/chats/{chat}/messages/", after_events=1)

        list(pool.map(leave, chats))
        statuses = pool.map(
            lambda _: running.client(token).get("/api/chats/").status_code, range(50)
        )
        assert set(statuses) == {200}
    wait_for_statuses({"complete"})
    violations = openai_server.violations
    openai_server.unwatch_database()
    assert violations == []


def test_a_killed_server_loses_no_message_and_answers_can_be_retried(
    alice: User,
    server: Start,
    openai_server: FakeOpenAI,
    record_property: Callable[[str, object], None],
) -> None:
    count = 40
    openai_server.chat.default = Answer(" ".join(["word"] * 1000), tokens_per_s=25)
    chats = chats_of(alice, count)
    token = create_token(alice)[1]
    limits = {"STREAMS_PER_USER": "1000", "WEB_CONCURRENCY": "2", "DATABASE_POOL_SIZE": "20"}
    first = server(**limits)

    def stream(chat: int) -> None:
        headers = EVENTS | {"Idempotency-Key": f"key {chat}"}
        with (
            suppress(httpx2.HTTPError),
            first.client(token).stream(
                "POST", f"/api/chats/{chat}/messages/", headers=headers, json={"content": "Hello"}
            ) as response,
        ):
            for _ in response.iter_lines():
                pass

    threads = [threading.Thread(target=stream, args=[chat]) for chat in chats]
    for thread in threads:
        thread.start()
    openai_server.wait_for(lambda: len(openai_server.chat.requests) == count, timeout_s=PATIENCE_S)
    wait_for(lambda: RunningAnswer.objects.exclude(text="").count() == count)
    first.kill()
    for thread in threads:
        thread.join()
    second = server(**limits)
    wait_for_statuses({"interrupted"}, timeout_s=PATIENCE_S)
    assert StandaloneChatMessage.objects.filter(role="user").count() == count
    assert not StandaloneChatMessage.objects.filter(role="assistant", content="").exists()
    record_property("figure", f"{count} of {count} messages and beginnings of answers kept")
    openai_server.chat.default = Answer("Whole.")

    def again(chat: int) -> Any:
        client = second.client(token, **{"Idempotency-Key": f"key {chat}"})
        return client.post(f"/api/chats/{chat}/messages/", json={"content": "Hello"}).json()

    with ThreadPoolExecutor(10) as pool:
        for answer in pool.map(again, chats):
            assert answer["assistant_message"]["content"] == "Whole."
            assert answer["assistant_message"]["status"] == "complete"
    assert StandaloneChatMessage.objects.count() == 2 * count


def test_sigterm_lets_running_answers_end(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer(TEXT, tokens_per_s=25)
    (chat,) = chats_of(alice)
    running = server()
    client = running.client(create_token(alice)[1])
    with client.stream(
        "POST", f"/api/chats/{chat}/messages/", headers=EVENTS, json={"content": "Hello"}
    ) as response:
        lines = events_in(response.iter_lines())
        next(lines)
        running.signal(signal.SIGTERM)
        events = list(lines)
    assert text_of(events) == TEXT
    assert running.process.wait(PATIENCE_S) == 0
    assert StandaloneChatMessage.objects.get(role="assistant").status == "complete"


@pytest.mark.soak
def test_sigterm_saves_the_text_so_far_after_the_grace_period(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = HangAfter("So far")
    (chat,) = chats_of(alice)
    running = server(SHUTDOWN_GRACE="1")
    begin_and_leave(
        running.client(create_token(alice)[1]), f"/api/chats/{chat}/messages/", after_events=2
    )
    running.signal(signal.SIGTERM)
    assert running.process.wait(PATIENCE_S) == 0
    answer = StandaloneChatMessage.objects.get(role="assistant")
    assert (answer.status, answer.content, answer.error) == ("interrupted", "So far", "interrupted")


def test_too_many_answers_at_once_are_refused(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Hang()
    token = create_token(alice)[1]
    running = server(STREAMS_PER_USER="2")
    chats = chats_of(alice, 3)
    for chat in chats[:2]:
        begin_and_leave(running.client(token), f"/api/chats/{chat}/messages/", after_events=1)
    refused = running.client(token).post(
        f"/api/chats/{chats[2]}/messages/", json={"content": "Hello"}, headers=EVENTS
    )
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert int(refused.headers["Retry-After"]) > 0
    busy = running.client(token).post(f"/api/chats/{chats[0]}/messages/", json={"content": "Hello"})
    assert (busy.status_code, busy.json()["code"]) == (409, "in_progress")
    assert StandaloneChatMessage.objects.filter(role="user").count() == 2
