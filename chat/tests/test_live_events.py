"""The events of an answer that this process generates."""

import asyncio
from typing import Any, cast

from chat.answers.live_answer import LiveAnswer
from chat.api.events import KEEPALIVE, event, live_events


def test_pieces_that_wait_are_sent_at_once_in_order() -> None:
    async def first_chunk() -> bytes:
        live = LiveAnswer(cast("Any", None), running_id=1)
        events = live_events(live)
        chunk = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        for text in ("one", "", "two"):
            live.add(text)
        return await chunk

    expected = event("delta", {"text": "one"}) + KEEPALIVE + event("delta", {"text": "two"})
    assert asyncio.run(first_chunk()) == expected
