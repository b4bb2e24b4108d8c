"""What a rehearsal needs: the old code, a database with its schema, two servers behind a port."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import psycopg
from django.db import connection

from tests.support import ROOT, Server, clean_environment, database_url, free_port
from tests.worktree import GIT, worktree

DATABASE = "verse_rehearsal"
USERS = 20
SECOND_MIGRATION = "chat/migrations/0002_*.py"
SERVER_NAME = "verse-server"  # application_name of the servers' sessions
FILL = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT 'user' || n, '!', false, '', '', '', false, true, now()
    FROM generate_series(1, %(users)s) n;
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user, generate_series(1, 20);
    INSERT INTO passages (user_id, reference, text)
    SELECT id, 'Tobit 6', 'And the dog followed.' FROM auth_user, generate_series(1, 20);
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT c.user_id, c.id, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        'Number ' || n || ' of what was said about bread, dogs and the weather '
            || md5(n::text || c.id),
        now() - n * interval '1 hour'
    FROM standalone_chats c,
        generate_series(1, %(rows)s / (SELECT count(*)::int FROM standalone_chats)) n;
    INSERT INTO chat_messages (user_id, passage_id, role, content, created_at)
    SELECT p.user_id, p.id, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        'Number ' || n || ' of what was said about Tobias and the angel ' || md5(n::text || p.id),
        now() - n * interval '1 hour'
    FROM passages p, generate_series(1, %(rows)s / (SELECT count(*)::int FROM passages)) n;
"""


@contextlib.contextmanager
def old_code() -> Iterator[Path]:
    """A worktree of the parent of the commit that added the chat's second migration."""
    added = subprocess.check_output(
        [*GIT, "log", "--diff-filter=A", "--format=%H", "--", SECOND_MIGRATION], text=True
    ).split()
    if not added:
        sys.exit(
            "The chat's second migration is not committed yet, so there is no old code to run."
        )
    with worktree(f"{added[-1]}^") as folder:
        yield folder


@contextlib.contextmanager
def scratch_database(rows: int) -> Iterator[str]:
    """A database at migration 0001 with this many messages in each table. Yields its URL."""
    connection.ensure_connection()
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "postgres"
    with psycopg.connect(database_url(connection), autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {DATABASE}")
    connection.settings_dict["NAME"] = DATABASE
    url = database_url(connection)
    connection.settings_dict["NAME"] = name
    for app in ("auth", "contenttypes", "admin", "sessions"):
        manage(url, "migrate", app)
    manage(url, "migrate", "chat", "0001_initial")
    with psycopg.connect(url, autocommit=True) as database:
        psycopg.ClientCursor(database).execute(FILL, {"rows": rows, "users": USERS})
        database.execute("VACUUM ANALYZE")
    yield url


def manage(url: str, *arguments: str, **settings: str) -> str:
    """The output of a command of the new code. A failure ends the rehearsal."""
    own = {"DATABASE_URL": url, "SECRET_KEY": "rehearsal", "PGAPPNAME": "verse-command"}
    result = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(**own, **settings),
    )
    if result.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout + result.stderr


@contextlib.contextmanager
def servers(old: Path, database: str, model: str) -> Iterator[list[Server]]:
    """The old code's server and the new code's, on the same database."""
    values = {
        "DATABASE_URL": f"{database}&application_name={SERVER_NAME}",
        "LLM_BASE_URL": model,
        "OPENAI_BASE_URL": model,
        "OPENAI_API_KEY": "sk-rehearsal",
        "THROTTLE_MESSAGES": "off",
        "STREAMS_PER_USER": "100",
    }
    both = [Server(dict(values), root=old), Server(dict(values))]
    try:
        yield both
    finally:
        for server in both:
            server.end()


@contextlib.contextmanager
def balancer(ports: list[int]) -> Iterator[int]:
    """A port that forwards connections to the servers in turn."""
    turn, loop, port = cycle(ports), asyncio.new_event_loop(), free_port()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", next(turn))
        await asyncio.gather(pipe(reader, other_writer), pipe(other_reader, writer))

    loop.run_until_complete(asyncio.start_server(connect, "127.0.0.1", port))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield port
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def tokens_of(database: str) -> list[tuple[str, list[int], list[int]]]:
    """A token for each user, with the ids of the user's chats and passages."""
    tokens = []
    ids = "SELECT t.id FROM {} t JOIN auth_user u ON u.id = t.user_id WHERE u.username = %s"
    with psycopg.connect(database) as rows:
        for number in range(1, USERS + 1):
            token = manage(database, "create_token", f"user{number}").strip().splitlines()[-1]
            chats, passages = (
                [pk for (pk,) in rows.execute(ids.format(table), [f"user{number}"])]
                for table in ("standalone_chats", "passages")
            )
            tokens.append((token, chats, passages))
    return tokens
