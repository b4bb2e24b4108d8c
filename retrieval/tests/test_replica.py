"""Which position a replica must have, and whose write; tests/test_replica.py has a real replica."""

import time
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from pytest_django import DjangoAssertNumQueries, Settings

from pooled_postgres.deadlines import DeadlineConnection, PoolerConnection
from retrieval import queries
from retrieval.doctor.check_replica import replica_follows
from retrieval.replica.lag import Position
from retrieval.replica.monitor import Positions
from retrieval.replica.user_writes import (
    UnknownWriteError,
    latest_write,
    purge_deleted_users,
    recorded,
)
from tests.support import database_url
from verse import databases

pytestmark = pytest.mark.newest_schema
XID = "SELECT pg_current_xact_id()::text"


@pytest.fixture
def with_replica(settings: Settings) -> None:
    parts = {name: connection.settings_dict.get(name) for name in ("ENGINE", "NAME", "EMBEDDED")}
    address = {name: connection.settings_dict[name] for name in ("HOST", "PORT", "USER")}
    settings.REPLICA_DATABASE = databases.replica(
        {**parts, **address, "PASSWORD": connection.settings_dict["PASSWORD"]},
        version="1",
        size=1,
    )


def test_the_oldest_position_that_is_young_enough_counts() -> None:
    positions = Positions(1.0)
    assert positions.oldest(0.0) is None
    for at, lsn in ((10.0, "0/1"), (10.5, "0/2"), (11.2, "0/3")):
        positions.add(Position(at, lsn))
    assert positions.oldest(11.2) == "0/2"
    assert positions.oldest(11.6) == "0/3"
    assert positions.oldest(12.3) is None


@pytest.mark.django_db
def test_a_statement_without_an_answer_ends_the_connection() -> None:
    with DeadlineConnection.connect(database_url(connection), autocommit=True) as session:
        session.deadline = time.monotonic() + 60
        pid = session.info.backend_pid
        session.execute("SELECT 1")
        session.deadline = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT pg_sleep(600)")
        assert session.closed
    queries.execute("SELECT pg_terminate_backend(%s)", [pid])


@pytest.mark.django_db
def test_through_a_pooler_only_the_wait_for_a_session_is_bounded() -> None:
    with PoolerConnection.connect(database_url(connection)) as session:
        session.execute("SELECT 1")
        session.session_s = 0.0
        session.execute("SELECT pg_sleep(0.05)")  # inside the transaction
        session.commit()
        pid = session.info.backend_pid
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT pg_sleep(600)")
        assert session.closed
    queries.execute("SELECT pg_terminate_backend(%s)", [pid])


@pytest.mark.django_db
def test_without_a_replica_nothing_is_recorded(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_num_queries(0), recorded(1):
        pass


@pytest.mark.django_db(transaction=True)
def test_the_transaction_that_wrote_last_is_recorded(with_replica: None) -> None:
    assert latest_write(1) is None
    with transaction.atomic(), recorded(1) as users:
        users.add(2)
        xid = queries.value(XID)
    assert latest_write(1) == latest_write(2) == xid
    assert latest_write(3) is None


@pytest.mark.django_db
def test_a_write_from_another_servers_dump_does_not_count(with_replica: None) -> None:
    queries.execute("INSERT INTO user_writes VALUES (1, '9000000000')")
    assert latest_write(1) is None


@pytest.mark.django_db
def test_a_missing_table_disturbs_no_write(with_replica: None, alice: User) -> None:
    with recorded(alice.pk):
        pass
    queries.execute("ALTER TABLE user_writes RENAME TO elsewhere")
    with recorded(alice.pk):
        alice.first_name = "Alice"
        alice.save()
    alice.refresh_from_db()
    assert alice.first_name == "Alice"
    with pytest.raises(UnknownWriteError), transaction.atomic():
        latest_write(alice.pk)


@pytest.mark.django_db(transaction=True)
def test_writes_of_deleted_users_are_purged(with_replica: None, alice: User) -> None:
    with recorded(alice.pk, alice.pk + 1):
        pass
    purge_deleted_users()
    assert latest_write(alice.pk)
    assert latest_write(alice.pk + 1) is None


@pytest.mark.django_db(transaction=True)
def test_the_doctor_warns_of_a_server_that_is_no_standby(with_replica: None) -> None:
    finding: Any = replica_follows()
    assert finding.status == "WARN"
    assert "it is no standby" in finding.detail
