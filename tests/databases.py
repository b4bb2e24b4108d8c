"""Databases of their own for tests of migrations and of the operator's commands."""

import subprocess
import sys
import time
from typing import Any

import psycopg
from django.db import connection

from tests.support import ROOT, clean_environment, database_url

ROWS = 2_000  # with vectors: one process builds an index for about a second
TABLES = {"chat_messages": "passage_id", "standalone_chat_messages": "chat_id"}
PEOPLE = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff, is_active,
        date_joined)
    SELECT name, '!', false, '', '', '', false, true, now() FROM unnest(ARRAY['alice', 'bob']) name;
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user;
    INSERT INTO passages (user_id, reference, text) SELECT id, 'Tobit 6', 'And the dog followed.' FROM auth_user;
"""
SAY = """
    INSERT INTO {table} (user_id, {parent}, role, content, created_at)
    SELECT user_id, id, 'user', %s, now() FROM {parents} WHERE user_id = (SELECT min(id) FROM auth_user)
"""


class Database:
    """A database of its own on the tests' server, empty or a copy of another that nobody uses."""

    def __init__(self, name: str, *, template: str = "template1") -> None:
        self.name = name
        with psycopg.connect(self._url("postgres"), autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        self.url = self._url(name)

    def _url(self, name: str) -> str:
        before = connection.settings_dict["NAME"]
        connection.settings_dict["NAME"] = name
        try:
            return database_url(connection)
        finally:
            connection.settings_dict["NAME"] = before

    def run(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """The statement's rows."""
        with psycopg.connect(self.url, autocommit=True) as session:
            cursor = psycopg.ClientCursor(session)
            cursor.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else []

    def migrate(self, *target: str) -> str:
        """What migrate says."""
        done = self.command("migrate", *target)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def command(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """A command of manage.py, run to its end in a process of its own."""
        process = self.begin(*arguments, settings=settings)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def begin(
        self, *arguments: str, merged: bool = False, settings: dict[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """A command that runs by itself; ``merged`` puts what it says of failures among the rest."""
        values = {"DATABASE_URL": self.url, "SECRET_KEY": "test"} | (settings or {})
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, text=True, env=clean_environment(**values),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        )  # fmt: skip

    def begin_migrate(self, *target: str) -> "subprocess.Popen[str]":
        """A migrate that runs by itself."""
        return self.begin("migrate", *target, merged=True)

    def start_at(self, migration: str) -> None:
        """Migrate the chat (and so the users) to this migration; with people in it."""
        self.migrate("chat", migration)
        self.run(PEOPLE)

    def say(self, content: str) -> None:
        """A message of alice's in each table, by SQL that knows of nothing younger than 0001."""
        for table, parents in (
            ("chat_messages", "passages"),
            ("standalone_chat_messages", "standalone_chats"),
        ):
            self.run(SAY.format(table=table, parent=TABLES[table], parents=parents), content)

    def drop(self) -> None:
        """Whoever uses it."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")


def fill_with_vectors(database: Database) -> None:
    """Rows with random vectors, so that the build takes a while."""
    database.say("seed")
    for table, parent in TABLES.items():
        database.run(
            f"INSERT INTO {table} (user_id, {parent}, role, content, created_at, embedding) "
            f"SELECT user_id, {parent}, role, 'Row ' || n, created_at, "
            "(SELECT array_agg(random() - 0.5) FROM generate_series(1, 1536) WHERE n > 0)::real[]::vector "
            f"FROM {table}, generate_series(1, {ROWS}) n"
        )


def wait_for_build(database: Database) -> None:
    """Until an index is being built."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if database.run(
            "SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database()"
        ):
            return
        time.sleep(0.02)
    raise AssertionError("no index is being built")
