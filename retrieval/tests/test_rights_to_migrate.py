"""enable_vector and migrate as a role that lacks a right: one line says who grants it, and how."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from psycopg import sql

from tests.databases import Database

pytestmark = pytest.mark.newest_schema


class Limited:
    """A role that may log in, and commands that run as it."""

    def __init__(self, database: Database) -> None:
        self.database, self.role = database, f"limited_{database.name}"
        database.run(f"DROP ROLE IF EXISTS {self.role}")
        database.run(f"CREATE ROLE {self.role} LOGIN")

    def set(self, name: str, value: str) -> None:
        """Give the role a setting, as a provider does."""
        parts = sql.Identifier(self.role), sql.Identifier(*name.split(".")), sql.Literal(value)
        self.database.run(sql.SQL("ALTER ROLE {} SET {} = {}").format(*parts).as_string())

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        url = self.database.url.replace("user=verse", f"user={self.role}")
        return self.database.process(*arguments, DATABASE_URL=url)

    def error(self, *arguments: str) -> str:
        """The one line on standard error of a command that must fail."""
        done = self.command(*arguments)
        assert done.returncode == 1, done.stdout
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.strip().removeprefix("CommandError: ")


@pytest.fixture
def limited(database: Database) -> Iterator[Limited]:
    role = Limited(database)
    yield role
    database.run(f"DROP OWNED BY {role.role}; DROP ROLE {role.role}")


def test_check_names_who_creates_the_extension_and_how(limited: Limited) -> None:
    name, create = limited.database.name, "CREATE EXTENSION IF NOT EXISTS vector SCHEMA public"
    error = limited.error("enable_vector", "--check")
    assert error == (
        f'the extension "vector" is missing, and {limited.role} may not create it. Let a superuser '
        f"run this in the database {name}: {create}; then run enable_vector again"
    )
    report = json.loads(limited.command("enable_vector", "--check", "--json").stdout)
    assert report == {
        "version": None,
        "problem": error,
        "run_as": "a superuser",
        "statement": create,
    }
    as_superuser = limited.database.command("enable_vector", "--check")
    assert as_superuser.stderr == (
        'CommandError: the extension "vector" is missing: run manage.py enable_vector as verse; '
        f"it runs {create} in the database {name}\n"
    )


def test_the_printed_statement_needs_no_search_path(limited: Limited) -> None:
    error = limited.error("enable_vector")
    statement = error.split(": ")[1].split(";")[0]
    limited.database.run(f"SET search_path = ''; {statement}")
    assert limited.command("enable_vector").stdout.endswith(" is enabled\n")


def test_on_heroku_the_default_credential_creates_the_extension(limited: Limited) -> None:
    limited.set("extwlist.extensions", "hstore,postgis")
    assert "Let the database's default credential (heroku pg:psql) run" in limited.error(
        "enable_vector", "--check"
    )
    limited.set("extwlist.extensions", "hstore,vector")
    assert f"run manage.py enable_vector as {limited.role}; it runs" in limited.error(
        "enable_vector", "--check"
    )


def test_on_supabase_postgres_creates_the_extension(limited: Limited) -> None:
    limited.set("supautils.privileged_extensions", "hstore, postgis")
    assert "Let the role postgres (the SQL editor) run" in limited.error("enable_vector", "--check")
    limited.set("supautils.privileged_extensions", "hstore, vector")
    assert f"run manage.py enable_vector as {limited.role}; it runs" in limited.error(
        "enable_vector", "--check"
    )


@pytest.mark.soak
def test_without_usage_on_the_schema_the_grant_is_printed(limited: Limited) -> None:
    limited.database.run("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    limited.database.run(f"GRANT ALL ON SCHEMA public TO {limited.role}")
    grant = f'GRANT USAGE ON SCHEMA extensions TO "{limited.role}"'
    expected = (
        f"the extension is in the schema extensions, which {limited.role} may not use. Let verse "
        f"or a superuser run this in the database {limited.database.name}: {grant}; "
        "then run enable_vector again"
    )
    for command in (["enable_vector"], ["enable_vector", "--check"], ["migrate"]):
        assert limited.error(*command) == expected
    limited.database.run(grant)
    assert limited.command("migrate").returncode == 0
    assert limited.command("enable_vector").stdout.endswith(" is enabled\n")


@pytest.mark.soak
def test_migrate_as_another_role_names_the_owner_of_the_tables(limited: Limited) -> None:
    limited.database.start_at("0001_initial")
    limited.database.run("CREATE EXTENSION vector")
    expected = (
        f"{limited.role} does not own the tables: verse does. Run migrate as verse: its address in "
        "DATABASE_DIRECT_URL, or in DATABASE_URL for this command"
    )
    assert limited.error("migrate") == expected
    limited.database.run(
        f"GRANT ALL ON SCHEMA public TO {limited.role}; "
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {limited.role}"
    )
    assert limited.error("migrate") == expected


def test_migrate_without_the_right_to_create_tables_prints_the_grant(limited: Limited) -> None:
    grant = f'GRANT USAGE, CREATE ON SCHEMA "public" TO "{limited.role}"'
    expected = (
        f"{limited.role} may not create tables in the schema public. Let verse or a superuser run "
        f"this in the database {limited.database.name}: {grant}; then run migrate again"
    )
    assert limited.error("migrate") == expected
    limited.database.run(f"REVOKE ALL ON SCHEMA public FROM PUBLIC; {grant}")
    limited.database.run("CREATE EXTENSION vector")
    assert limited.command("migrate").returncode == 0
