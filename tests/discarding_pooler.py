"""A pooler for tests: no session keeps anything from one transaction to the next.

It passes messages of PostgreSQL's protocol on, and sends DISCARD ALL to the server each time that a
transaction has ended, before anything that the client sends next. PgBouncer does so with
``pool_mode = transaction`` and ``server_reset_query_always``. Benchmarks run it in its own process:

    .venv/bin/python -m tests.discarding_pooler SOCKET_PATH [--keep-sessions]
"""

import argparse
import asyncio
import contextlib
import struct
import sys
from collections.abc import Iterator

import uvloop

from retrieval import event_loop

DISCARD = b"Q" + struct.pack("!I", 16) + b"DISCARD ALL\0"
READY, IDLE = b"Z", b"I"
NO_ENCRYPTION = b"N"
ENCRYPTION_REQUESTS = {80877103, 80877104}  # SSLRequest, GSSENCRequest
CLOSED = (ConnectionError, asyncio.IncompleteReadError)


class DiscardingPooler:
    """``port`` on 127.0.0.1. ``discards``: how many transactions have ended.

    ``keeps_sessions``: it only passes messages on, to measure what discarding costs.
    """

    def __init__(self, socket_path: str, *, keeps_sessions: bool = False) -> None:
        self.discards = 0
        self._keeps_sessions = keeps_sessions
        self.port = 0
        self._socket_path = socket_path

    async def start(self) -> asyncio.Server:
        """Listen on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self._socket_path)
        with contextlib.suppress(*CLOSED):
            to_server.write(await _read_startup(client, to_client))
            requests = asyncio.create_task(_copy(client, to_server))
            with contextlib.suppress(*CLOSED):
                await self._answer(server, to_server, to_client)
            requests.cancel()
        for writer in (to_client, to_server):
            writer.close()

    async def _answer(
        self,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        to_client: asyncio.StreamWriter,
    ) -> None:
        """Pass on the server's messages; at the end of a transaction, discard."""
        while True:
            kind, body = await _read_message(server)
            has_ended = kind == READY and body == IDLE and not self._keeps_sessions
            if has_ended:
                to_server.write(DISCARD)
                self.discards += 1
            to_client.write(kind + struct.pack("!I", len(body) + 4) + body)
            while has_ended and (await _read_message(server))[0] != READY:
                pass


@contextlib.contextmanager
def discarding_pooler(socket_path: str) -> Iterator[DiscardingPooler]:
    """Run the pooler in front of the server that listens on this socket."""
    pooler = DiscardingPooler(socket_path)
    server = event_loop.start(pooler.start()).result()
    yield pooler
    event_loop.start(_close(server)).result()


async def _close(server: asyncio.Server) -> None:
    server.close()


async def _read_startup(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> bytes:
    """The client's first message, after a refusal of encryption."""
    while True:
        head = await client.readexactly(8)
        length, code = struct.unpack("!II", head)
        if code not in ENCRYPTION_REQUESTS:
            return head + await client.readexactly(length - 8)
        to_client.write(NO_ENCRYPTION)


async def _read_message(server: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await server.readexactly(1)
    (length,) = struct.unpack("!I", await server.readexactly(4))
    return kind, await server.readexactly(length - 4)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def _serve_until_killed(socket_path: str, *, keeps_sessions: bool) -> None:
    """Write the port to the standard output, and serve."""
    pooler = DiscardingPooler(socket_path, keeps_sessions=keeps_sessions)
    server = await pooler.start()
    sys.stdout.write(f"{pooler.port}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("socket_path")
    parser.add_argument("--keep-sessions", action="store_true")
    options = parser.parse_args()
    uvloop.run(_serve_until_killed(options.socket_path, keeps_sessions=options.keep_sessions))
