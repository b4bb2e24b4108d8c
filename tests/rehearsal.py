"""Rehearse the rollout: memory is added to a live chat, and taken away again, while the old and the new code serve.

    make rehearse            python -m tests.rehearsal [--rows 20000] [--rate 20] [--seconds 10]

The old code is the parent of the commit that added the chat's second migration, run from a git worktree; the new
code is this folder. Both serve one database at migration 0001, behind one port. Writers and readers ask through it;
now and then a transaction stays open for 3 s. Meanwhile `migrate` goes to the latest migration, and back to 0001.
Exit code 1: a request failed, a row was lost, or somebody waited longer than half a second.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import httpx2
import psycopg
from django.db import connection

from fake_openai import Answer, FakeOpenAI
from tests.support import ROOT, Server, clean_environment, database_url, free_port

DATABASE = "verse_rehearsal"
USERS = 20
MOST_WAIT_MS = 500  # contract section 7
OPEN_TRANSACTION_S = 3
PAUSE_S = 1  # between them
WITHIN_S = 60  # contract section 7: a running server turns recall on within
SECOND_MIGRATION = "chat/migrations/0002_*.py"
# How long sessions of the servers have waited for a lock by now, in milliseconds.
WAITING = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart) * 1000), 0)
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND a.application_name = 'verse-server'
"""
FILL = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff, is_active,
        date_joined)
    SELECT 'user' || n, '!', false, '', '', '', false, true, now() FROM generate_series(1, %(users)s) n;
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user, generate_series(1, 20);
    INSERT INTO passages (user_id, reference, text) SELECT id, 'Tobit 6', 'And the dog followed.' FROM auth_user,
        generate_series(1, 20);
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT c.user_id, c.id, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        'Number ' || n || ' of what was said about bread, dogs and the weather ' || md5(n::text || c.id),
        now() - n * interval '1 hour'
    FROM standalone_chats c, generate_series(1, %(rows)s / (SELECT count(*)::int FROM standalone_chats)) n;
    INSERT INTO chat_messages (user_id, passage_id, role, content, created_at)
    SELECT p.user_id, p.id, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        'Number ' || n || ' of what was said about Tobias and the angel ' || md5(n::text || p.id),
        now() - n * interval '1 hour'
    FROM passages p, generate_series(1, %(rows)s / (SELECT count(*)::int FROM passages)) n;
"""


@dataclass
class Traffic:
    """What the writers and readers saw."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    written: dict[tuple[str, int], str] = field(default_factory=dict)  # (table, id) → content
    longest_ms: float = 0.0
    longest_lock_ms: float = 0.0
    waits: list[str] = field(default_factory=list)  # what migrate said of tables in use
    phase: str = "before"
    by_phase: dict[str, float] = field(default_factory=dict)

    def note(self, milliseconds: float) -> None:
        """A request's time."""
        self.requests += 1
        self.longest_ms = max(self.longest_ms, milliseconds)
        self.by_phase[self.phase] = max(self.by_phase.get(self.phase, 0.0), milliseconds)


def main() -> None:
    """Rehearse, print what was seen, and exit with 1 where it was not calm."""
    options = parse()
    with old_code() as folder, scratch_database(options.rows) as database, FakeOpenAI() as model:
        model.chat.default = Answer("I see, and I shall remember the bread.")
        with servers(folder, database, model.base_url) as both, balancer([one.port for one in both]) as port:
            traffic, recall_s = asyncio.run(rehearse(port, database, both[1], options))
    report(traffic, recall_s, options)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="messages in each table at the start")
    parser.add_argument("--rate", type=int, default=20, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10, help="of calm traffic before, between and after")
    parser.add_argument("--json", action="store_true", help="print one object")
    return parser.parse_args()


