"""backfill_embeddings --follow: it goes on for ever, and only a refused key ends it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth.models import User

from fake_openai import FakeOpenAI, Refuse, Vectors
from retrieval.backfill import Backfill
from retrieval.backfill.claims import Claims
from retrieval.backfill.follow import follow
from retrieval.backfill.limits import Cancelled, Limits
from retrieval.tests.backfill_support import add_messages, embedded_texts, query, run, texts
from retrieval.tests.embedding_support import texts_of_calls

pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]


@dataclass
class Pauses(Limits):
    """Limits that do not wait: each pause runs the next step, and the last one cancels."""

    steps: list[Callable[[], object]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        if seconds:
            self.waits.append(seconds)
            if not self.steps:
                raise Cancelled
            self.steps.pop(0)()


def followed(*steps: Callable[[], object], **options: Any) -> tuple[list[str], list[float]]:
    """The lines and the pauses of a run that is cancelled after these steps."""
    limits = Pauses(steps=list(steps))
    lines: list[str] = []

    def collect() -> None:
        for report in follow(Backfill(limits=limits, notify=lines.append, **options)):
            lines.append(str(report))  # noqa: PERF401 - ``notify`` appends meanwhile

    with pytest.raises(Cancelled):
        collect()
    return lines, limits.waits


def test_it_embeds_what_becomes_pending_and_makes_no_call_meanwhile(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(3))
    lines, waits = followed(
        lambda: None,
        lambda: add_messages(alice, ["later"]),
        lambda: None,
        lambda: query("UPDATE standalone_chat_messages SET content = 'young', edited_at = now()"),
        batch_size=2,
    )
    assert lines == [
        "standalone_chat_messages: batch 1, 2 embedded, 0 failed, 2/3 (66.7%)",
        "standalone_chat_messages: batch 2, 1 embedded, 0 failed, 3/3 (100.0%)",
        "standalone_chat_messages: batch 3, 1 embedded, 0 failed, 3/3 (100.0%)",
    ]
    assert waits == [10.0] * 5
    assert [len(call) for call in texts_of_calls(remembering)] == [2, 1, 1]


def test_it_embeds_messages_that_memory_does_not_know(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(3))
    query("DELETE FROM message_memories")
    followed()
    assert embedded_texts() == set(texts(3))


def test_it_runs_while_another_process_embeds(alice: User, remembering: FakeOpenAI) -> None:
    contents = texts(4)
    ids = add_messages(alice, contents)
    with Claims() as worker:
        worker.take([pk * 2 for pk in ids[:2]])
        followed()
        assert texts_of_calls(remembering) == [contents[2:]]


def test_a_failing_service_is_waited_for_and_longer_each_time(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(1))
    remembering.embeddings.default = Refuse(429, code="insufficient_quota")

    def recover() -> None:
        remembering.embeddings.default = Vectors()

    lines, waits = followed(lambda: None, lambda: None, recover)
    assert waits[:3] == [10.0, 20.0, 40.0]
    assert [line.rpartition("; ")[2] for line in lines[:3]] == [
        f"trying again in {seconds} s" for seconds in (10, 20, 40)
    ]
    assert embedded_texts() == set(texts(1))


def test_a_refused_key_ends_it(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(1))
    remembering.embeddings.default = Refuse(401)
    done = run("--follow")
    assert done.code == 1
    assert "401" in done.err
    assert query("SELECT count(*) FROM embedding_claims") == [(0,)]


@pytest.mark.parametrize("option", [("--limit", "5"), ("--max-cost", "0"), ("--dry-run",)])
def test_a_limit_is_wrong_usage(option: tuple[str, ...], remembering: FakeOpenAI) -> None:
    done = run("--follow", *option)
    assert done.code == 2
    assert "--follow goes on for ever" in done.err
