"""The guide's steps, one after the other, with traffic all the while."""

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from tests.rehearsal.stage import manage, tokens_of
from tests.rehearsal.traffic import Traffic, ask, find_lost, hold_transactions, watch_locks
from tests.support import Server

WITHIN_S = 60  # contract section 7: a running server turns recall on, or off, within
OTHER_MODEL = "text-embedding-3-large"
OTHER_ROWS = "500"  # embedded by the other model before it goes back


async def rehearse(
    port: int, database: str, new: Server, options: argparse.Namespace
) -> tuple[Traffic, list[str]]:
    """Forward to the latest migration, filled, rebuilt, another model and back, back to 0001. What was seen."""
    traffic = Traffic()
    tokens = await asyncio.to_thread(tokens_of, database)
    stop = asyncio.Event()
    around = [
        asyncio.create_task(ask(port, tokens, traffic, stop, options.rate)),
        asyncio.create_task(hold_transactions(database, stop)),
        asyncio.create_task(watch_locks(database, traffic, stop)),
    ]
    rollout = Rollout(database, new, tokens, traffic, options.model)
    await asyncio.sleep(options.seconds)
    await rollout.forward()
    await rollout.fill()
    await rollout.switch_models()
    await asyncio.sleep(options.seconds)
    await rollout.back()
    await asyncio.sleep(options.seconds)
    stop.set()
    await asyncio.gather(*around)
    await asyncio.to_thread(find_lost, database, traffic)
    traffic.failures += [line for line in new.log.splitlines() if is_fault(line)]
    return traffic, rollout.told


def is_fault(line: str) -> bool:
    """An error in the server's log, but for the line that tells of the other model."""
    return line.startswith("ERROR") and "run manage.py rag_model" not in line


class Rollout:
    """The steps; ``told`` are lines about them."""

    def __init__(
        self, database: str, new: Server, tokens: list[Any], traffic: Traffic, service: str
    ) -> None:
        self.database = database
        self.new = new
        self.tokens = tokens
        self.traffic = traffic
        self.told: list[str] = []
        self.settings = {"OPENAI_BASE_URL": service, "OPENAI_API_KEY": "sk-rehearsal"}

    async def forward(self) -> None:
        """Migrate; the server that runs turns recall on by itself."""
        async with self.phase("migrate"):
            await self.run("migrate")
        async with self.phase("recall turns on"):
            await self.recall_is({"lexical", "hybrid"})

    async def fill(self) -> None:
        """As the guide has it for many rows: without the indexes, which are built afterwards."""
        async with self.phase("drop hnsw"):
            await self.run("rag_index", "drop", "hnsw")
        async with self.phase("backfill"):
            await self.run("backfill_embeddings", "--batch-size", "500", "--sleep", "0", "--vacuum")
        async with self.phase("create hnsw"):
            await self.run("rag_index", "create", "hnsw")
        async with self.phase("rebuild hnsw"):
            await self.run("rag_index", "rebuild")
        await self.recall_is({"hybrid"})

    async def switch_models(self) -> None:
        """To another model, which the running server does not have: it recalls by words; and back."""
        async with self.phase("another model"):
            await self.run("rag_model", "use", "--yes", EMBEDDING_MODEL=OTHER_MODEL)
            await self.run(
                "backfill_embeddings",
                "--limit",
                OTHER_ROWS,
                "--sleep",
                "0",
                EMBEDDING_MODEL=OTHER_MODEL,
            )
            await self.recall_is({"lexical"})
        async with self.phase("the first model"):
            await self.run("rag_model", "use", "--yes")
            await self.run("backfill_embeddings", "--sleep", "0")
            await self.recall_is({"hybrid"})

    async def back(self) -> None:
        """To the old schema; recall goes off without an error."""
        async with self.phase("back to 0001"):
            await self.run("migrate", "chat", "0001_initial")
        async with self.phase("recall turns off"):
            await self.recall_is({"off"})

    @contextlib.asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[None]:
        """Requests are counted under this name meanwhile."""
        self.traffic.phase = name
        began = time.monotonic()
        yield
        self.told.append(f"{name:18} {time.monotonic() - began:6.1f} s")
        self.traffic.phase = f"after {name}"

    async def run(self, *arguments: str, **settings: str) -> None:
        """A command of the new code; what it had to wait for is kept."""
        said = await asyncio.to_thread(
            manage, self.database, *arguments, **self.settings | settings
        )
        self.traffic.waits += [line.strip() for line in said.splitlines() if "trying again" in line]

    async def recall_is(self, modes: set[str]) -> None:
        """Wait until a search of the new server is answered in one of these modes; a failure where it never is."""
        began = time.monotonic()
        mode = ""
        headers = {"Authorization": f"Token {self.tokens[0][0]}"}
        async with httpx2.AsyncClient(base_url=self.new.url, timeout=20) as client:
            while time.monotonic() - began < WITHIN_S:
                found = await client.get(
                    "/api/memory/search/", params={"q": "bread"}, headers=headers
                )
                mode = found.json().get("mode", "")
                if mode in modes:
                    return
                await asyncio.sleep(0.5)
        self.traffic.failures.append(
            f"recall is {mode} after {WITHIN_S} s, not {' or '.join(sorted(modes))}"
        )
