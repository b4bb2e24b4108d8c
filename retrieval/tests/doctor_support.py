"""A database that faults are made in, and the printed fixes run on, as they are printed."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from embedded_postgres.programs import bin_folder
from retrieval import runtime
from retrieval.doctor.examine import examine
from retrieval.doctor.registry import all_checks
from retrieval.doctor.report import Finding, Status
from tests.support import database_url

MODEL = "text-embedding-3-small"
PEOPLE = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff, is_active,
        date_joined) SELECT name, '!', false, '', '', '', false, true, now() FROM unnest(ARRAY['alice', 'bob']) name;
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user;
    INSERT INTO passages (user_id, reference, text) SELECT id, 'Tobit 6', 'And the dog followed.' FROM auth_user;
"""
SAY = """
    INSERT INTO {table} (user_id, {parent}, role, content, created_at)
    SELECT user_id, id, 'user', 'Secret number ' || n || ' of the ' || (ARRAY['dog', 'bread', 'angel'])[1 + n %% 3],
        now() - n * interval '1 minute' FROM {parents}, generate_series(1, %s) n
"""
EMBED = """
    UPDATE {table} SET embedding = (
        SELECT array_agg(sin(n * (1 + id %% 7)) + 0.3 * random()) FROM generate_series(1, 1536) n
    )::real[]::vector WHERE embedding IS NULL
"""
TABLES = {
    "chat_messages": ("passage_id", "passages"),
    "standalone_chat_messages": ("chat_id", "standalone_chats"),
}
SETTING = re.compile(r"^(?P<name>[A-Z_]+)=(?P<value>.*)$")
TYPES: dict[str, Any] = {
    "EMBEDDING_BUDGET_USD": float,
    "DATABASE_POOL_SIZE": int,
    "WEB_CONCURRENCY": int,
    "DEBUG": lambda text: text == "true",
    "RAG_ENABLED": lambda text: text == "true",
    "ALLOWED_HOSTS": lambda text: text.split(","),
}


class Patient:
    """A database of its own on the tests' server, at the latest migration, with people in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._before = connection.settings_dict["NAME"]
        self._server(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}")
        self.enter()
        call_command("migrate", verbosity=0)
        runtime.reset()
        self.run(PEOPLE)
        self.say(10)
        self.embed()

    def enter(self) -> None:
        """Django's connection leads here from now on."""
        connection.close()
        connection.settings_dict["NAME"] = self.name
        runtime.reset()

    def leave(self) -> None:
        """And back."""
        connection.close()
        connection.settings_dict["NAME"] = self._before
        runtime.reset()

    def run(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """The statement's rows."""
        with connection.cursor() as cursor:
            cursor.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else []

    def say(self, count: int) -> None:
        """So many messages of each user in each table."""
        for table, (parent, parents) in TABLES.items():
            self.run(SAY.format(table=table, parent=parent, parents=parents), count)

    def embed(self) -> None:
        """Vectors of seven subjects for all that has none."""
        self.run(
            "INSERT INTO embedding_models (name, current) VALUES (%s, true) ON CONFLICT DO NOTHING",
            MODEL,
        )
        for table in TABLES:
            self.run(EMBED.format(table=table).replace("%%", "%"))

    def find(self, name: str, *options: str) -> Finding:
        """What the check of this name finds."""
        (check,) = [one for one in all_checks() if one.name == name]
        return examine(check, set(options))

    def mend_all(self, settings: Settings) -> None:
        """Whatever is wrong, one after the other, until nothing is."""
        for _ in range(5):
            names = [
                one.name
                for one in all_checks()
                if one.name.startswith(("checklist", "messages", "index"))
            ]
            wrong = [one for one in map(self.find, names) if one.status is Status.FAIL]
            if not wrong:
                return
            self.mend(wrong[0], settings)
        raise AssertionError(wrong)

    def mend(self, finding: Finding, settings: Settings) -> None:
        """Run the printed fix: SQL by psql, commands by name, settings as from the environment."""
        sql: list[str] = []
        for line in finding.fix.splitlines():
            if line.startswith("python manage.py ") or SETTING.match(line):
                self.psql("\n".join(sql))
                sql = []
                self._step(line, settings)
            else:
                sql.append(line)
        self.psql("\n".join(sql))
        connection.close()  # what is set for the role or the database is there in a new session only
        runtime.reset()

    def _step(self, line: str, settings: Settings) -> None:
        runtime.reset()
        if found := SETTING.match(line):
            setattr(settings, found["name"], TYPES.get(found["name"], str)(found["value"]))
        else:
            call_command(*line.split()[2:], verbosity=0)

    def psql(self, sql: str) -> None:
        """As somebody who pastes it."""
        if not sql.strip():
            return
        psql = bin_folder(connection.settings_dict["EMBEDDED"]["version"]) / "psql"
        ended = subprocess.run(
            [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", self.url],
            input=sql,
            text=True,
            capture_output=True,
        )
        assert ended.returncode == 0, f"{sql}\n{ended.stderr}"

    def shell(self, commands: str) -> None:
        """Lines for a shell, with PostgreSQL's programs, and where the server is, in the environment."""
        params = connection.get_connection_params()
        where = {f"PG{name.upper()}": str(params[name]) for name in ("host", "port", "user")}
        folder = bin_folder(connection.settings_dict["EMBEDDED"]["version"])
        environment = os.environ | where | {"PATH": f"{folder}:{os.environ['PATH']}"}
        with TemporaryDirectory() as here:
            subprocess.run(
                ["sh", "-ec", commands], env=environment, cwd=here, check=True, capture_output=True
            )

    @property
    def url(self) -> str:
        """For other processes."""
        return database_url(connection)

    @contextmanager
    def session(self) -> Iterator["psycopg.Connection[Any]"]:
        """Another session; what it has not committed is gone afterwards, and it may be ended before."""
        with closing(psycopg.connect(self.url)) as other:
            yield other

    def drop(self) -> None:
        """Whoever uses it."""
        self._server(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")

    def _server(self, *statements: str) -> None:
        connection.close()
        before, connection.settings_dict["NAME"] = connection.settings_dict["NAME"], "postgres"
        with closing(psycopg.connect(self.url, autocommit=True)) as server:
            for statement in statements:
                server.execute(statement)
        connection.settings_dict["NAME"] = before


def check_that_it_is_mended(
    patient: Patient, name: str, status: str, settings: Settings, *options: str
) -> Finding:
    """The check finds the fault, which is there; the fix that it prints leaves a PASS."""
    found = patient.find(name, *options)
    assert found.status == status, found
    assert found.fix
    patient.mend(found, settings)
    after = patient.find(name, *options)
    assert after.status is Status.PASS, (found, after)
    return found
