"""GET /metrics of one process: who may read it, and what turns, failures and rows change in it."""

import logging
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from prometheus_client.openmetrics import parser as openmetrics
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.answers import heartbeat, turns
from chat.memory.embed import finish_embedding_jobs
from chat.models import StandaloneChat
from chat.tests.support import Api
from fake_openai import Answer, FakeOpenAI, Hang, Refuse
from retrieval import log_counts
from retrieval.telemetry import exposition, metrics
from tests.support import PATIENCE_S
from verse.tests.metrics_support import TOKEN, ask, counted, parse, scrape, scrape_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
CANARIES = ("alice", "Zyxwv", "sk-test-0123456789", TOKEN)
FROM_THE_START = {
    *(f"verse_turns_total outcome={outcome}" for outcome in metrics.OUTCOMES),
    *(f"verse_failures_total reason={reason}" for reason in metrics.REASONS),
    *(f"verse_recall_seconds_count mode={mode}" for mode in metrics.MODES),
    "verse_first_token_seconds_count",
    "verse_pool_wait_seconds_count",
    "verse_embedding_calls_total",
    "verse_embedding_tokens_total",
    "verse_embedding_dollars_total",
    "verse_pending_rows",
    "verse_running_answers",
    "verse_sampled_recall",
}


@pytest.fixture(autouse=True)
def counting() -> Iterator[None]:
    """Metrics that begin at 0, and errors of the log in them."""
    logging.getLogger().addHandler(log_counts.COUNTER)
    with counted():
        yield
    logging.getLogger().removeHandler(log_counts.COUNTER)


@pytest.fixture
def say(alice: User, api: Api, fake_openai: FakeOpenAI) -> Callable[[str], int]:
    """A turn of alice's in a new chat; the status of its response."""
    client: APIClient = api(alice)

    def post(content: str) -> int:
        chat = StandaloneChat.objects.create(user=alice)
        address = f"/api/chats/{chat.pk}/messages/"
        status = int(client.post(address, {"content": content}, format="json").status_code)
        finish_embedding_jobs()
        return status

    return post


def test_every_metric_exists_from_the_start_at_zero() -> None:
    samples = scrape()
    assert samples.keys() >= FROM_THE_START
    assert {samples[name] for name in FROM_THE_START - {"verse_pool_wait_seconds_count"}} == {0}


@pytest.mark.parametrize(
    "authorization", [None, "", TOKEN, f"Token {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x"]
)
def test_a_stranger_gets_401(authorization: str | None) -> None:
    status, text, headers = ask(authorization)
    assert (status, headers[b"www-authenticate"]) == (401, b"Bearer")
    assert "verse_" not in text


def test_without_a_token_there_is_no_such_page(settings: Settings) -> None:
    settings.METRICS_TOKEN = ""
    assert ask("Bearer ")[0] == 404
    assert not exposition.is_allowed(b"Bearer ")


def test_only_get_and_head_are_answered() -> None:
    assert ask(method="POST")[0] == 405
    status, text, headers = ask(method="HEAD")
    assert (status, text) == (200, "")
    assert int(headers[b"content-length"]) > 1_000
    assert ask(path="/metrics/x")[0] == 404


def test_prometheus_may_ask_for_openmetrics() -> None:
    _, text, headers = ask(accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert headers[b"content-type"].startswith(b"application/openmetrics-text")
    parsed = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    families = {family.name for family in parsed}
    assert families >= {"verse_turns", "verse_recall_seconds", "verse_pending_rows"}


def test_a_turn_is_seen_in_each_of_its_metrics(
    say: Callable[[str], int], remembering: FakeOpenAI
) -> None:
    assert say("I keep a lizard called Zyxwv") == 201
    assert say("What is the lizard called?") == 201
    samples = scrape()
    assert samples["verse_turns_total outcome=complete"] == 2
    assert samples["verse_first_token_seconds_count"] == 2
    assert 0 < samples["verse_first_token_seconds_sum"] < PATIENCE_S
    recalls = [samples[f"verse_recall_seconds_count mode={mode}"] for mode in metrics.MODES]
    assert (sum(recalls), recalls[0]) == (2, 0)
    calls = len(remembering.embeddings.requests)
    assert samples["verse_embedding_calls_total"] == calls
    assert samples["verse_embedding_tokens_total"] > calls
    price = samples["verse_embedding_dollars_total"] / samples["verse_embedding_tokens_total"]
    assert price == pytest.approx(0.00002 / 1000)
    assert samples["verse_running_answers"] == 0


def test_failures_are_counted_by_reason(say: Callable[[str], int], remembering: FakeOpenAI) -> None:
    remembering.embeddings.default = Refuse(401)
    remembering.chat.script(Refuse(500))
    assert say("Hello, who are you?") == 502
    samples = scrape()
    assert samples["verse_turns_total outcome=failed"] == 1
    assert samples["verse_failures_total reason=llm_error"] == 1
    assert samples["verse_failures_total reason=embedding"] == 1
    assert samples["verse_embedding_calls_total"] == len(remembering.embeddings.requests)
    assert samples["verse_embedding_tokens_total"] == 0
    logging.getLogger("django.security.DisallowedHost").error("Invalid HTTP_HOST header")
    logging.getLogger("chat").error("Something else failed: %s", "Zyxwv")
    assert scrape()["verse_failures_total reason=internal"] == 1


def test_running_answers_are_those_of_now(alice: User, api: Api, fake_openai: FakeOpenAI) -> None:
    fake_openai.chat.default = Hang()
    chat = StandaloneChat.objects.create(user=alice)
    address = f"/api/chats/{chat.pk}/messages/"
    client = api(alice)
    stream = client.post(
        address, {"content": "Hi"}, format="json", headers={"Accept": "text/event-stream"}
    )
    assert scrape()["verse_running_answers"] == 1
    answer = chat.messages.get(role="assistant")
    assert client.post(f"{address}{answer.pk}/stop/").status_code == 200
    stream.close()
    samples = scrape_until("verse_turns_total outcome=interrupted", 1)
    assert samples["verse_running_answers"] == 0


def test_an_abandoned_answer_is_counted_by_the_process_that_ends_it(alice: User) -> None:
    turns.start(StandaloneChat.objects.create(user=alice), "Hi", key=None)
    heartbeat.end_abandoned(seconds=-1)
    heartbeat.end_abandoned(seconds=-1)
    samples = scrape()
    assert samples["verse_turns_total outcome=interrupted"] == 1
    assert samples["verse_failures_total reason=interrupted"] == 1
    assert samples["verse_running_answers"] == 0


def test_nothing_of_a_user_is_in_the_text(
    say: Callable[[str], int], remembering: FakeOpenAI
) -> None:
    remembering.chat.script(Answer("Zyxwv is a lizard."))
    say("I keep a lizard called Zyxwv")
    remembering.chat.script(Refuse(500, message="Zyxwv"))
    say("What is Zyxwv?")
    _, text, _ = ask()
    assert parse(text)["verse_turns_total outcome=complete"] == 1
    assert [canary for canary in CANARIES if canary in text] == []
