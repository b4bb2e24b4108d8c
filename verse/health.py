"""/healthz: the process answers; /readyz: it can serve. docs/howto/health-checks.md"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.decorators import sync_and_async_middleware
from django.utils.log import log_response

OLDEST_SCHEMA = ("chat", "0001_initial")  # the oldest that this code can serve
# Created before SIGTERM, so that a load balancer sends no new requests to this server.
DRAINING = settings.HOME / "draining"
CONNECT_TIMEOUT_S = 2  # libpq's minimum: orchestrators wait only a few seconds for a probe

Response = HttpResponseBase
GetResponse = Callable[[HttpRequest], Any]


@sync_and_async_middleware
def answer_probes(get_response: GetResponse) -> Callable[[HttpRequest], Any]:
    """Answer the probes before ALLOWED_HOSTS is checked: an orchestrator uses the pod's address."""
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> Response:
            probe = PROBES.get(request.path)
            return await (sync_to_async(probe)() if probe else get_response(request))

        return markcoroutinefunction(answer_async)

    def answer(request: HttpRequest) -> Response:
        probe = PROBES.get(request.path)
        return probe() if probe else get_response(request)

    return answer


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
        response = JsonResponse({"status": "failing", "failing": failing}, status=503)
        # Logged as INFO; Django skips a response that is already logged, and would say ERROR.
        log_response("Not ready: %s", ", ".join(failing), response=response, level="info")
        return response
    ready = {"status": "ok", "version": settings.VERSION}
    return JsonResponse(ready | ({"migrations": "pending"} if pending else {}))


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


PROBES = {"/healthz": healthz, "/readyz": readyz}
