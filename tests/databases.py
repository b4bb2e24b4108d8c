"""Separate databases for tests of migrations and of the operator's commands."""

import subprocess
import sys
import time
from typing import Any

import psycopg
from django.db import connection

from tests.support import ROOT, clean_environment, database_url

ROWS = 2_000  # one process needs about a second to build an index over their vectors
TABLES = {"chat_messages": "passage_id", "standalone_chat_messages": "chat_id"}
USERS = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT name, '!', false, '', '', '', false, true, now()
    FROM unnest(ARRAY['alice', 'bob']) name;
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user;
    INSERT INTO passages (user_id, reference, text)
    SELECT id, 'Tobit 6', 'And the dog followed.' FROM auth_user;
"""
INSERT_MESSAGE = """
    INSERT INTO {table} (user_id, {parent}, role, content, created_at)
    SELECT user_id, id, 'user', %s, now() FROM {parents}
    WHERE user_id = (SELECT min(id) FROM auth_user)
"""


class Database:
    """A separate database on the tests' server, empty or a copy of an unused one."""

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
        """The output of migrate, which must succeed."""
        result = self.command("migrate", *target)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    def command(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of manage.py in a separate process to its end."""
        process = self.start(*arguments, settings=settings)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(
        self, *arguments: str, merged: bool = False, settings: dict[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start a command. ``merged``: stderr goes to stdout."""
        values = {"DATABASE_URL": self.url, "SECRET_KEY": "test"} | (settings or {})
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            text=True,
            env=clean_environment(**values),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        )

    def start_migrate(self, *target: str) -> "subprocess.Popen[str]":
        """Start migrate, with stderr in stdout."""
        return self.start("migrate", *target, merged=True)

    def start_at(self, migration: str) -> None:
        """Migrate the chat, and so the users, to this migration. Adds alice and bob."""
        self.migrate("chat", migration)
        self.run(USERS)

    def add_message(self, content: str) -> None:
        """Add a message of alice to each table, by SQL that fits migration 0001."""
        for table, parents in (
            ("chat_messages", "passages"),
            ("standalone_chat_messages", "standalone_chats"),
        ):
            self.run(
                INSERT_MESSAGE.format(table=table, parent=TABLES[table], parents=parents), content
            )

    def drop(self) -> None:
        """Delete it, even if it is used."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as server:
            server.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")


def fill_with_vectors(database: Database) -> None:
    """Add rows with random vectors, so that building an index takes a while."""
    database.add_message("seed")
    for table, parent in TABLES.items():
        database.run(
            f"INSERT INTO {table} (user_id, {parent}, role, content, created_at, embedding) "
            f"SELECT user_id, {parent}, role, 'Row ' || n, created_at, (SELECT "
            "array_agg(random() - 0.5) FROM generate_series(1, 1536) WHERE n > 0)::real[]::vector "
            f"FROM {table}, generate_series(1, {ROWS}) n"
        )


def wait_for_build(database: Database) -> None:
    """Wait until an index is being built."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if database.run(
            "SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database()"
        ):
            return
        time.sleep(0.02)
    raise AssertionError("no index is being built")
