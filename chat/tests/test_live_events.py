"""The events of an answer that this process generates."""

import asyncio
import json
from typing import Any, cast

import pytest

from chat.answers.heartbeat import Heartbeat
from chat.answers.live_answer import LiveAnswer
from chat.api.events import KEEPALIVE, event, live_events
from tests.support import PATIENCE_S


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


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_no_character_of_a_text_ends_its_line(separator: str) -> None:
    sent = event("delta", {"text": f"a{separator}b"}).decode()
    assert len(sent.splitlines()) == 3
    assert json.loads(sent.splitlines()[1].removeprefix("data: ")) == {"text": f"a{separator}b"}


def test_clients_of_an_answer_that_is_not_stored_get_comments() -> None:
    async def first_chunk() -> bytes:
        live = LiveAnswer(cast("Any", None), running_id=None)
        chunk = asyncio.ensure_future(anext(live_events(live)))
        beating = asyncio.ensure_future(Heartbeat({}, {live}).run())
        try:
            return await asyncio.wait_for(chunk, PATIENCE_S)
        finally:
            beating.cancel()

    assert asyncio.run(first_chunk()) == KEEPALIVE
