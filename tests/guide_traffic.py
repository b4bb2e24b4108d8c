"""What happens while the operators' pages are followed: a user chats, transactions stay open."""

import contextlib
import threading
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2

from tests.guide import Place

PAUSE_S = 0.4  # between the turns of the user who chats: 5 rows per second
OPEN_TRANSACTION_S = 3
BETWEEN_S = 4  # without an open transaction


@dataclass
class Traffic:
    """A user who chats through a load balancer that checks /readyz. No request may fail.

    Memory is on for this user, so what the old code writes stays pending.
    """

    urls: list[str]
    token: str
    failures: list[str] = field(default_factory=list)
    written: list[tuple[int, str]] = field(default_factory=list)  # (message, content)
    served: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._chat, daemon=True)
        self._thread.start()

    def _chat(self) -> None:
        headers = {"Authorization": f"Token {self.token}", "Connection": "close"}
        with httpx2.Client(timeout=60, headers=headers, trust_env=False) as client:
            chat, start = 0, time.monotonic()
            for number in count():
                if self._over.wait(max(0.0, start + number * PAUSE_S - time.monotonic())):
                    return
                url = self._choose(client, number)
                if not chat:
                    chat = self._request(client, url, "POST", "/api/chats/", {}).get("id", 0)
                path, content = f"/api/chats/{chat}/messages/", f"Bread number {number}"
                if turn := self._request(client, url, "POST", path, {"content": content}):
                    self.written.append((turn["user_message"]["id"], content))
                    self.served[url] = self.served.get(url, 0) + 1
                if number % 5 == 0:
                    self._request(client, url, "GET", f"{path}?page_size=5")

    def _request(
        self, client: httpx2.Client, url: str, method: str, path: str, json: object = None
    ) -> dict[str, Any]:
        """The JSON answer, or {} and a failure."""
        try:
            response = client.request(method, url + path, json=json)
        except httpx2.HTTPError as error:
            self.failures.append(f"{method} {path}: {error!r}")
            return {}
        if response.status_code not in (200, 201):
            self.failures.append(f"{method} {path}: {response.status_code} {response.text[:300]}")
            return {}
        return dict(response.json())

    def _choose(self, client: httpx2.Client, number: int) -> str:
        """The servers in turn, without those that are not ready."""
        for offset in range(len(self.urls)):
            url = self.urls[(number + offset) % len(self.urls)]
            with contextlib.suppress(httpx2.HTTPError):
                if client.get(f"{url}/readyz").status_code == 200:
                    return url
        self.failures.append("no server is ready")
        return self.urls[0]

    def end(self) -> None:
        """Stop sending requests."""
        self._over.set()
        self._thread.join(40)


class OpenTransactions:
    """Reads both message tables and stays in a transaction for 3 s, again and again.

    Every third one is a REPEATABLE READ snapshot that stays open for ``snapshot_s``: an index step
    waits for it.
    """

    def __init__(self, place: Place, snapshot_s: float) -> None:
        self._place, self._snapshot_s = place, snapshot_s
        self.held = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()

    def _hold(self) -> None:
        while not self._over.wait(BETWEEN_S):
            is_snapshot = self.held % 3 == 2
            with self._place.connect() as session, session.transaction():
                if is_snapshot:
                    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                for table in ("standalone_chat_messages", "chat_messages"):
                    session.execute(f"SELECT count(*) FROM {table}")
                self._over.wait(self._snapshot_s if is_snapshot else OPEN_TRANSACTION_S)
            self.held += 1

    def end(self) -> None:
        """Commit and stop."""
        self._over.set()
        self._thread.join(10)