@contextlib.contextmanager
def old_code() -> Iterator[Path]:
    """A worktree of the parent of the commit that added the chat's second migration."""
    git = ["git", "-C", str(ROOT)]
    added = subprocess.check_output(
        [*git, "log", "--diff-filter=A", "--format=%H", "--", SECOND_MIGRATION], text=True
    ).split()
    if not added:
        sys.exit("The chat's second migration is not committed yet: there is no old code to rehearse with.")
    folder = Path(tempfile.mkdtemp(prefix="verse-old-"))
    subprocess.run([*git, "worktree", "add", "--quiet", "--detach", folder, f"{added[-1]}^"], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", folder], check=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def scratch_database(rows: int) -> Iterator[str]:
    """A database at migration 0001 with so many messages a table; its URL."""
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


def manage(url: str, *arguments: str) -> str:
    """What a command of the new code says. Ends the rehearsal where it fails."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        env=clean_environment(DATABASE_URL=url, SECRET_KEY="rehearsal", PGAPPNAME="verse-migrate"),
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def waits_in(said: str) -> list[str]:
    """The lines in which migrate tells what it waited for, and who held it."""
    return [line.strip() for line in said.splitlines() if "trying again" in line]


@contextlib.contextmanager
def servers(old: Path, database: str, model: str) -> Iterator[list[Server]]:
    """The old code's server and the new code's, on one database."""
    values = {
        "DATABASE_URL": f"{database}&application_name=verse-server",
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
        for one in both:
            one.end()


@contextlib.contextmanager
def balancer(ports: list[int]) -> Iterator[int]:
    """A port whose connections go to the servers in turn."""
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


async def rehearse(
    port: int, database: str, new: Server, options: argparse.Namespace
) -> tuple[Traffic, float | None]:
    """Traffic throughout; forward, a look for recall, and back. Seconds until recall was on, None: it stayed off."""
    traffic = Traffic()
    tokens = await asyncio.to_thread(tokens_of, database)
    stop = asyncio.Event()
    around = [
        asyncio.create_task(ask(port, tokens, traffic, stop, options.rate)),
        asyncio.create_task(hold_transactions(database, stop)),
        asyncio.create_task(watch_locks(database, traffic, stop)),
    ]
    await asyncio.sleep(options.seconds)
    traffic.phase = "forward"
    traffic.waits += waits_in(await asyncio.to_thread(manage, database, "migrate"))
    traffic.phase = "with memory"
    recall_s = await recall_is(new, tokens, on=True)
    await asyncio.sleep(options.seconds)
    traffic.phase = "back"
    traffic.waits += waits_in(await asyncio.to_thread(manage, database, "migrate", "chat", "0001_initial"))
    traffic.phase = "after"
    if await recall_is(new, tokens, on=False) is None:
        traffic.failures.append("recall did not turn off")
    await asyncio.sleep(options.seconds)
    stop.set()
    await asyncio.gather(*around)
    await asyncio.to_thread(find_lost, database, traffic)
    traffic.failures += [line for line in new.log.splitlines() if line.startswith("ERROR")]
    return traffic, recall_s


def tokens_of(database: str) -> list[tuple[str, list[int], list[int]]]:
    """A token for each user, with the ids of the user's chats and passages."""
    made = []
    with psycopg.connect(database) as rows:
        for number in range(1, USERS + 1):
            token = manage(database, "create_token", f"user{number}").strip().splitlines()[-1]
            chats, passages = (
                [pk for (pk,) in rows.execute(
                    f"SELECT id FROM {table} WHERE user_id = (SELECT id FROM auth_user WHERE username = %s)",
                    [f"user{number}"],
                )]
                for table in ("standalone_chats", "passages")
            )  # fmt: skip
            made.append((token, chats, passages))
    return made


async def ask(port: int, tokens: list[Any], traffic: Traffic, stop: asyncio.Event, rate: int) -> None:
    """So many requests a second, each on a connection of its own: so old and new code take turns."""
    running: set[asyncio.Task[None]] = set()
    number = 0
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, limits=limits) as client:
        while not stop.is_set():
            number += 1
            token, chats, passages = tokens[number % len(tokens)]
            kind, ids = (("chats", chats), ("passages", passages))[number // 3 % 2]
            address = f"/api/{kind}/{ids[number // len(tokens) % len(ids)]}/messages/"
            running.add(task := asyncio.create_task(one_request(client, traffic, token, address, number)))
            task.add_done_callback(running.discard)
            await asyncio.sleep(1 / rate)
        await asyncio.gather(*running)


async def one_request(client: httpx2.AsyncClient, traffic: Traffic, token: str, address: str, number: int) -> None:
    """A turn, a list, a new turn's edit or deletion: whatever comes next."""
    headers = {"Authorization": f"Token {token}", "Connection": "close"}
    began = time.monotonic()
    try:
        if number % 3:
            response = await client.get(address, headers=headers)
        else:
            response = await client.post(address, json={"content": f"Bread number {number}"}, headers=headers)
            # 409: another question of this conversation is being answered, an answer as good as any
            if response.status_code == 201:
                table = "chat_messages" if "passages" in address else "standalone_chat_messages"
                for message in (response.json()["user_message"], response.json()["assistant_message"]):
                    traffic.written[table, message["id"]] = message["content"]
        if response.status_code not in (200, 201, 409):
            traffic.failures.append(f"{traffic.phase}: {response.status_code} {response.text[:200]}")
    except httpx2.HTTPError as error:
        traffic.failures.append(f"{traffic.phase}: {type(error).__name__}")
    traffic.note((time.monotonic() - began) * 1000)


async def hold_transactions(database: str, stop: asyncio.Event) -> None:
    """A transaction that has read both tables stays open for 3 s, again and again."""
    async with await psycopg.AsyncConnection.connect(database) as held:
        while not stop.is_set():
            for table in ("standalone_chat_messages", "chat_messages"):
                await held.execute(f"SELECT count(*) FROM {table} WHERE id < 100")
            await asyncio.sleep(OPEN_TRANSACTION_S)
            await held.commit()
            await asyncio.sleep(PAUSE_S)


async def watch_locks(database: str, traffic: Traffic, stop: asyncio.Event) -> None:
    """How long a server's session has waited for a lock, looked at every 10 ms."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as look:
        while not stop.is_set():
            row = await (await look.execute(WAITING)).fetchone()
            traffic.longest_lock_ms = max(traffic.longest_lock_ms, float(row[0]) if row else 0.0)
            await asyncio.sleep(0.01)


async def recall_is(new: Server, tokens: list[Any], *, on: bool) -> float | None:
    """Seconds until the new server's recall is on (or off); None where it does not change in WITHIN_S."""
    began = time.monotonic()
    async with httpx2.AsyncClient(base_url=new.url, timeout=20) as client:
        while time.monotonic() - began < WITHIN_S:
            response = await client.get("/api/memory/", headers={"Authorization": f"Token {tokens[0][0]}"})
            if (response.json().get("mode") != "off") == on:
                return time.monotonic() - began
            await asyncio.sleep(0.5)
    return None


def find_lost(database: str, traffic: Traffic) -> None:
    """What was answered 201 and is not there, as it was answered, is lost."""
    with psycopg.connect(database) as rows:
        for (table, pk), content in traffic.written.items():
            found = rows.execute(f"SELECT content FROM {table} WHERE id = %s", [pk]).fetchone()
            if found is None or found[0] != content:
                traffic.failures.append(f"lost: {table} {pk}")


def report(traffic: Traffic, recall_s: float | None, options: argparse.Namespace) -> None:
    """Print, and exit with 1 where it was not calm."""
    lost = [one for one in traffic.failures if one.startswith("lost")]
    seen = {
        "rows_a_table": options.rows,
        "requests": traffic.requests,
        "messages_written": len(traffic.written),
        "failed": len(traffic.failures) - len(lost),
        "lost": len(lost),
        "longest_request_ms": round(traffic.longest_ms),
        "longest_request_ms_by_phase": {name: round(value) for name, value in traffic.by_phase.items()},
        "longest_lock_wait_ms": round(traffic.longest_lock_ms),
        "migrate_had_to_try_again": len(traffic.waits),
        "recall_on_after_s": None if recall_s is None else round(recall_s, 1),
    }
    if options.json:
        print(json.dumps(seen))
    else:
        print("\n".join(f"{name.replace('_', ' '):32} {value}" for name, value in seen.items()))
    for line in (*traffic.waits, *traffic.failures[:10]):
        print(f"  {line}", file=sys.stderr)
    calm = not traffic.failures and traffic.longest_lock_ms <= MOST_WAIT_MS and traffic.longest_ms <= MOST_WAIT_MS
    sys.exit(0 if calm and recall_s is not None else 1)


if __name__ == "__main__":
    main()
