"""Ends open event streams whose token was revoked or whose user was deactivated.

A request's rights are checked when it begins, but a stream lasts for minutes. So every process
checks those of all its open streams again, in two statements whatever their number, and none while
no stream is open. The answer itself goes on; only this client learns no more of it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

from django.contrib.auth.models import User
from rest_framework.request import Request

from chat.models import ApiToken

CHECK_EVERY_S = 2.0  # a stream ends within 5 s: docs/security.md


@dataclass(eq=False)
class OpenStream:
    """A stream that is being sent, by whose rights, and the task that sends it."""

    user_id: int
    token_id: int | None  # None: signed in with a session
    task: "asyncio.Task[object]"
    loop: asyncio.AbstractEventLoop
    has_ended: bool = False

    def end(self) -> None:
        """From any thread."""
        self.has_ended = True
        self.loop.call_soon_threadsafe(self.task.cancel)


_open: set[OpenStream] = set()


async def while_allowed(request: Request, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks, until they end or the request's rights do."""
    task = cast("asyncio.Task[object]", asyncio.current_task())
    token_id = request.auth.pk if isinstance(request.auth, ApiToken) else None
    user_id = cast("User", request.user).pk
    stream = OpenStream(user_id, token_id, task, task.get_loop())
    _open.add(stream)
    try:
        async for chunk in chunks:
            yield chunk
    except asyncio.CancelledError:
        if not stream.has_ended:
            raise
        task.uncancel()
    finally:
        _open.discard(stream)


def end_streams_without_rights() -> None:
    """End the streams of revoked tokens and inactive users. Two statements at most. Locks: none."""
    streams = list(_open)
    if not streams:
        return
    users = User.objects.filter(pk__in={stream.user_id for stream in streams}, is_active=True)
    tokens = ApiToken.objects.filter(pk__in={stream.token_id for stream in streams})
    user_ids = set(users.values_list("pk", flat=True))
    token_ids = {None, *tokens.values_list("pk", flat=True)}
    for stream in streams:
        if stream.user_id not in user_ids or stream.token_id not in token_ids:
            stream.end()
