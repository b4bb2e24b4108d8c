"""rag_doctor on columns, functions, triggers, rights, migrations, the extension: each fault is found and mended."""

import pytest
from django.db import connection
from pytest_django import Settings

from retrieval.doctor import check_extension
from retrieval.doctor.report import Status
from retrieval.tests.doctor_support import Patient, check_that_it_is_mended

pytestmark = [pytest.mark.newest_schema]  # some faults are the whole server's
BY_HAND = "ALTER TABLE {table} DROP COLUMN embedding CASCADE; ALTER TABLE {table} ADD COLUMN embedding {kind}"
PASSAGES = BY_HAND.format(table="chat_messages", kind="vector(768)")
CHATS = BY_HAND.format(table="standalone_chat_messages", kind="vector")
OTHER_FUNCTION = """
    CREATE OR REPLACE FUNCTION content_term(owner_id bigint, body text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
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
        "checklist.3",
        "FAIL",
        "ALTER TABLE chat_messages DROP COLUMN embedding CASCADE",
    ),
    "a column has another size": ("checklist.3", "FAIL", PASSAGES),
    "a column has any size": ("trap.13", "FAIL", CHATS),
    "only one of both is right": (
        "trap.14",
        "FAIL",
        "ALTER TABLE chat_messages ALTER embedding SET NOT NULL",
    ),
    "a column refuses NULL": (
        "checklist.3",
        "FAIL",
        "ALTER TABLE chat_messages ALTER embedding SET NOT NULL",
    ),
    "a function is gone": ("checklist.5", "FAIL", "DROP FUNCTION content_term(bigint, text)"),
    "a function is another": ("checklist.5", "FAIL", OTHER_FUNCTION),
    "a table is gone": ("checklist.5", "FAIL", "DROP TABLE embedding_usage"),
    "a trigger is gone": ("checklist.6", "FAIL", "DROP TRIGGER memory_delete ON chat_messages"),
    "a trigger is disabled": (
        "checklist.6",
        "FAIL",
        "ALTER TABLE chat_messages DISABLE TRIGGER memory_insert",
    ),
    "a trigger fires on replicas only": (
        "checklist.6",
        "FAIL",
        "ALTER TABLE chat_messages ENABLE REPLICA TRIGGER clear_stale_embedding",
    ),
    "no trigger fires": (
        "checklist.6",
        "FAIL",
        "ALTER DATABASE {name} SET session_replication_role = replica",
    ),
    "a migration is not applied": ("checklist.7", "WARN", UNAPPLIED),
    "the columns are yet to come": ("trap.19", "WARN", UNAPPLIED),
    "pgvector is old": ("checklist.2", "WARN", VERSION.format("0.8.3")),
    "pgvector is not the server's": ("checklist.2", "WARN", VERSION.format("0.8.4")),
    "pgvector is preloaded": ("trap.6", "WARN", PRELOAD.format("pg_stat_statements, vector")),
    "pgvector alone is preloaded": ("trap.6", "WARN", PRELOAD.format("pgvector")),
}


@pytest.mark.usefixtures("remembering")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_fix_mends(fault: str, patient: Patient, settings: Settings) -> None:
    name, status, sql = FAULTS[fault]
    assert patient.find(name).status is Status.PASS
    patient.run(sql.format(name=patient.name))
    connection.close()
    check_that_it_is_mended(patient, name, status, settings)
    patient.run("ALTER SYSTEM RESET shared_preload_libraries")
    patient.mend_all(settings)


@pytest.mark.parametrize("name", ["checklist.1", "trap.7", "trap.23", "trap.25"])
def test_a_database_without_the_extension_is_told_how_to_make_it(
    name: str, patient: Patient, settings: Settings
) -> None:
    patient.run("DROP EXTENSION vector CASCADE")
    check_that_it_is_mended(patient, name, "FAIL", settings)
    assert patient.find("trap.12").status is Status.FAIL


@pytest.mark.usefixtures("remembering")
def test_what_cascade_has_dropped_is_made_again_and_no_message_is_lost(
    patient: Patient, settings: Settings
) -> None:
    before = patient.run("SELECT count(*) FROM chat_messages")
    patient.run("DROP EXTENSION IF EXISTS vector CASCADE")
    patient.mend(patient.find("checklist.1"), settings)
    check_that_it_is_mended(patient, "trap.12", "FAIL", settings)
    assert patient.run("SELECT count(*) FROM chat_messages WHERE embedding IS NOT NULL") == before
    assert patient.find("checklist.4").status is Status.PASS


def test_azure_s_list_must_name_it(patient: Patient) -> None:
    assert patient.find("trap.21").status is Status.SKIP
    patient.run(f"ALTER DATABASE {patient.name} SET azure.extensions = 'pg_trgm'")
    connection.close()
    found = patient.find("trap.21")
    assert found.status is Status.FAIL
    # The fix is a command of Azure's; what it sets:
    listed = found.fix.rpartition("--value ")[2]
    patient.run(f"ALTER DATABASE {patient.name} SET azure.extensions = '{listed}'")
    connection.close()
    assert patient.find("trap.21").status is Status.PASS
    patient.run(f"ALTER DATABASE {patient.name} RESET azure.extensions")


def test_a_server_without_a_sound_pgvector_says_to_install_it_first(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        check_extension, "SAFE_VERSION", (9, 9, 9)
    )  # later than any that can be had
    found = patient.find("checklist.2")
    assert found.status is Status.WARN
    assert "install it there first" in found.detail
