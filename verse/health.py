"""/healthz: the process answers; /readyz: it can serve. docs/howto/health-checks.md"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.http import JsonResponse
from django.utils.log import log_response

from retrieval import steps
from verse.asgi_messages import Application, Receive, Scope, Send, send_json

OLDEST_SCHEMA = ("chat", "0001_initial")  # the oldest that this code can serve
# Created before SIGTERM, so that a load balancer sends no new requests to this server.
DRAINING = settings.HOME / "draining"
CONNECT_TIMEOUT_S = 2  # libpq's minimum: orchestrators wait only a few seconds for a probe
READY_S = 4.0  # behind a pooler the database may hang after the connection is made


def answer_probes(application: Application) -> Application:
    """Wrap an application. Answers the probes for any host: an orchestrator uses an address."""
    readiness = Readiness()

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/healthz":
            response = healthz()
        elif scope["path"] == "/readyz":
            response = await readiness.answer()
        else:
            await application(scope, receive, send)
            return
        await send_json(scope, send, response.content, status=response.status_code)

    return answered


class Readiness:
    """At most one check at a time: a database that hangs must not take a thread for each probe."""

    def __init__(self) -> None:
        self._check: Future[JsonResponse] | None = None

    async def answer(self) -> JsonResponse:
        """The result of ``readyz``, of a check that runs already if there is one."""
        if self._check is None or self._check.done():
            self._check = steps.submit(readyz)
        check = asyncio.shield(asyncio.wrap_future(self._check))
        try:
            return await asyncio.wait_for(check, READY_S)
        except TimeoutError:
            return not_ready({"database": "does not answer"})


def healthz() -> JsonResponse:
    """200 while the process answers. No query."""
    return JsonResponse({"status": "ok"})


def readyz() -> JsonResponse:
    """200 and the version if requests can be served, else 503 with the failing parts, logged.

    One connection, two queries.
    """
    failing = {"draining": "stop is announced"} if DRAINING.exists() else {}
    pending: set[tuple[str, str]] = set()
    try:
        pending = pending_migrations()
    except (DatabaseError, InterfaceError):
        failing["database"] = "cannot be reached"
    if OLDEST_SCHEMA in pending:
        failing["migrations"] = "run manage.py migrate"
    if failing:
        return not_ready(failing)
    ready = {"status": "ok", "version": settings.VERSION}
    return JsonResponse(ready | ({"migrations": "pending"} if pending else {}))


def not_ready(failing: dict[str, str]) -> JsonResponse:
    """503 with the failing parts, logged."""
    response = JsonResponse({"status": "failing", "failing": failing}, status=503)
    # Logged as INFO; Django skips a response that is already logged, and would say ERROR.
    log_response("Not ready: %s", ", ".join(failing), response=response, level="info")
    return response


def pending_migrations() -> set[tuple[str, str]]:
    """Migrations in the code that are not applied. Raises DatabaseError, InterfaceError."""
    with direct_connection() as direct:
        loader = MigrationLoader(direct)
    return set(loader.disk_migrations or {}) - set(loader.applied_migrations or {})


@contextmanager
def direct_connection() -> Iterator[BaseDatabaseWrapper]:
    """A connection outside the pool, whose time limit of 5 s is too long for a probe."""
    direct = connection.copy()
    options = {**direct.settings_dict["OPTIONS"], "connect_timeout": CONNECT_TIMEOUT_S}
    options.pop("pool", None)
    direct.settings_dict["OPTIONS"] = options
    try:
        yield direct
    finally:
        direct.close()
