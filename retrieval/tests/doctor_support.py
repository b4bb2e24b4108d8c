"""A database for faults, in which the doctor's fixes are run as they are printed."""

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
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT name, '!', false, '', '', '', false, true, now()
    FROM unnest(ARRAY['alice', 'bob']) name;
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user;
    INSERT INTO passages (user_id, reference, text)
    SELECT id, 'Tobit 6', 'And the dog followed.' FROM auth_user;
"""
# An answer, and a server's start, as a chat that is used has them.
USED = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at, status)
    SELECT user_id, id, 'assistant', 'I see.', now(), 'complete' FROM standalone_chats LIMIT 1;
    INSERT INTO log_counts (minute, kind, at_start, count)
    VALUES (date_trunc('minute', now()), 'Application startup complete.', true, 1);
"""
# Memory is older than an hour, for which criterion.3 lets messages wait.
OLD_MEMORY = "UPDATE django_migrations SET applied = now() - interval '1 day'"
ADD_MESSAGES = """
    INSERT INTO {table} (user_id, {parent}, role, content, created_at)
    SELECT user_id, id, 'user',
        'Secret number ' || n || ' of the ' || (ARRAY['dog', 'bread', 'angel'])[1 + n %% 3],
        now() - n * interval '1 minute'
    FROM {parents}, generate_series(1, %s) n
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


class FaultyDatabase:
    """A database on the tests' server, at the latest migration, with messages of two users."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._before = connection.settings_dict["NAME"]
        self._server(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}")
        self.enter()
        call_command("migrate", verbosity=0)
        runtime.reset()
        self.run(PEOPLE)
        self.run(USED)
        self.run(OLD_MEMORY)
        self.add_messages(10)
        self.embed()

    def enter(self) -> None:
        """Connect Django to this database."""
        connection.close()
        connection.settings_dict["NAME"] = self.name
        runtime.reset()

    def leave(self) -> None:
        """Connect Django to the previous database again."""
        connection.close()
        connection.settings_dict["NAME"] = self._before
        runtime.reset()

    def run(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else []

    def add_messages(self, count: int) -> None:
        """Add this number of messages of each user to each table."""
        for table, (parent, parents) in TABLES.items():
            self.run(ADD_MESSAGES.format(table=table, parent=parent, parents=parents), count)

    def embed(self) -> None:
        """Give each message without a vector one of seven subjects."""
        self.run(
            "INSERT INTO embedding_models (name, current) VALUES (%s, true) ON CONFLICT DO NOTHING",
            MODEL,
        )
        for table in TABLES:
            self.run(EMBED.format(table=table).replace("%%", "%"))

    def check(self, name: str, *options: str) -> Finding:
        (check,) = [check for check in all_checks() if check.name == name]
        return examine(check, set(options))

    def fix_all(self, settings: Settings) -> None:
        """Apply fixes until no check of schema, messages and indexes fails."""
        for _ in range(5):
            names = [
                check.name
                for check in all_checks()
                if check.name.startswith(("checklist", "messages", "index"))
            ]
            findings = [self.check(name) for name in names]
            failures = [finding for finding in findings if finding.status is Status.FAIL]
            if not failures:
                return
            self.apply_fix(failures[0], settings)
        raise AssertionError(failures)

    def apply_fix(self, finding: Finding, settings: Settings) -> None:
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
        connection.close()  # settings of a role or a database apply to new sessions
        runtime.reset()

    def _step(self, line: str, settings: Settings) -> None:
        runtime.reset()
        if match := SETTING.match(line):
            setattr(settings, match["name"], TYPES.get(match["name"], str)(match["value"]))
        else:
            call_command(*line.split()[2:], verbosity=0)

    def psql(self, sql: str) -> None:
        if not sql.strip():
            return
        psql = bin_folder(connection.settings_dict["EMBEDDED"]["version"]) / "psql"
        for _ in range(5):  # an exceeded lock_timeout means: run the lines again
            done = subprocess.run(
                [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", self.url],
                input=sql,
                text=True,
                capture_output=True,
            )
            if "due to lock timeout" not in done.stderr:
                break
        assert done.returncode == 0, f"{sql}\n{done.stderr}"

    def shell(self, commands: str) -> None:
        """Run shell lines; the environment has PostgreSQL's programs and the server's address."""
        params = connection.get_connection_params()
        where = {f"PG{name.upper()}": str(params[name]) for name in ("host", "port", "user")}
        programs = bin_folder(connection.settings_dict["EMBEDDED"]["version"])
        environment = os.environ | where | {"PATH": f"{programs}:{os.environ['PATH']}"}
        with TemporaryDirectory() as folder:
            subprocess.run(
                ["sh", "-ec", commands],
                env=environment,
                cwd=folder,
                check=True,
                capture_output=True,
            )

    @property
    def url(self) -> str:
        return database_url(connection)

    @contextmanager
    def session(self) -> Iterator["psycopg.Connection[Any]"]:
        """Another session, rolled back and closed at the end. A fix may terminate it earlier."""
        with closing(psycopg.connect(self.url)) as other:
            yield other

    def drop(self) -> None:
        self._server(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")

    def _server(self, *statements: str) -> None:
        connection.close()
        before, connection.settings_dict["NAME"] = connection.settings_dict["NAME"], "postgres"
        with closing(psycopg.connect(self.url, autocommit=True)) as server:
            for statement in statements:
                server.execute(statement)
        connection.settings_dict["NAME"] = before


def assert_fix_works(
    faulty: FaultyDatabase, name: str, status: str, settings: Settings, *options: str
) -> Finding:
    """Assert that the check reports the fault, and that its printed fix leads to a PASS."""
    finding = faulty.check(name, *options)
    assert finding.status == status, finding
    assert finding.fix
    faulty.apply_fix(finding, settings)
    after = faulty.check(name, *options)
    assert after.status is Status.PASS, (finding, after)
    return finding
