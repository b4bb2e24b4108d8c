"""Probes: /healthz (the process answers) and /readyz (it can serve). docs/operations.md"""

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

OLDEST_SCHEMA = ("chat", "0001_initial")  # this code serves from here on
DRAINING = (
    settings.HOME / "draining"
)  # made before SIGTERM, so that a balancer sends nobody here any more

Response = HttpResponseBase
GetResponse = Callable[[HttpRequest], Any]


@sync_and_async_middleware
def answer_probes(get_response: GetResponse) -> Callable[[HttpRequest], Any]:
    """Answer the two probes before ALLOWED_HOSTS is looked at: an orchestrator names the pod's own address."""
    if iscoroutinefunction(get_response):

        async def ask_async(request: HttpRequest) -> Response:
            probe = PROBES.get(request.path)
            return await (sync_to_async(probe)() if probe else get_response(request))

        return markcoroutinefunction(ask_async)

    def ask(request: HttpRequest) -> Response:
        probe = PROBES.get(request.path)
        return probe() if probe else get_response(request)

    return ask


def healthz() -> JsonResponse:
    """200 as long as the process answers; asks nothing of the database."""
    return JsonResponse({"status": "ok"})


def readyz() -> JsonResponse:
    """200 where requests can be served, else 503 with the parts that fail, and an INFO line.

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
        # A probe's answer, not an error: said here, the response counts as logged, and Django says no ERROR of it.
        log_response("Not ready: %s", ", ".join(failing), response=response, level="info")
        return response
    return JsonResponse({"status": "ok"} | ({"migrations": "pending"} if pending else {}))


def pending_migrations() -> set[tuple[str, str]]:
    """The migrations of this code that the database has not had. Errors: those of the database."""
    with direct_connection() as direct:
        loader = MigrationLoader(direct)
    return set(loader.disk_migrations or {}) - set(loader.applied_migrations or {})


@contextmanager
def direct_connection() -> Iterator[BaseDatabaseWrapper]:
    """A connection beside the pool, which would take 5 s to say that the database is away, or that it is busy."""
    direct = connection.copy()
    direct.settings_dict["OPTIONS"] = {
        name: value for name, value in direct.settings_dict["OPTIONS"].items() if name != "pool"
    } | {"connect_timeout": 2}  # seconds, libpq's least: who probes has no more patience
    try:
        yield direct
    finally:
        direct.close()


PROBES = {"/healthz": healthz, "/readyz": readyz}
