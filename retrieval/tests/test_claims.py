"""Claims: what one process embeds no other buys, and what a killed one claimed is taken over."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.contrib.auth.models import User
from django.db import InternalError, connection, transaction

from fake_openai import FakeOpenAI
from retrieval.backfill.claims import Claims
from retrieval.backfill.row_claims import RowClaims
from retrieval.models import message_tables
from retrieval.tests.backfill_support import CHAT, add_messages, embedded_texts, query, run, texts

pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]
AGE = "UPDATE embedding_claims SET until = until - %s * interval '1 second'"


def refs_of(ids: list[int]) -> list[int]:
    (table,) = [table for table in message_tables() if table.table == CHAT]
    return [table.pack_ref(pk) for pk in ids]


def test_a_claimed_message_is_claimed_by_no_other(alice: User) -> None:
    first, second, third = refs_of(add_messages(alice, texts(3)))
    with Claims() as one_process, Claims() as another:
        assert one_process.take([first, second]) == {first, second}
        assert another.take([second, third]) == {third}
        assert one_process.take([first]) == set()  # it embeds it already
        one_process.release([second])
        assert another.take([first, second]) == {second}
    assert query("SELECT count(*) FROM embedding_claims") == [(0,)]


def test_a_claim_of_a_killed_process_ends_and_is_deleted_later(alice: User) -> None:
    (ref,) = refs_of(add_messages(alice, texts(1)))
    killed = Claims()
    assert killed.take([ref])
    query(AGE, 29)
    assert Claims().take([ref]) == set()
    query(AGE, 2)
    assert Claims().take([ref]) == {ref}
    with Claims():
        assert query("SELECT count(*) FROM embedding_claims") == [(1,)]
    query(AGE, 3700)
    with Claims():
        pass
    assert query("SELECT count(*) FROM embedding_claims") == [(0,)]


def test_a_message_embedded_before_its_claim_is_not_bought(
    alice: User, remembering: FakeOpenAI
) -> None:
    ids = add_messages(alice, texts(2))
    (table,) = [table for table in message_tables() if table.table == CHAT]
    assert run("--limit", "1").code == 0
    with Claims() as claims:
        rows = RowClaims(table, claims)
        claimed = rows.claim(refs_of(ids))  # as they were read before
        assert [row.pk for row in claimed] == ids[1:]
        assert query("SELECT id FROM embedding_claims") == [(refs_of(ids)[1],)]
        rows.release(claimed)
        assert query("SELECT count(*) FROM embedding_claims") == [(0,)]


def test_a_backfill_leaves_what_another_process_embeds(
    alice: User, remembering: FakeOpenAI
) -> None:
    contents = texts(3)
    ids = add_messages(alice, contents)
    with Claims() as worker:
        worker.take(refs_of(ids)[:1])
        done = run()
        assert embedded_texts() == set(contents[1:])
        assert "1 pending" in done.lines[-2]
    assert run().code == 0
    assert embedded_texts() == set(contents)
    assert query("SELECT count(*) FROM embedding_claims") == [(0,)]


def test_a_claim_that_could_not_be_released_is_not_renewed(alice: User) -> None:
    first, second = refs_of(add_messages(alice, texts(2)))
    claims = Claims()
    claims.take([first, second])
    with database_that_refuses_writes(), pytest.raises(InternalError):
        claims.release([first])
    query(AGE, 29)
    claims.renew()
    query(AGE, 2)
    assert Claims().take([first, second]) == {first}


@contextmanager
def database_that_refuses_writes() -> Iterator[None]:
    """As a standby, or a database whose disk is full."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL transaction_read_only = on")
        yield
        transaction.set_rollback(True)
