"""Puts jobs into the queue that EMBED_QUEUE names. Never fails, and waits for a second at most."""

import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

from django.conf import settings

from retrieval.embed_queue.outage import Outage
from retrieval.root_cause import root_cause_name
from retrieval.runtime import Expiring

logger = logging.getLogger(__name__)
INLINE = "inline"
ENGINES = {
    "procrastinate": "retrieval.embed_queue.procrastinate_engine",
    "celery": "retrieval.embed_queue.celery_engine",
}
TRY_AGAIN_S = 5.0  # after a failure: an outage must not cost each turn a second
AWAY = "The queue %s takes no jobs (%s): messages are embedded by the next sweep of a worker"


class Engine(Protocol):
    """What a module of ENGINES has."""

    def publish(self, refs: list[int]) -> None:
        """Put one job into the queue, within a second. Raises any exception."""

    def serve(self, ready: Callable[[], None]) -> None:
        """Run jobs until ``stop``; ``ready`` is called when it has begun. Raises any exception."""

    def stop(self) -> None:
        """End ``serve``. From any thread."""


_outage = Outage(logger)
_is_away: Expiring[bool] = Expiring()


def has_workers() -> bool:
    """Whether workers embed answers and edits, instead of the process that writes them.

    Without a key no worker runs, and jobs would pile up.
    """
    can_embed = settings.OPENAI_API_KEY or settings.EMBEDDINGS == "local"
    return bool(settings.EMBED_QUEUE != INLINE and settings.EMBEDDINGS != "none" and can_embed)


def engine() -> Engine:
    """The engine of EMBED_QUEUE, imported by the first call."""
    return cast("Engine", import_module(ENGINES[settings.EMBED_QUEUE]))


def publish(refs: Sequence[int]) -> None:
    """Tell the workers of these messages, which are committed. A step: one statement or message.

    Without a broker nothing is sent for TRY_AGAIN_S; a sweep of a worker finds the messages.
    """
    if not refs or _is_away.get():
        return
    try:
        engine().publish(list(refs))
    except Exception as error:  # noqa: BLE001 - each broker's driver has errors of its own
        _is_away.set(True, seconds=TRY_AGAIN_S)
        _outage.begin(AWAY, settings.EMBED_QUEUE, root_cause_name(error))
    else:
        _outage.end("The queue %s takes jobs again", settings.EMBED_QUEUE)
