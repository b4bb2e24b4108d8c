"""Jobs for workers: put into the queue after the commit; a broker that is away fails nothing."""

import json
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import redis
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.memory.embed import finish_embedding_jobs
from chat.models import StandaloneChat
from fake_openai import FakeOpenAI
from retrieval import runtime
from retrieval.embed_queue import jobs
from tests.redis_server import Redis, is_missing

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.newest_schema,
    pytest.mark.skipif(is_missing(), reason="apt-get install redis-server"),
]
QUEUE = "verse-embed"


@pytest.fixture
def broker(remembering: FakeOpenAI, settings: Settings) -> Iterator[Redis]:
    """EMBED_QUEUE=celery, whose Redis does not run yet."""
    server = Redis()
    settings.EMBED_QUEUE, settings.CELERY_BROKER_URL = "celery", server.url
    sys.modules.pop(jobs.ENGINES["celery"], None)  # it reads the address when it is imported
    runtime.reset()
    yield server
    sys.modules.pop(jobs.ENGINES["celery"], None)


def sent(broker: Redis) -> list[bytes]:
    """The messages that wait in the queue."""
    with redis.Redis.from_url(broker.url) as client:
        return list(client.lrange(QUEUE, 0, -1))


def test_a_broker_that_is_away_costs_one_warning_and_no_turn(
    alice: User,
    api: Callable[[User], APIClient],
    broker: Redis,
    remembering: FakeOpenAI,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", jobs.logger.name)
    chat = StandaloneChat.objects.create(user=alice)
    path = f"/api/chats/{chat.pk}/messages/"
    turns = [
        api(alice).post(path, {"content": f"Bread, number {n}"}, format="json") for n in range(2)
    ]
    assert [turn.status_code for turn in turns] == [201, 201]
    finish_embedding_jobs()
    with broker:
        jobs.publish([2 * question for question in range(9)])  # nothing is tried for five seconds
        assert not sent(broker)
        jobs._is_away.forget()
        question = turns[1].json()["user_message"]["id"]
        edited = api(alice).patch(
            f"{path}{question}/", {"content": "Wine of the hill"}, format="json"
        )
        assert edited.status_code == 200
        finish_embedding_jobs()
        (message,) = sent(broker)
    assert b"Wine" not in message
    assert json.loads(message)["headers"]["argsrepr"] == f"([{2 * question}],)"
    lines = [record.message for record in caplog.records if record.name == jobs.logger.name]
    assert [line.partition(" (")[0] for line in lines] == [
        "The queue celery takes no jobs",
        "The queue celery takes jobs again",
    ]
    texts = [text for call in remembering.embeddings.requests for text in call.texts]
    assert texts == ["Bread, number 0", "Bread, number 1"]  # the questions of the turns alone


def test_without_a_key_there_are_no_jobs(broker: Redis, settings: Settings) -> None:
    assert jobs.has_workers()
    settings.OPENAI_API_KEY = ""
    assert not jobs.has_workers()
    settings.EMBEDDINGS = "local"
    assert jobs.has_workers()
    settings.EMBEDDINGS = "none"
    assert not jobs.has_workers()


def test_a_broker_that_hangs_costs_less_than_a_second(broker: Redis) -> None:
    with broker:
        jobs.engine().publish([1])
        broker.freeze()
        began = time.monotonic()
        with pytest.raises(Exception, match=r"imeout|timed out"):
            jobs.engine().publish([2])
        took = time.monotonic() - began
    assert took < 30  # without limits it would wait for ever; the promise is a second
