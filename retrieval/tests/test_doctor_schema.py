"""rag_doctor on schema, migrations, extension: each fault is reported, its printed fix works."""

import pytest
from django.db import connection
from pytest_django import Settings

from retrieval.doctor import check_extension
from retrieval.doctor.report import Status
from retrieval.schema import extension
from retrieval.tests.doctor_support import FaultyDatabase, assert_fix_works

pytestmark = [pytest.mark.newest_schema]  # some faults are the whole server's
BY_HAND = """
    ALTER TABLE {table} DROP COLUMN embedding CASCADE;
    ALTER TABLE {table} ADD COLUMN embedding {kind}
"""
PASSAGES = BY_HAND.format(table="chat_messages", kind="vector(768)")
CHATS = BY_HAND.format(table="standalone_chat_messages", kind="vector")
OTHER_FUNCTION = """
    CREATE OR REPLACE FUNCTION content_term(owner_id bigint, body text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT 1::bigint $$
"""
VERSION = "UPDATE pg_extension SET extversion = '{}' WHERE extname = 'vector'"
PRELOAD = "ALTER SYSTEM SET shared_preload_libraries = {}"
UNAPPLIED = """
    DELETE FROM django_migrations WHERE app = 'chat'
        AND name = (SELECT max(name) FROM django_migrations WHERE app = 'chat')
"""
FAULTS = {
    "a column is dropped": (
        "checklist.5",
        "FAIL",
        "ALTER TABLE chat_messages DROP COLUMN embedding CASCADE",
    ),
    "a column has another size": ("checklist.5", "FAIL", PASSAGES),
    "a column has any size": ("trap.13", "FAIL", CHATS),
    "only one of both is right": (
        "trap.14",
        "FAIL",
        "ALTER TABLE chat_messages ALTER embedding SET NOT NULL",
    ),
    "a column refuses NULL": (
        "checklist.5",
        "FAIL",
        "ALTER TABLE chat_messages ALTER embedding SET NOT NULL",
    ),
    "a function is dropped": ("checklist.5", "FAIL", "DROP FUNCTION content_term(bigint, text)"),
    "a function is another": ("checklist.5", "FAIL", OTHER_FUNCTION),
    "a table is dropped": ("checklist.5", "FAIL", "DROP TABLE embedding_usage"),
    "a trigger is dropped": ("checklist.5", "FAIL", "DROP TRIGGER memory_delete ON chat_messages"),
    "a trigger is disabled": (
        "checklist.5",
        "FAIL",
        "ALTER TABLE chat_messages DISABLE TRIGGER memory_insert",
    ),
    "a trigger fires on replicas only": (
        "checklist.5",
        "FAIL",
        "ALTER TABLE chat_messages ENABLE REPLICA TRIGGER clear_stale_embedding",
    ),
    "no trigger fires": (
        "checklist.5",
        "FAIL",
        "ALTER DATABASE {name} SET session_replication_role = replica",
    ),
    "a migration is not applied": ("checklist.5", "WARN", UNAPPLIED),
    "the columns are yet to come": ("trap.19", "WARN", UNAPPLIED),
    "pgvector is old": ("checklist.2", "WARN", VERSION.format("0.8.3")),
    "pgvector is not the server's": ("checklist.2", "WARN", VERSION.format("0.8.4")),
    "pgvector is preloaded": ("trap.6", "WARN", PRELOAD.format("pg_stat_statements, vector")),
    "pgvector alone is preloaded": ("trap.6", "WARN", PRELOAD.format("pgvector")),
}


@pytest.mark.usefixtures("remembering")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_printed_fix_works(fault: str, faulty: FaultyDatabase, settings: Settings) -> None:
    name, status, sql = FAULTS[fault]
    assert faulty.check(name).status is Status.PASS
    faulty.run(sql.format(name=faulty.name))
    connection.close()
    assert_fix_works(faulty, name, status, settings)
    faulty.run("ALTER SYSTEM RESET shared_preload_libraries")
    faulty.fix_all(settings)


@pytest.mark.parametrize("name", ["criterion.2", "trap.7", "trap.23", "trap.25"])
def test_a_missing_extension_fails_and_is_fixed(
    name: str, faulty: FaultyDatabase, settings: Settings
) -> None:
    faulty.run("DROP EXTENSION vector CASCADE")
    assert_fix_works(faulty, name, "FAIL", settings)
    assert faulty.check("trap.12").status is Status.FAIL


def test_an_extension_that_is_too_old_is_updated_not_created(faulty: FaultyDatabase) -> None:
    ((version,),) = faulty.run("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    faulty.run(VERSION.format("0.6.2"))
    finding = faulty.check("criterion.2")
    faulty.run(VERSION.format(version))
    assert (finding.status, finding.fix) == (Status.FAIL, "ALTER EXTENSION vector UPDATE;")
    assert "The server has only" not in finding.detail


def test_a_server_with_an_old_pgvector_says_to_install_it_first(
    faulty: FaultyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension, "OLDEST", (9, 9))  # later than any that can be had
    finding = faulty.check("criterion.2")
    assert "install a later one there, the package postgresql-" in finding.detail


@pytest.mark.usefixtures("remembering")
def test_columns_dropped_by_cascade_are_added_and_no_message_is_lost(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    before = faulty.run("SELECT count(*) FROM chat_messages")
    faulty.run("DROP EXTENSION IF EXISTS vector CASCADE")
    faulty.apply_fix(faulty.check("criterion.2"), settings)
    assert_fix_works(faulty, "trap.12", "FAIL", settings)
    assert faulty.run("SELECT count(*) FROM chat_messages WHERE embedding IS NOT NULL") == before
    assert faulty.check("checklist.5").status is Status.PASS


def test_azure_extensions_must_list_vector(faulty: FaultyDatabase) -> None:
    assert faulty.check("trap.21").status is Status.SKIP
    faulty.run(f"ALTER DATABASE {faulty.name} SET azure.extensions = 'pg_trgm'")
    connection.close()
    finding = faulty.check("trap.21")
    assert finding.status is Status.FAIL
    # The fix is a command of Azure's; what it sets:
    listed = finding.fix.rpartition("--value ")[2]
    faulty.run(f"ALTER DATABASE {faulty.name} SET azure.extensions = '{listed}'")
    connection.close()
    assert faulty.check("trap.21").status is Status.PASS
    faulty.run(f"ALTER DATABASE {faulty.name} RESET azure.extensions")


def test_a_server_without_a_safe_pgvector_says_to_install_it(
    faulty: FaultyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        check_extension, "SAFE_VERSION", (9, 9, 9)
    )  # later than any that can be had
    finding = faulty.check("checklist.2")
    assert finding.status is Status.WARN
    assert "on the server first" in finding.detail
