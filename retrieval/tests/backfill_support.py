"""What the tests of backfill_embeddings share: messages, and the command here or in a process of its own."""

import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from typing import Any

from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from chat.models import Passage, StandaloneChat
from tests.support import ROOT, clean_environment, database_url

CHAT, PASSAGE = "standalone_chat_messages", "chat_messages"
PARENTS = {CHAT: "chat_id", PASSAGE: "passage_id"}
PATIENCE_S = 60
OURS = "application_name = 'verse-backfill'"  # sessions of the command in processes of their own
SAY = """
    INSERT INTO {table} (user_id, {parent}, role, content, created_at)
    SELECT %s, %s, 'user', content, now() FROM unnest(%s::text[]) WITH ORDINALITY t(content, n) ORDER BY n
    RETURNING id
"""


@dataclass(frozen=True)
class Done:
    """How the command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it printed."""
        return self.out.splitlines()


def say(
    user: User, contents: list[str], *, table: str = CHAT, parent: int | None = None
) -> list[int]:
    """The user's messages, in a conversation of their own unless ``parent`` is given; their ids."""
    if parent is None:
        parent = (StandaloneChat if table == CHAT else Passage).objects.create(user=user).pk
    return [
        row[0]
        for row in query(SAY.format(table=table, parent=PARENTS[table]), user.pk, parent, contents)
    ]


def query(sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """The statement's rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.fetchall() if cursor.description else []


def embedded(table: str = CHAT) -> set[str]:
    """The texts that have a vector."""
    return {row[0] for row in query(f"SELECT content FROM {table} WHERE embedding IS NOT NULL")}


def set_aside() -> list[str]:
    """The reasons of the rows that were."""
    return [
        row[0]
        for row in query(
            "SELECT embedding_error FROM message_memories WHERE embedding_error IS NOT NULL"
        )
    ]


def run(*arguments: str, pause: bool = False) -> Done:
    """The command in this process; without the second's rest between batches unless ``pause``."""
    out, err = StringIO(), StringIO()
    rest = [] if pause or "--sleep" in arguments else ["--sleep", "0"]
    try:
        call_command("backfill_embeddings", *arguments, *rest, stdout=out, stderr=err)
    except CommandError as error:
        return Done(error.returncode, out.getvalue(), err.getvalue() + str(error))
    return Done(0, out.getvalue(), err.getvalue())


def begin(
    base_url: str,
    *arguments: str,
    url: str | None = None,
    terminal: int | None = None,
    **environment: str,
) -> "subprocess.Popen[str]":
    """The command in a process of its own, on the tests' database or that of ``url``; its output on ``terminal``."""
    rest = [] if "--sleep" in arguments else ["--sleep", "0"]
    values = {
        "DATABASE_URL": named(url or database_url(connection)), "SECRET_KEY": "test", "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "sk-test-0123456789",
    } | environment  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "manage.py", "backfill_embeddings", *arguments, *rest], cwd=ROOT, text=True,
        stdout=terminal or subprocess.PIPE, stderr=terminal or subprocess.PIPE, env=clean_environment(**values),
    )  # fmt: skip


def named(url: str) -> str:
    """The URL whose sessions are OURS."""
    return f"{url}{'&' if '?' in url else '?'}application_name=verse-backfill"


def end_of(process: "subprocess.Popen[str]") -> Done:
    """Wait for it."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return Done(process.returncode, out, err)


def run_apart(base_url: str, *arguments: str, url: str | None = None, **environment: str) -> Done:
    """``begin`` to its end."""
    return end_of(begin(base_url, *arguments, url=url, terminal=None, **environment))


def one_line(err: str) -> str:
    """What a process said on standard error, without Django's word before it."""
    assert len(err.strip().splitlines()) == 1, err
    return err.strip().removeprefix("CommandError: ")


def texts(count: int, about: str = "bread") -> list[str]:
    """So many different ones."""
    return [f"Number {number} of what I said about {about}" for number in range(count)]
