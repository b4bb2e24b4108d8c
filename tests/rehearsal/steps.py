"""The steps of docs/deployment.md, in order, under traffic."""

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from tests.rehearsal.stage import manage, tokens_of
from tests.rehearsal.traffic import (
    Traffic,
    find_lost,
    hold_snapshots,
    hold_transactions,
    send_requests,
    watch_locks,
)
from tests.support import Server

SWITCH_S = 60  # a running server turns recall on or off (docs/promises.md, Zero downtime)
OTHER_MODEL = "text-embedding-3-large"
OTHER_ROWS = "500"  # embedded by the other model before the change back


async def rehearse(
    port: int, database: str, new: Server, options: argparse.Namespace
) -> tuple[Traffic, list[str]]:
    """Migrate, backfill, rebuild, change the model and back, migrate back to 0001.

    Returns what the traffic saw, and the duration of each step as lines.
    """
    traffic = Traffic()
    tokens = await asyncio.to_thread(tokens_of, database)
    stop = asyncio.Event()
    background = [
        asyncio.create_task(send_requests(port, tokens, traffic, stop, options.rate)),
        asyncio.create_task(hold_transactions(database, stop)),
        asyncio.create_task(hold_snapshots(database, stop)),
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
    await asyncio.gather(*background)
    await asyncio.to_thread(find_lost, database, traffic)
    traffic.failures += [line for line in new.log.splitlines() if is_fault(line)]
    return traffic, rollout.durations


def is_fault(line: str) -> bool:
    """Whether a log line is an error, except the expected line about the other model."""
    return line.startswith("ERROR") and "run manage.py rag_model" not in line


class Rollout:
    """The steps. ``durations`` has a line for each."""

    def __init__(
        self, database: str, new: Server, tokens: list[Any], traffic: Traffic, service: str
    ) -> None:
        self.database = database
        self.new = new
        self.tokens = tokens
        self.traffic = traffic
        self.durations: list[str] = []
        self.settings = {"OPENAI_BASE_URL": service, "OPENAI_API_KEY": "sk-rehearsal"}

    async def forward(self) -> None:
        """Migrate. The running server turns recall on by itself."""
        async with self.phase("migrate"):
            await self.run("migrate")
        async with self.phase("recall turns on"):
            await self.wait_for_mode({"lexical", "hybrid"})

    async def fill(self) -> None:
        """Backfill as for many rows: drop the index, and build it afterwards."""
        async with self.phase("drop hnsw"):
            await self.run("rag_index", "drop", "hnsw")
        async with self.phase("backfill"):
            await self.run("backfill_embeddings", "--batch-size", "500", "--vacuum")
        async with self.phase("create hnsw"):
            await self.run("rag_index", "create", "hnsw")
        async with self.phase("rebuild hnsw"):
            await self.run("rag_index", "rebuild")
        await self.wait_for_mode({"hybrid"})

    async def switch_models(self) -> None:
        """Use another model, which the running server does not have, and change back.

        Meanwhile the server recalls by words.
        """
        async with self.phase("another model"):
            await self.run("rag_model", "use", "--yes", EMBEDDING_MODEL=OTHER_MODEL)
            await self.run(
                "backfill_embeddings",
                "--limit",
                OTHER_ROWS,
                EMBEDDING_MODEL=OTHER_MODEL,
            )
            await self.wait_for_mode({"lexical"})
        async with self.phase("the first model"):
            await self.run("rag_model", "use", "--yes")
            await self.run("backfill_embeddings")
            await self.wait_for_mode({"hybrid"})

    async def back(self) -> None:
        """Migrate to the old schema. Recall turns off without an error."""
        async with self.phase("back to 0001"):
            await self.run("migrate", "chat", "0001_initial")
        async with self.phase("recall turns off"):
            await self.wait_for_mode({"off"})

    @contextlib.asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[None]:
        """Measure the step and the requests during it under this name."""
        self.traffic.phase = name
        started = time.monotonic()
        yield
        self.durations.append(f"{name:18} {time.monotonic() - started:6.1f} s")
        self.traffic.phase = f"after {name}"

    async def run(self, *arguments: str, **settings: str) -> None:
        """Run a command of the new code. Records what it had to wait for."""
        output = await asyncio.to_thread(
            manage, self.database, *arguments, **self.settings | settings
        )
        self.traffic.waits += [
            line.strip() for line in output.splitlines() if "trying again" in line
        ]

    async def wait_for_mode(self, modes: set[str]) -> None:
        """Wait until a search on the new server has one of these modes, or record a failure."""
        started = time.monotonic()
        mode = ""
        headers = {"Authorization": f"Token {self.tokens[0][0]}"}
        async with httpx2.AsyncClient(base_url=self.new.url, timeout=20) as client:
            while time.monotonic() - started < SWITCH_S:
                response = await client.get(
                    "/api/memory/search/", params={"q": "bread"}, headers=headers
                )
                mode = response.json().get("mode", "")
                if mode in modes:
                    return
                await asyncio.sleep(0.5)
        self.traffic.failures.append(
            f"recall is {mode} after {SWITCH_S} s, not {' or '.join(sorted(modes))}"
        )
