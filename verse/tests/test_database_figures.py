"""The figures of GET /metrics that are read from the database."""

import math
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from psycopg import sql

from chat.models import MemorySwitch, StandaloneChat, StandaloneChatMessage
from retrieval import overview, queries
from retrieval.forgetting import propagate_taint
from retrieval.models import EmbeddingModel, MessageMemory, RecallMeasurement
from retrieval.rollout import state
from retrieval.telemetry import database_figures, exposition
from retrieval.tests.backfill_support import add_messages
from verse.tests.metrics_support import counted, scrape

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]


@pytest.fixture(autouse=True)
def counting() -> Iterator[None]:
    """A process that has read nothing yet."""
    with counted():
        yield


def pending(user: User, *contents: str) -> list[StandaloneChatMessage]:
    chat = StandaloneChat.objects.create(user=user)
    new = StandaloneChatMessage.objects.create
    return [new(user=user, conversation=chat, role="user", content=text) for text in contents]


def forget_figures() -> None:
    """As if MAX_AGE_S were over."""
    exposition.registry.cache_clear()
    exposition.registry()


def test_pending_rows_are_counted_without_hidden_and_refused_ones(alice: User, bob: User) -> None:
    pending(alice, "one", "two", "three")
    (refused,) = pending(bob, "four")
    hidden = pending(bob, "five")[0].conversation
    hidden.memory = False
    hidden.save()
    MessageMemory.objects.filter(id=refused.memory_table.pack_ref(refused.pk)).update(
        embedding_error="refused"
    )
    samples = scrape()
    assert (samples["verse_pending_rows"], samples["verse_set_aside_rows"]) == (3, 1)


def test_many_pending_rows_are_counted_by_the_index(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = EmbeddingModel.objects.create(name="old")
    new = EmbeddingModel.objects.create(name="new", current=True)
    messages = pending(alice, *map(str, range(7)))
    refs = [message.memory_table.pack_ref(message.pk) for message in messages]
    MessageMemory.objects.filter(id__in=refs[:3]).update(model=old)
    MessageMemory.objects.filter(id=refs[0]).update(embedding_error="refused")
    MessageMemory.objects.filter(id=refs[3]).update(model=new, embedding_error="before")
    MessageMemory.objects.filter(id=refs[6]).update(embedding_error="refused")
    assert database_figures.count_by_index() == 4
    assert scrape()["verse_pending_rows"] == 4
    monkeypatch.setattr(overview, "MAX_COUNTED", 2)
    forget_figures()
    assert scrape()["verse_pending_rows"] == 4


def test_messages_that_no_backfill_has_seen_are_counted_by_both_ways(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = pending(alice, *map(str, range(60)))
    queries.execute(sql.SQL("ANALYZE standalone_chat_messages"), {})
    refs = [message.memory_table.pack_ref(message.pk) for message in messages]
    MessageMemory.objects.filter(id__in=refs[20:]).delete()
    assert scrape()["verse_pending_rows"] == 60
    monkeypatch.setattr(overview, "MAX_COUNTED", 10)
    forget_figures()
    assert scrape()["verse_pending_rows"] == 60


def test_both_ways_count_neither_hidden_nor_tainted_messages(alice: User, bob: User) -> None:
    fact, question = pending(alice, "The key is under the stone", "And the dog?")
    given = [{"kind": "chat", "id": fact.pk, "score": 1.0}]
    chat = question.conversation
    chat.messages.create(
        user=alice, role="assistant", content="Stone", reply_to=question.pk, context=given
    )
    fact.delete()
    for user in (alice, bob):
        hidden = pending(user, "one", "two")[0].conversation
        hidden.memory = False
        hidden.save()
    pending(bob, "three")
    MemorySwitch.objects.create(user=bob, enabled=False)
    assert scrape()["verse_pending_rows"] == 1
    propagate_taint(alice.pk)
    assert database_figures.count_by_index() == 1


def test_counting_pending_rows_reads_no_table(alice: User) -> None:
    add_messages(alice, [str(number) for number in range(3_000)])  # of few, any index will do
    queries.execute(sql.SQL("ANALYZE message_memories"), {})
    with transaction.atomic():
        queries.execute(database_figures.SET_LIMITS, {"seconds": 5})
        plan = queries.rows(sql.SQL("EXPLAIN ") + database_figures.statement_by_index())
    assert "message_memories_pending" in str(plan)
    assert "Seq Scan on message_memories" not in str(plan)


def test_figures_of_the_database_are_read_once_for_some_seconds(alice: User) -> None:
    assert scrape()["verse_pending_rows"] == 0
    pending(alice, "one")
    assert scrape()["verse_pending_rows"] == 0
    forget_figures()
    assert scrape()["verse_pending_rows"] == 1


def test_the_last_measurement_of_recall_is_shown() -> None:
    for recall in (0.5, 0.75):
        RecallMeasurement.objects.create(
            questions=9, users=3, recall=recall, p50_ms=1, p95_ms=2,
            measured_at=f"2026-01-0{recall * 4:.0f}T00:00Z",
        )  # fmt: skip
    assert scrape()["verse_sampled_recall"] == 0.75


@pytest.mark.parametrize(("name", "share"), [("off", 0), ("dark", 0), ("2.5%", 0.025), ("on", 1)])
def test_the_rollout_is_shown_as_the_share_of_users(name: str, share: float) -> None:
    state.save(name, fuse_ms=None, fuse_errors=5)
    shown = scrape()
    assert (shown["verse_rollout_share"], shown["verse_fuse_blown"]) == (share, 0)


def test_a_blown_fuse_is_shown() -> None:
    assert scrape()["verse_rollout_share"] == 1
    state.save("5%", fuse_ms=None, fuse_errors=5)
    assert state.blow(state.read(), "a test")
    forget_figures()
    shown = scrape()
    assert (shown["verse_rollout_share"], shown["verse_fuse_blown"]) == (0, 1)


def test_without_the_database_its_figures_are_unknown(caplog: pytest.LogCaptureFixture) -> None:
    figures = database_figures.DatabaseFigures()
    connection.close()
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "no_such_database"
    try:
        for _ in range(3):
            figures._latest.forget()
            assert math.isnan(next(iter(figures.collect())).samples[0].value)
    finally:
        connection.settings_dict["NAME"] = name
    assert [record.message for record in caplog.records] == [
        "Pending messages cannot be counted: OperationalError"
    ]
