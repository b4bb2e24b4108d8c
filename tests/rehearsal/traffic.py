"""Traffic of a rehearsal: requests, long transactions, and measured lock waits."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
import psycopg

from tests.rehearsal.stage import SERVER_NAME

OPEN_TRANSACTION_S = 3
PAUSE_S = 1  # between them
SNAPSHOT_S = 30
SNAPSHOT_PAUSE_S = 20
# The longest current lock wait of the servers' sessions, in milliseconds.
LONGEST_LOCK_WAIT = """
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart) * 1000), 0)
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND a.application_name = %s
"""


@dataclass
class Traffic:
    """What happened to the requests."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    written: dict[tuple[str, int], str] = field(default_factory=dict)  # (table, id) → content
    longest_ms: float = 0.0
    longest_lock_ms: float = 0.0
    waits: list[str] = field(default_factory=list)  # lines of migrate about tables in use
    phase: str = "before"
    by_phase: dict[str, float] = field(default_factory=dict)

    def record(self, milliseconds: float) -> None:
        """Record a request's duration."""
        self.requests += 1
        self.longest_ms = max(self.longest_ms, milliseconds)
        self.by_phase[self.phase] = max(self.by_phase.get(self.phase, 0.0), milliseconds)


async def send_requests(
    port: int, tokens: list[Any], traffic: Traffic, stop: asyncio.Event, rate: int
) -> None:
    """Send ``rate`` requests a second, each on a new connection: old and new code take turns."""
    running: set[asyncio.Task[None]] = set()
    number = 0
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=20, limits=limits
    ) as client:
        while not stop.is_set():
            number += 1
            token, chats, passages = tokens[number % len(tokens)]
            kind, ids = (("chats", chats), ("passages", passages))[number // 3 % 2]
            address = f"/api/{kind}/{ids[number // len(tokens) % len(ids)]}/messages/"
            request = send_request(client, traffic, token, address, number)
            running.add(task := asyncio.create_task(request))
            task.add_done_callback(running.discard)
            await asyncio.sleep(1 / rate)
        await asyncio.gather(*running)


async def send_request(
    client: httpx2.AsyncClient, traffic: Traffic, token: str, address: str, number: int
) -> None:
    """Two lists, then a turn whose messages are recorded."""
    headers = {"Authorization": f"Token {token}", "Connection": "close"}
    started = time.monotonic()
    try:
        if number % 3:
            response = await client.get(address, headers=headers)
        else:
            response = await client.post(
                address, json={"content": f"Bread number {number}"}, headers=headers
            )
            # 409 is allowed: another question of this conversation is being answered.
            if response.status_code == 201:
                table = "chat_messages" if "passages" in address else "standalone_chat_messages"
                for message in (
                    response.json()["user_message"],
                    response.json()["assistant_message"],
                ):
                    traffic.written[table, message["id"]] = message["content"]
        if response.status_code not in (200, 201, 409):
            traffic.failures.append(
                f"{traffic.phase}: {response.status_code} {response.text[:200]}"
            )
    except httpx2.HTTPError as error:
        traffic.failures.append(f"{traffic.phase}: {type(error).__name__}")
    traffic.record((time.monotonic() - started) * 1000)


async def hold_transactions(database: str, stop: asyncio.Event) -> None:
    """Repeatedly hold a transaction open for 3 s that has read both tables."""
    async with await psycopg.AsyncConnection.connect(database) as held:
        while not stop.is_set():
            for table in ("standalone_chat_messages", "chat_messages"):
                await held.execute(f"SELECT count(*) FROM {table} WHERE id < 100")
            await asyncio.sleep(OPEN_TRANSACTION_S)
            await held.commit()
            await asyncio.sleep(PAUSE_S)


async def hold_snapshots(database: str, stop: asyncio.Event) -> None:
    """Repeatedly hold a REPEATABLE READ snapshot for 30 s, as a report or a pg_dump does.

    It has read no message table, so it holds no lock that a step waits for, but an index build
    waits for the snapshot itself.
    """
    async with await psycopg.AsyncConnection.connect(database) as held:
        await held.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        while not stop.is_set():
            await held.execute("SELECT count(*) FROM auth_user")
            await wait(stop, SNAPSHOT_S)
            await held.commit()
            await wait(stop, SNAPSHOT_PAUSE_S)


async def wait(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, or return as soon as ``stop`` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def watch_locks(database: str, traffic: Traffic, stop: asyncio.Event) -> None:
    """Measure the lock waits of the servers' sessions every 10 ms."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as session:
        while not stop.is_set():
            row = await (await session.execute(LONGEST_LOCK_WAIT, [SERVER_NAME])).fetchone()
            traffic.longest_lock_ms = max(traffic.longest_lock_ms, float(row[0]) if row else 0.0)
            await asyncio.sleep(0.01)


def find_lost(database: str, traffic: Traffic) -> None:
    """Record as lost what was answered 201 and is not stored unchanged."""
    with psycopg.connect(database) as rows:
        for (table, pk), content in traffic.written.items():
            stored = rows.execute(f"SELECT content FROM {table} WHERE id = %s", [pk]).fetchone()
            if stored != (content,):
                traffic.failures.append(f"lost: {table} {pk}")
