"""Before a large backfill: what it would save to drop the HNSW indexes."""

import pytest
from django.contrib.auth.models import User

from fake_openai import FakeOpenAI
from retrieval.backfill.hnsw_advice import MIN_ROWS, Times, advice, pauses
from retrieval.models import message_tables
from retrieval.tests.backfill_support import add_messages, query, run, texts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]


def test_a_large_backfill_says_first_what_dropping_the_index_saves(
    alice: User, remembering: FakeOpenAI
) -> None:
    """For 5,000 rows, as many as --limit allows, it says nothing."""
    query("ALTER TABLE standalone_chat_messages DISABLE TRIGGER USER")
    add_messages(alice, texts(MIN_ROWS + 1))
    query("ALTER TABLE standalone_chat_messages ENABLE TRIGGER USER")
    (line,) = [line for line in run("--max-cost", "0.000001").lines if "HNSW" in line]
    assert line == (
        "standalone_chat_messages: to store 5,001 vectors takes about 14 s with the HNSW index,"
        " and about 3 s with rag_index drop hnsw before this command and rag_index create hnsw"
        " after it"
    )
    assert "HNSW" not in run("--limit", "5000", "--max-cost", "0.000001").out


def test_dropping_the_index_is_not_advised_if_most_rows_are_stored_already() -> None:
    few, many = Times(pending=10_000, stored=10_000), Times(pending=10_000, stored=100_000)
    assert few.drop_and_create_s < few.with_index_s
    assert many.drop_and_create_s > many.with_index_s


def test_long_pauses_are_named_before_a_run(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(100))
    slow = run("--batch-size", "1", "--sleep", "1.2", "--max-cost", "0")
    assert "the pauses between 100 batches take 2 minutes; --sleep 0 leaves them out" in slow.lines
    assert pauses(119, 1.0) is None
    assert pauses(2, 60.0) is None


def test_the_advice_names_the_memory_of_a_large_graph() -> None:
    table = message_tables()[0]
    query("SET maintenance_work_mem = '8MB'")
    large, small = advice(table, 10_000), advice(table, MIN_ROWS + 1)
    query("SET maintenance_work_mem = '64MB'")
    fits = advice(table, MIN_ROWS + 1)
    query("RESET maintenance_work_mem")
    assert large is not None
    assert large.endswith(', if that has PGOPTIONS="-c maintenance_work_mem=71MB"')
    assert small is not None
    assert small.endswith('"-c maintenance_work_mem=36MB"')
    assert fits is not None
    assert fits.endswith("rag_index create hnsw after it")
