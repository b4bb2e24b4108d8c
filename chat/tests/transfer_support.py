"""Shared by tests of import and export: lines, calls, other sessions, processes."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO, Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection

from chat.models import StandaloneChatMessage
from chat.transfer.exporting import export_lines
from chat.transfer.importing import Imported, import_lines
from tests.support import ROOT, clean_environment, database_url

AT = "2024-05-03T10:00:00.123456Z"
NASTY = [
    "🐕‍🦺 Biscuit\u200d, ñandú, 犬",
    "\u202eשלום עולם\u202c مرحبا",
    'it\'s a "quote", a \\ and a \\\\',
    "\\.",
    "first\n\\.\nlast",
    "\\N",
    "\ttab\r\nand \u2028 and \u0085 and \x01 and \x7f",
    "  kept as it is  ",
    "%s %(name)s {braces} $1 :x --; DROP",
    "x" * 32_000,
    "🐕" * 32_000,
]


def line(**changes: Any) -> bytes:
    """A good line of alice's with these changes; a field changed to ... is left out."""
    fields = {
        "user": "alice",
        "conversation": "c",
        "role": "user",
        "content": "Hello",
        "created_at": AT,
    } | changes
    return (
        json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()
        + b"\n"
    )


def imported(*lines: bytes, create_users: bool = False, skip_bad: bool = False) -> Imported:
    """Imports these lines."""
    return import_lines(
        lines, create_users=create_users, skip_bad=skip_bad, progress=lambda _lines: None
    )


def streamed(lines: Iterable[bytes]) -> Imported:
    """Imports lines that are read one by one while the transaction is open."""
    return import_lines(lines, create_users=True, skip_bad=False, progress=lambda _lines: None)


def exported(user: User | None = None) -> bytes:
    """All lines of the export."""
    return b"".join(export_lines(user))


def stored() -> list[str]:
    """The contents of the chats' messages in the order of insertion."""
    return list(StandaloneChatMessage.objects.order_by("id").values_list("content", flat=True))


def manage(
    *arguments: str, lines: bytes = b"", stdout: int | IO[bytes] = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own, on the test's database."""
    environment = clean_environment(DATABASE_URL=database_url(connection), SECRET_KEY="test")
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, input=lines, stdout=stdout, stderr=subprocess.PIPE
    )


def many(count: int) -> Iterator[bytes]:
    """Lines in conversations of 80 messages."""
    for number in range(count):
        at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        yield line(
            conversation=f"c{number // 80}", content=f"Message {number}", created_at=at.isoformat()
        )


def run(*arguments: str) -> str:
    """The output of import_messages."""
    out = io.StringIO()
    call_command("import_messages", *arguments, stdout=out)
    return out.getvalue()


def watched(*looks: Callable[[], object]) -> Iterator[bytes]:
    """Lines; before each hundred, while the import reads, one of the ``looks`` is called."""
    for number, look in enumerate(looks):
        look()
        yield from (line(content=f"{number} {place}") for place in range(100))


@contextmanager
def during_the_inserts(act: Callable[[], object]) -> Iterator[None]:
    """Calls ``act`` once an import has inserted its messages, before it commits."""
    done: list[bool] = []

    def execute(run: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        result = run(sql, *arguments)
        if "both_sides" in str(sql) and not done:
            done.append(True)
            act()
        return result

    with connection.execute_wrapper(execute):
        yield
    assert done
