"""Requests of one user to one of the servers. Every answer is checked for others' texts."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.storm.findings import Findings
from tests.storm.script import Action

TIMEOUT_S = 60.0  # longer than a process is stopped: what was given up is not done later
RETRY_PAUSE_S = 0.7
MAX_IDLE = 4
# 409: an answer of the conversation runs, or the same request. 429: too many answers run.
AGAIN = {409, 429, 502, 503, 504}


@dataclass(frozen=True)
class Reply:
    """A response. ``events``: of a stream, each with its name; the last ones may be missing."""

    status: int
    body: Any = None
    events: tuple[tuple[str, Any], ...] = ()


class Client:
    """One user's two connections, one to each server."""

    def __init__(self, user: int, token: str, addresses: list[str], findings: Findings) -> None:
        self.user, self._findings = user, findings
        self._clients = [
            httpx2.AsyncClient(
                base_url=address,
                headers={"Authorization": f"Token {token}"},
                timeout=TIMEOUT_S,
                trust_env=False,
                limits=httpx2.Limits(max_keepalive_connections=MAX_IDLE),
            )
            for address in addresses
        ]

    async def close(self) -> None:
        async with AsyncExitStack() as stack:
            for client in self._clients:
                stack.push_async_callback(client.aclose)

    async def ask(self, web: int, method: str, path: str, **options: Any) -> Reply | None:
        """The response; None if there was none, so nothing is known."""
        try:
            response = await self._clients[web].request(method, path, **options)
        except httpx2.HTTPError:
            self._findings.count("no response")
            return None
        self._check(response.status_code, response.text, f"{method} {path}")
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return Reply(response.status_code, response.json() if is_json else response.text)

    async def read_events(
        self,
        web: int,
        method: str,
        path: str,
        *,
        leave_after: int | None = None,
        began: asyncio.Event | None = None,
        **options: Any,
    ) -> Reply | None:
        """The events of a stream; a plain reply if it is none; None if nothing is known.

        Leaves after so many events. Sets ``began`` at the first one.
        """
        options["headers"] = {"Accept": "text/event-stream"} | options.get("headers", {})
        events: list[tuple[str, Any]] = []
        try:
            async with self._clients[web].stream(method, path, **options) as response:
                if "event-stream" not in response.headers.get("content-type", ""):
                    text = (await response.aread()).decode()
                    self._check(response.status_code, text, f"{method} {path}")
                    return Reply(response.status_code, json.loads(text or "null"))
                async for event in self._events(response, path):
                    events.append(event)
                    if began:
                        began.set()
                    if len(events) == leave_after:
                        break
        except httpx2.HTTPError:
            self._findings.count("no response")
        return Reply(200, events=tuple(events)) if events else None

    async def _events(self, response: httpx2.Response, path: str) -> AsyncIterator[tuple[str, Any]]:
        name = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                self._findings.check_isolation(self.user, line, where=f"the events of {path}")
                yield name, json.loads(line.removeprefix("data: "))

    def _check(self, status: int, text: str, where: str) -> None:
        self._findings.count(f"status {status}")
        self._findings.check_isolation(self.user, text, where=where)
        if status == 500:
            self._findings.add("no bug", self.user, "", f"500 to {where}")


async def until_answered(
    action: Action, ask: Callable[[int], Awaitable[Reply | None]]
) -> tuple[Reply | None, bool]:
    """Ask one server after the other until the request is settled, at most ``attempts`` times.

    Returns the last reply, None if it says nothing, and whether an attempt is unacknowledged.
    """
    is_unknown, reply = False, None
    for attempt in range(action.attempts):
        if attempt:
            await asyncio.sleep(RETRY_PAUSE_S)
        reply = await ask((action.web + attempt) % 2)
        is_unknown = is_unknown or reply is None or reply.status in (500, 503)
        if reply is not None and reply.status not in AGAIN:
            break
    return reply, is_unknown
