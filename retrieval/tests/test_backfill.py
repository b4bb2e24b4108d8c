"""backfill_embeddings: which rows are embedded, once each, and what it prints."""

import json
from collections import Counter
from itertools import pairwise
from threading import Thread
from typing import cast

import pytest
from django.contrib.auth.models import User
from django.db import connection
from psycopg import connect, sql
from pytest_django import Settings

from chat.models import MemorySwitch, StandaloneChat, StandaloneChatMessage
from fake_openai import FakeOpenAI, Lie, Vectors
from retrieval import db
from retrieval.backfill import pending
from retrieval.models import message_tables
from retrieval.tests.backfill_support import (
    CHAT,
    PASSAGE,
    add_messages,
    embedded_texts,
    failure_reasons,
    query,
    run,
    texts,
)
from retrieval.token_count import count_tokens
from tests.support import database_url

SHORT_LIST_PAGES = 64 * 1024 // 8192

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]


def request_counts(fake: FakeOpenAI) -> Counter[str]:
    """How often each text was sent to the service."""
    return Counter(text for request in fake.embeddings.requests for text in request.texts)


def test_each_batch_is_a_line_with_the_progress_in_its_table(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(25))
    add_messages(alice, texts(10), table=PASSAGE)
    done = run("--batch-size", "10")
    assert done.code == 0
    assert [line for line in done.lines if "batch" in line] == [
        "standalone_chat_messages: batch 1, 10 embedded, 0 failed, 10/25 (40.0%)",
        "standalone_chat_messages: batch 2, 10 embedded, 0 failed, 20/25 (80.0%)",
        "standalone_chat_messages: batch 3, 5 embedded, 0 failed, 25/25 (100.0%)",
        "chat_messages: batch 1, 10 embedded, 0 failed, 10/10 (100.0%)",
    ]
    assert embedded_texts() == set(texts(25))
    assert embedded_texts(PASSAGE) == set(texts(10))
    assert query("SELECT count(*), count(bits), count(model) FROM message_memories") == [
        (35, 35, 35)
    ]
    again = run()
    assert again.code == 0
    assert not any("batch" in line for line in again.lines)
    assert len(remembering.embeddings.requests) == 3  # the texts of the passage were known by then


def test_the_pending_list_of_terms_stays_short(alice: User, remembering: FakeOpenAI) -> None:
    """Recall reads all of it for each word."""
    add_messages(
        alice, [f"{number} the quick brown fox jumps over lazy dogs" for number in range(500)]
    )
    run("--batch-size", "100")
    ((pages,),) = query("SELECT gin_clean_pending_list('message_memories_terms')")
    assert pages <= SHORT_LIST_PAGES


def test_the_oldest_are_embedded_first(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(30))
    run("--batch-size", "7", "--workers", "3")
    batches = [request.texts for request in remembering.embeddings.requests]
    in_order = sorted(batches, key=lambda batch: texts(30).index(batch[0]))
    assert [text for batch in in_order for text in batch] == texts(30)
    # Three calls at a time may arrive in any order.
    assert all(abs(in_order.index(batch) - place) < 3 for place, batch in enumerate(batches))


@pytest.mark.parametrize("model", [None, 2])
def test_next_rows_come_from_the_index_even_if_all_seem_pending(
    model: int | None, alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(3_000))
    query("UPDATE message_memories SET model = %s", model)
    query("ANALYZE message_memories, memory_switches, standalone_chats, standalone_chat_messages")
    params = {"after": 0, "last": 2**40, "limit": 100, "model": model}
    plan = "\n".join(
        row[0]
        for row in db.execute(
            sql.SQL("EXPLAIN ") + pending.next_rows_statement(message_tables()[0], model), params
        )
    )
    assert "Index Scan using message_memories_pending" in plan
    assert "Sort" not in plan


