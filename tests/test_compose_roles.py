"""Compose's services with a real database: each as its own role, none as a superuser."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import compose
from tests.databases import USERS, Database
from tests.support import ROOT, Server, clean_environment

pytestmark = pytest.mark.newest_schema
BIN = Path(sys.executable).parent
POWERS = """
    SELECT bool_or(rolsuper OR rolcreaterole OR rolcreatedb) FROM pg_roles WHERE rolname = ANY (%s)
"""
OWNERS = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'"
STORED = "SELECT count(*) FROM pg_authid WHERE rolname = ANY (%s) AND rolpassword LIKE 'SCRAM%%'"


@pytest.fixture
def composed(database: Database) -> Iterator[Database]:
    """An empty database after deploy/roles.sql."""
    with compose.roles(database):
        yield database


def url_of(service: str, database: Database) -> str:
    """The test database as the role in this service's DATABASE_URL."""
    configured = compose.services()[service]["environment"]["DATABASE_URL"]
    role = configured.removeprefix("postgresql://").partition(":")[0]
    return database.url.replace("user=verse", f"user={role}")


def run(service: str, database: Database, *command: str) -> str:
    """The output of the service's command, or of another, which must succeed."""
    done = subprocess.run(
        command or compose.command(service),
        cwd=ROOT,
        env=clean_environment(DATABASE_URL=url_of(service, database), SECRET_KEY="test")
        | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.soak
def test_compose_migrates_serves_and_fills_without_a_superuser(composed: Database) -> None:
    names = list(compose.ROLES)
    assert composed.run(POWERS, names) == [(False,)]
    assert composed.run(STORED, names) == [(3,)]
    migrated = run("migrate", composed)
    assert "is enabled" in migrated
    assert "Granted to" in migrated
    assert composed.run(OWNERS) == [("verse_owner",)]
    manage = ("python", "manage.py")
    server = Server({"DATABASE_URL": url_of("web", composed), "EMBEDDINGS": "none"})
    try:
        assert server.client().get("/readyz").json()["status"] == "ok"
    finally:
        server.end()
    assert "Messages to backfill: 0" in run("backfill", composed, *manage, "rag_cost_estimate")
    assert "No migrations to apply" in run("migrate", composed)  # again, as after an update


FUNCTION_OWNERS = """
    SELECT DISTINCT p.proowner::regrole::text FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
"""
SEQUENCE_OWNERS = "SELECT DISTINCT sequenceowner::text FROM pg_sequences"


@pytest.mark.soak
def test_a_database_that_a_superuser_has_migrated_gets_the_owner(database: Database) -> None:
    database.run("CREATE EXTENSION vector")
    database.migrate()
    database.run(USERS)
    database.add_message("Before")
    assert database.run(OWNERS) == [("verse",)]
    with compose.roles(database):
        for owners in (OWNERS, FUNCTION_OWNERS, SEQUENCE_OWNERS):
            assert database.run(owners) == [("verse_owner",)]
        assert "No migrations to apply" in run("migrate", database)
        database.add_message("As the superuser, by the old server")
        ((count,),) = database.run("SELECT count(*) FROM message_memories")
        assert count == 4


def test_a_lock_ends_the_roles_file_which_is_run_again(composed: Database) -> None:
    composed.run("CREATE TABLE later (id int)")
    with psycopg.connect(composed.url) as session:
        session.execute("SELECT FROM later")
        ended = compose.run_roles_sql(composed)
    assert ended.returncode != 0
    assert "lock timeout" in ended.stderr
    assert compose.run_roles_sql(composed).returncode == 0
    assert composed.run(OWNERS) == [("verse_owner",)]


def test_the_roles_file_can_be_run_again(composed: Database) -> None:
    before = composed.run("SELECT rolpassword FROM pg_authid WHERE rolname = 'verse_web'")
    again = compose.run_roles_sql(composed)
    assert again.returncode == 0, again.stderr
    assert before != composed.run("SELECT rolpassword FROM pg_authid WHERE rolname = 'verse_web'")
