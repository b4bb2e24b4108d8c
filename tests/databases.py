"""Separate databases for tests of migrations and of the operator's commands."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import psycopg
from django.contrib.contenttypes.models import ContentType
from django.core.management import execute_from_command_line
from django.db import connection, connections
from psycopg import sql

from retrieval import runtime
from tests.support import PATIENCE_S, ROOT, clean_environment, database_url

DROP = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
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

templates: list["Database"] = []


class Database:
    """A separate database on the tests' server, empty or a copy of an unused one."""

    def __init__(self, name: str, *, template: str = "template1") -> None:
        self.name = name
        self._create(template)
        self.url = self._url(name)

    def _create(self, template: str) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as server:
            server.execute(DROP.format(sql.Identifier(self.name)))
            names = map(sql.Identifier, (self.name, template))
            server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))

    def _url(self, name: str) -> str:
        before = connection.settings_dict["NAME"]
        connection.settings_dict["NAME"] = name
        try:
            return database_url(connection)
        finally:
            connection.settings_dict["NAME"] = before

    def run(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """The statement's rows."""
        with psycopg.connect(self.url, autocommit=True) as session:
            cursor = psycopg.ClientCursor(session)
            cursor.execute(statement, params or None)
            return cursor.fetchall() if cursor.description else []

    def start_at(self, migration: str) -> None:
        """Replace the database by one at this migration of the chat, with alice and bob."""
        self._create(database_at(migration))

    def migrate(self, *target: str) -> str:
        """The output of migrate, which must succeed."""
        result = self.command("migrate", *target)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of manage.py in this process, which saves its start (0.8 s of CPU)."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            self.connected(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                execute_from_command_line(["manage.py", *arguments])
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Django's connections, of this thread and of new ones, lead to this database."""
        before, values = connections["default"], connections.settings["default"]
        connections.settings["default"] = values | {"NAME": self.name}
        connections["default"] = connections.create_connection("default")
        runtime.reset()
        try:
            yield
        finally:
            connections["default"].close()
            connections.settings["default"] = values
            connections["default"] = before
            runtime.reset()
            ContentType.objects.clear_cache()  # migrate has filled it with this database's ids

    def process(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in a separate process, with these settings, to its end."""
        process = self.start(*arguments, settings=settings)
        out, err = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(
        self, *arguments: str, merged: bool = False, settings: dict[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start a command in a separate process. ``merged``: stderr goes to stdout."""
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
            server.execute(DROP.format(sql.Identifier(self.name)))


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
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if database.run(
            "SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database()"
        ):
            return
        time.sleep(0.02)
    raise AssertionError("no index is being built")


@cache
def database_at(migration: str) -> str:
    """The name of a database at this migration, with alice and bob: only to be copied.

    This process creates it at the first use; ``drop_templates`` deletes it.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "master")
    template = Database(f"template_{migration}_{worker}")
    template.migrate("chat", migration)
    template.run(USERS)
    templates.append(template)
    return template.name


def drop_templates() -> None:
    """Delete the databases that ``database_at`` created."""
    while templates:
        templates.pop().drop()