def test_a_refused_text_is_set_aside_and_the_rest_embedded(
    alice: User, remembering: FakeOpenAI
) -> None:
    (poisoned,) = add_messages(alice, ["Tell me about POISON."])
    add_messages(alice, texts(999))
    remembering.embeddings.refuse_text("POISON")
    done = run()
    assert done.code == 1
    assert embedded_texts() == set(texts(999))
    assert failure_reasons() == ["the service refused the text: status 400 (content_filter)"]
    assert (
        "standalone_chat_messages: batch 1, 99 embedded, 1 failed, 100/1000 (10.0%)" in done.lines
    )
    assert done.err == "1 messages were refused by the service; --retry-failed tries them again"
    assert (
        max(count for text, count in request_counts(remembering).items() if text in texts(999)) <= 8
    )

    before = len(remembering.embeddings.requests)
    assert run().code == 1
    assert len(remembering.embeddings.requests) == before
    assert run("--retry-failed").code == 1
    assert remembering.embeddings.requests[before].texts == ["Tell me about POISON."]

    StandaloneChatMessage.objects.filter(pk=poisoned).update(content="Tell me about bread.")
    assert failure_reasons() == []
    assert run().code == 0
    assert "Tell me about bread." in embedded_texts()


@pytest.mark.soak  # the pauses of 15 s after three failures in a row
def test_a_text_without_a_usable_vector_is_set_aside(
    alice: User, remembering: FakeOpenAI, settings: Settings
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 1
    add_messages(alice, [*texts(2), "ODD"])  # the fake lies about the last vector
    remembering.embeddings.when("ODD", Lie("wrong_size"))
    assert run().code == 1
    assert embedded_texts() == set(texts(2))
    assert failure_reasons() == [
        "the service's answer was not usable: a vector has not 1536 numbers"
    ]


def test_retry_failed_embeds_messages_that_were_set_aside(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, ["POISON", *texts(5)])
    remembering.embeddings.refuse_text("POISON")
    run()
    remembering.embeddings.reset()
    assert run().code == 1
    assert run("--retry-failed").code == 0
    assert "POISON" in embedded_texts()
    assert failure_reasons() == []


@pytest.mark.parametrize("workers", ["1", "4"])
def test_equal_texts_are_bought_once_per_user(
    workers: str, alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    remembering.embeddings.default = Vectors(delay_s=0.1)
    for table in (CHAT, PASSAGE):
        add_messages(alice, ["Yes", "No", "Yes"] * 10, table=table)
    add_messages(bob, ["Yes"] * 10)
    # Equal texts while their call still runs, or while its vectors are not stored yet.
    done = run("--batch-size", "4", "--workers", workers)
    assert done.code == 0
    assert "70 embedded" in done.out
    assert request_counts(remembering) == {"Yes": 2, "No": 1}


def test_a_refused_text_that_occurs_twice_is_sent_once(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, ["POISON", "bread", "POISON", "cake"])
    remembering.embeddings.refuse_text("POISON")
    run("--batch-size", "1", "--workers", "4")
    assert len(failure_reasons()) == 2
    assert request_counts(remembering)["POISON"] == 1
    assert embedded_texts() == {"bread", "cake"}


def test_edits_and_deletions_during_a_call_win(alice: User, remembering: FakeOpenAI) -> None:
    ids = add_messages(alice, texts(10))
    remembering.embeddings.default = Vectors(delay_s=0.5)
    url = database_url(connection)

    def edit() -> None:
        remembering.wait_for(lambda: remembering.embeddings.requests)
        with connect(url, autocommit=True) as other:
            other.execute(f"UPDATE {CHAT} SET content = 'Edited' WHERE id = %s", [ids[3]])
            other.execute(f"DELETE FROM {CHAT} WHERE id = %s", [ids[4]])

    thread = Thread(target=edit)
    thread.start()
    done = run()
    thread.join()
    assert "standalone_chat_messages: batch 1, 8 embedded, 0 failed, 10/10 (100.0%)" in done.lines
    assert embedded_texts() == set(texts(10)) - {texts(10)[3], texts(10)[4]}
    assert "8 embedded" in done.out
    assert "1 pending" in done.out
    assert query("SELECT count(*) FROM message_memories") == [(9,)]
    assert run().code == 0
    assert "Edited" in embedded_texts()


def test_switched_off_messages_are_neither_counted_nor_embedded(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    add_messages(bob, ["Mine"])
    MemorySwitch.objects.create(user=bob, enabled=False)
    hidden = StandaloneChat.objects.create(user=alice, memory=False)
    add_messages(alice, ["Off the record"], parent=hidden.pk)
    add_messages(alice, ["Remember this"])
    assert "standalone_chat_messages: 1 pending" in run("--dry-run").out
    done = run("--json")
    assert json.loads(done.out)["pending"] == 0
    assert request_counts(remembering) == {"Remember this": 1}
    MemorySwitch.objects.update(enabled=True)
    StandaloneChat.objects.update(memory=True)
    assert run().code == 0
    assert embedded_texts() == {"Mine", "Off the record", "Remember this"}


def test_limit_counts_over_both_tables(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(10))
    add_messages(alice, texts(10, "cake"), table=PASSAGE)
    done = run("--limit", "14", "--batch-size", "4")
    assert done.code == 0
    assert "Stopped by --limit; run it again to go on with the 6 pending" in done.out
    assert (len(embedded_texts()), len(embedded_texts(PASSAGE))) == (10, 4)
    assert json.loads(run("--limit", "2", "--json").out)["stopped_by"] == "limit"
    rest = run("--limit", "4")
    assert "Stopped by" not in rest.out  # there was no more to do
    assert len(embedded_texts(PASSAGE)) == 10


def test_table_restricts_the_run_to_one_table(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(3))
    add_messages(alice, texts(3, "cake"), table=PASSAGE)
    assert run("--table", PASSAGE).code == 0
    assert (len(embedded_texts()), len(embedded_texts(PASSAGE))) == (0, 3)


def test_max_cost_is_never_exceeded(alice: User, remembering: FakeOpenAI) -> None:
    remembering.embeddings.count_tokens = count_tokens
    lengths = [3, 400, 1, 1500, 20, 700, 5, 2600, 2, 90] * 10
    add_messages(
        alice, [f"{number}: " + "bread " * length for number, length in enumerate(lengths)]
    )
    done = run("--max-cost", "0.0001", "--batch-size", "3", "--workers", "2")  # 5,000 tokens
    assert done.code == 0
    paid = sum(count_tokens(text) for text in request_counts(remembering).elements())
    assert 2_000 < paid <= 5_000
    assert 0 < len(embedded_texts()) < 100
    left = 100 - len(embedded_texts())
    assert f"Stopped by --max-cost; run it again to go on with the {left} pending" in done.out
    assert f"({paid:,} tokens, $0.000" in done.out
    before = len(remembering.embeddings.requests)
    assert run("--max-cost", "0").code == 0
    assert len(remembering.embeddings.requests) == before


def test_a_batch_is_one_call_within_the_service_limits(
    alice: User, remembering: FakeOpenAI, settings: Settings
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 30
    remembering.embeddings.count_tokens = count_tokens
    add_messages(alice, [f"{number} " + "bread " * 8_000 for number in range(38)])  # 304,000 tokens
    assert run("--batch-size", "100").code == 0
    assert len(embedded_texts()) == 38
    assert len(remembering.embeddings.requests) == 2


def test_workers_is_the_number_of_concurrent_calls(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(40))
    remembering.embeddings.default = Vectors(delay_s=0.3)
    assert run("--batch-size", "5", "--workers", "4").code == 0
    spans = [
        (request.arrived_at, request.finished_at or 0)
        for request in remembering.embeddings.requests
    ]
    at_once = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
    assert max(at_once) == 4


def test_sleep_pauses_between_batches(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(6))
    assert run("--batch-size", "2", "--sleep", "0.4").code == 0
    started = [request.arrived_at for request in remembering.embeddings.requests]
    assert all(later - before >= 0.4 for before, later in pairwise(started))


def test_dry_run_changes_nothing(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(5))
    query("DELETE FROM message_memories")
    done = run("--dry-run")
    assert done.code == 0
    assert "standalone_chat_messages: 5 pending" in done.lines
    assert query("SELECT count(*) FROM message_memories") == [(0,)]
    assert query("SELECT count(*) FROM embedding_models") == [(0,)]
    assert remembering.embeddings.requests == []
    assert json.loads(run("--dry-run", "--json").out)["pending"] == {CHAT: 5, PASSAGE: 0}


def test_json_prints_one_object_on_standard_output(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(5))
    done = run("--json", "--batch-size", "2")
    assert json.loads(done.out) == {
        "embedded": 5, "failed": 0, "pending": 0, "tokens": sum(map(count_tokens, texts(5))),
        "cost_usd": pytest.approx(sum(map(count_tokens, texts(5))) * 2e-8, abs=1e-6),
        "stopped_by": None,
    }  # fmt: skip
    assert "batch 3, 1 embedded" in done.err


def test_the_cost_of_calls_is_stored_by_day(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(5))
    run("--batch-size", "2")
    usage = query("SELECT model, outcome, calls::int, texts::int, tokens::int FROM embedding_usage")
    assert usage == [("text-embedding-3-small", "ok", 3, 5, sum(map(count_tokens, texts(5))))]


def test_after_a_model_switch_messages_of_the_old_model_are_pending(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(5))
    run()
    add_messages(alice, ["New"])
    query("UPDATE embedding_models SET current = false")
    query("INSERT INTO embedding_models (name, current) VALUES ('text-embedding-3-large', true)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.conf.settings.EMBEDDING_MODEL", "text-embedding-3-large")
        remembering.embeddings.reset()
        done = run("--batch-size", "2")
    assert done.code == 0
    assert "6/6 (100.0%)" in done.out
    models = query(
        "SELECT DISTINCT e.name FROM message_memories m JOIN embedding_models e ON e.id = m.model"
    )
    assert models == [("text-embedding-3-large",)]


def test_min_similarity_is_measured_after_a_run_at_most_daily(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(25, "bread"))
    add_messages(bob, texts(25, "the sea"), table=PASSAGE)
    run("--limit", "30")
    assert stored_min_similarity() is None  # too few to tell
    run()
    first = stored_min_similarity()
    assert first == pytest.approx(quantile_between_users(), abs=1e-4)
    add_messages(bob, texts(25, "bread"))
    run()
    assert stored_min_similarity() == first
    query("UPDATE embedding_models SET measured_at = now() - interval '25 hours'")
    run()  # nothing is embedded
    assert stored_min_similarity() == first
    add_messages(bob, ["The sea is as ever."])
    run()
    assert stored_min_similarity() == pytest.approx(quantile_between_users(), abs=1e-4)
    assert stored_min_similarity() != first


def stored_min_similarity() -> float | None:
    """The database's value for the current model."""
    rows = query("SELECT min_similarity FROM embedding_models WHERE current")
    return cast("float | None", rows[0][0])


def quantile_between_users() -> float:
    """The quantile of similarities between messages of two users, computed from all pairs."""
    embedded = " UNION ALL ".join(
        f"SELECT user_id, embedding FROM {table}" for table in (CHAT, PASSAGE)
    )
    pairs = (
        "SELECT 1 - (a.embedding <=> b.embedding) AS similarity"
        " FROM embedded a JOIN embedded b ON a.user_id < b.user_id"
    )
    quantile = "SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY similarity)"
    return float(query(f"WITH embedded AS ({embedded}) {quantile} FROM ({pairs}) pairs")[0][0])
