"""One user's long messages are prepared one after the other, so that others' turns go on."""

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from weakref import WeakValueDictionary

from chat.models import Message

# A message of 32,000 Chinese characters takes worker and database 0.14 s of processor time, a usual
# one 0.02 (benchmarks/huge_posts.py). Hardly anything that is typed is longer than this.
LONG_CHARS = 4_000

_locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()  # by user


def alone(question: Message) -> AbstractAsyncContextManager[object]:
    """Around the preparation of a turn, on the event loop. A short question waits for nothing."""
    if len(question.content) <= LONG_CHARS:
        return nullcontext()
    return _locks.setdefault(question.user_id, asyncio.Lock())
