"""Shared by the tests of backfill_embeddings: messages, and the command in a process or here."""

import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from typing import Any

from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from chat.models import Passage, StandaloneChat
from tests.support import PATIENCE_S, ROOT, clean_environment, database_url

CHAT, PASSAGE = "standalone_chat_messages", "chat_messages"
PARENTS = {CHAT: "chat_id", PASSAGE: "passage_id"}
# The sessions of the command when it runs in a process.
IS_OUR_SESSION = "application_name = 'verse-backfill' AND datname = current_database()"
INSERT_MESSAGES = """
    INSERT INTO {table} (user_id, {parent}, role, content, created_at)
    SELECT %s, %s, 'user', content, now() - interval '1 hour'
    FROM unnest(%s::text[]) WITH ORDINALITY t(content, n) ORDER BY n
    RETURNING id
"""


@dataclass(frozen=True)
class Done:
    """The exit code and the output of the command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard output."""
        return self.out.splitlines()


def add_messages(
    user: User, contents: list[str], *, table: str = CHAT, parent: int | None = None
) -> list[int]:
    """Add messages of the user, in a new conversation unless ``parent`` is given; their ids."""
    if parent is None:
        parent = (StandaloneChat if table == CHAT else Passage).objects.create(user=user).pk
    return [
        row[0]
        for row in query(
            INSERT_MESSAGES.format(table=table, parent=PARENTS[table]), user.pk, parent, contents
        )
    ]


def query(sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """The statement's rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.fetchall() if cursor.description else []


def embedded_texts(table: str = CHAT) -> set[str]:
    """The texts that have a vector."""
    return {row[0] for row in query(f"SELECT content FROM {table} WHERE embedding IS NOT NULL")}


def failure_reasons() -> list[str]:
    """Why rows were set aside."""
    return [
        row[0]
        for row in query(
            "SELECT embedding_error FROM message_memories WHERE embedding_error IS NOT NULL"
        )
    ]


def run(*arguments: str, pause: bool = False) -> Done:
    """The command in this process; without a pause between batches unless ``pause``."""
    out, err = StringIO(), StringIO()
    rest = [] if pause or "--sleep" in arguments else ["--sleep", "0"]
    try:
        call_command("backfill_embeddings", *arguments, *rest, stdout=out, stderr=err)
    except CommandError as error:
        return Done(error.returncode, out.getvalue(), err.getvalue() + str(error))
    return Done(0, out.getvalue(), err.getvalue())


def start(
    base_url: str,
    *arguments: str,
    url: str | None = None,
    terminal: int | None = None,
    **environment: str,
) -> "subprocess.Popen[str]":
    """Start the command in a process, on the tests' database or ``url``, perhaps on a terminal."""
    rest = [] if "--sleep" in arguments else ["--sleep", "0"]
    settings = {
        "DATABASE_URL": with_application_name(url or database_url(connection)),
        "SECRET_KEY": "test",
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "sk-test-0123456789",
    }
    output = terminal or subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "manage.py", "backfill_embeddings", *arguments, *rest],
        cwd=ROOT, text=True, stdout=output, stderr=output,
        env=clean_environment(**settings | environment),
    )  # fmt: skip


def with_application_name(url: str) -> str:
    """The URL, with an application name by which IS_OUR_SESSION finds its sessions."""
    return f"{url}{'&' if '?' in url else '?'}application_name=verse-backfill"


def wait_for_end(process: "subprocess.Popen[str]") -> Done:
    """Wait for the process to end; kill it after PATIENCE_S."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Done(process.returncode, out, err)


def run_process(base_url: str, *arguments: str, url: str | None = None, **environment: str) -> Done:
    """``start``, then wait for the end."""
    return wait_for_end(start(base_url, *arguments, url=url, terminal=None, **environment))


def only_line(err: str) -> str:
    """The one line on standard error, without Django's prefix."""
    assert len(err.strip().splitlines()) == 1, err
    return err.strip().removeprefix("CommandError: ")


def texts(count: int, about: str = "bread") -> list[str]:
    """``count`` different texts."""
    return [f"Number {number} of what I said about {about}" for number in range(count)]
