"""EMBEDDING_RATE_TOKENS_PER_MIN: one bucket for all, and no call is larger than it."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from fake_openai import FakeOpenAI
from retrieval.backfill import Backfill, token_bucket
from retrieval.backfill.limits import Cancelled, Limits
from retrieval.embeddings.batching import truncate
from retrieval.tests.backfill_support import add_messages, embedded_texts, failure_reasons, query

pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]
AGE = "UPDATE embedding_rate SET at = at - %s * interval '1 second'"


@pytest.fixture(autouse=True)
def limit(remembering: FakeOpenAI, settings: Settings) -> None:
    settings.EMBEDDING_RATE_TOKENS_PER_MIN = 600


def take(tokens: int) -> float:
    """How many seconds the bucket lets the caller wait, to the nearest one."""
    waits = [0.0]
    token_bucket.take(tokens, wait=waits.append)
    return round(waits[-1])


def test_a_full_bucket_is_a_minutes_tokens_and_fills_evenly() -> None:
    assert [take(400), take(200), take(100), take(300)] == [0, 0, 10, 40]
    query(AGE, 45)  # 450 tokens came
    assert [take(30), take(60)] == [0, 4]
    query(AGE, 3600)  # it holds no more than a minute's tokens
    assert [take(600), take(60)] == [0, 6]


def test_a_cancelled_wait_gives_its_tokens_back() -> None:
    def cancel(_seconds: float) -> None:
        raise Cancelled

    take(600)
    with pytest.raises(Cancelled):
        token_bucket.take(500, wait=cancel)
    assert take(60) == 6


def test_without_a_limit_there_is_no_bucket(settings: Settings) -> None:
    settings.EMBEDDING_RATE_TOKENS_PER_MIN = None
    assert take(1_000_000) == 0
    settings.EMBEDDING_RATE_TOKENS_PER_MIN, settings.EMBEDDINGS = 1, "local"
    assert take(1_000_000) == 0
    assert query("SELECT count(*) FROM embedding_rate") == [(0,)]


@dataclass
class RecordedLimits(Limits):
    """Limits that remember how long was to be waited, and do not wait."""

    waits: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)


def test_no_call_is_larger_than_the_limit(alice: User, remembering: FakeOpenAI) -> None:
    contents = [f"{number} " + "bread and wine " * 80 for number in range(5)]
    tokens = [truncate(content).tokens for content in contents]
    assert 200 < tokens[0] < 300  # two in a call, but not three
    too_large = "bread and wine " * 300
    add_messages(alice, [*contents, too_large])
    limits: Any = RecordedLimits()
    for _ in Backfill(limits=limits, workers=3).embed():
        pass
    assert [len(call.texts) for call in remembering.embeddings.requests] == [2, 2, 1]
    assert embedded_texts() == set(contents)
    (reason,) = failure_reasons()
    assert "are more than EMBEDDING_RATE_TOKENS_PER_MIN, 600" in reason
    assert sum(limits.waits) > 60  # each waits for what all before it have taken
