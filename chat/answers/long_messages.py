"""One user's long messages are taken one after the other, with pauses, so that others' turns go on.

Both where they are saved and where their prompts are prepared.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from chat.models import Message
from retrieval import event_loop
from retrieval.connection_share import Shares

# A message of 32,000 Chinese characters takes worker and database 0.09 s of processor time, a usual
# one 0.02 (benchmarks/huge_posts.py). Hardly anything that is typed is longer than this.
LONG_CHARS = 4_000
# For each character of a message, before the user's next long one: 0.6 s after 32,000. Meanwhile
# the 95th percentile of another user's turns is at most half as much higher (the benchmark).
PAUSE_S = 20e-6

_saved, _prepared = Shares(lambda: 1), Shares(lambda: 1)


@contextmanager
def saved_alone(user_id: int, content: str) -> Iterator[None]:
    """Around saving a message, in a step or any other thread. A short one waits for nothing."""
    if len(content) <= LONG_CHARS:
        yield
        return
    _saved.wait(user_id)
    try:
        yield
    finally:
        event_loop.call_later(PAUSE_S * len(content), _saved.end, user_id)


@asynccontextmanager
async def prepared_alone(question: Message) -> AsyncIterator[None]:
    """Around preparing a prompt, on the event loop. A short question waits for nothing."""
    chars = len(question.content)
    if chars <= LONG_CHARS:
        yield
        return
    begun = _prepared.ask(question.user_id)
    try:
        await asyncio.wrap_future(begun)
        yield
    finally:
        if not begun.cancel():
            event_loop.call_later(PAUSE_S * chars, _prepared.end, question.user_id)
