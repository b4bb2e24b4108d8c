"""The ids that JSON log lines carry: of the request, and of the answer that is generated for it.

They are random numbers and database ids: nothing of what a client sends. Work that a request starts
on the event loop begins in an empty context; retrieval/telemetry/spans.py carries the ids over.
"""

import secrets
import time
from contextvars import ContextVar
from typing import NamedTuple


class RequestContext(NamedTuple):
    """A request: its id, and when it came, as ``time.perf_counter`` counts."""

    id: str
    began_at: float


request_context: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)
turn_id: ContextVar[str | None] = ContextVar("turn_id", default=None)


def begin_request() -> None:
    """Give the current context the id of a new request."""
    request_context.set(RequestContext(secrets.token_hex(8), time.perf_counter()))


def request_began_at() -> float:
    """When the current request came; now, if there is none."""
    request = request_context.get()
    return request.began_at if request else time.perf_counter()


def ids() -> dict[str, str]:
    """``{"request_id", "turn_id"}``, without those that there are none of."""
    request, turn = request_context.get(), turn_id.get()
    known = {"request_id": request and request.id, "turn_id": turn}
    return {name: value for name, value in known.items() if value}
