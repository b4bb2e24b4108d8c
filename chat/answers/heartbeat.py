"""Liveness of running answers: heartbeats, stop requests, and the end of abandoned answers.

Every process writes the text so far of its answers, and the time, into running_answers once a
second; if another process follows an answer, its text every FOLLOWED_TICK_S seconds. An answer
without a heartbeat for ABANDONED_S seconds has lost its process: the next process that looks ends
it as interrupted. A user's stop is a flag in the same row, so that any process can set it.
docs/decisions/0006-running-answers.md
"""

import asyncio
import logging
from typing import NamedTuple

from django.db import Error, connection

from chat.answers.followers import MARK_LIFETIME_S
from chat.answers.live_answer import SSE_KEEPALIVE_S, LiveAnswer
from chat.answers.save_answer import restore_contexts
from chat.answers.stop import cancel_stopped
from retrieval import queries, steps
from retrieval.db_errors import error_name
from retrieval.replica.user_writes import recorded
from retrieval.telemetry import metrics

logger = logging.getLogger(__name__)
TICK_S = 0.25  # a stop is seen this late; docs/promises.md promises 1 s
FOLLOWED_TICK_S = 0.15  # with events.POLL_S a follower is at most 0.4 s behind: docs/promises.md
HEARTBEAT_S = 1.0  # at most so many seconds of text are lost with a process
ABANDONED_S = 10  # with END_ABANDONED_EVERY_S within the 15 s of docs/promises.md
END_ABANDONED_EVERY_S = 2.0

# Locks: the rows of these answers. Rows that are missing in the result have been ended elsewhere.
HEARTBEAT = """
    UPDATE running_answers r SET text = v.text, alive_at = now()
    FROM unnest(%(ids)s::bigint[], %(texts)s::text[]) v(id, text)
    WHERE r.id = v.id RETURNING r.id, r.stop_asked
"""
# stop_asked, and whether followers.py has set a mark that is still fresh. Locks nothing.
FLAGS = """
    SELECT r.id, r.stop_asked, EXISTS (
        SELECT FROM rate_windows w WHERE w.name = 'followers ' || r.id
        AND w.hits[cardinality(w.hits)] > now() - make_interval(secs => %(mark_lifetime_s)s))
    FROM running_answers r WHERE r.id = ANY (%(ids)s)
"""
# How many answers were abandoned. Locks: their rows and their messages.
END_ABANDONED = """
    WITH abandoned AS (
        DELETE FROM running_answers WHERE alive_at < now() - make_interval(secs => %(seconds)s)
        RETURNING user_id, passage_id, message_id, text
    ), passages AS (
        UPDATE chat_messages m
        SET status = 'interrupted', error = 'interrupted', content = abandoned.text
        FROM abandoned WHERE abandoned.passage_id IS NOT NULL AND m.id = abandoned.message_id
    ), chats AS (
        UPDATE standalone_chat_messages m
        SET status = 'interrupted', error = 'interrupted', content = abandoned.text
        FROM abandoned WHERE abandoned.passage_id IS NULL AND m.id = abandoned.message_id
    )
    SELECT user_id FROM abandoned
"""


class Flags(NamedTuple):
    """What other processes ask of a running answer."""

    stop_asked: bool
    followed: bool


def write_heartbeat(texts: dict[int, str]) -> dict[int, bool]:
    """Save the texts so far (running_answers.id → text); return each id's stop flag."""
    with connection.cursor() as cursor:
        cursor.execute(HEARTBEAT, {"ids": list(texts), "texts": list(texts.values())})
        return dict(cursor.fetchall())


def read_flags(ids: list[int]) -> dict[int, Flags]:
    """The flags of each running answer. Ids that are missing have been ended elsewhere."""
    with connection.cursor() as cursor:
        cursor.execute(FLAGS, {"ids": ids, "mark_lifetime_s": MARK_LIFETIME_S})
        return {pk: Flags(*flags) for pk, *flags in cursor.fetchall()}


def end_abandoned(*, seconds: float = ABANDONED_S) -> None:
    """End the answers of dead processes as interrupted, with the text they had. One statement."""
    with recorded() as users:
        owners = [user_id for (user_id,) in queries.rows(END_ABANDONED, {"seconds": seconds})]
        users.update(owners)
    metrics.turns_ended("interrupted", "interrupted", count=len(owners))


class Heartbeat:
    """Runs on the event loop for all answers of the process."""

    def __init__(self, answers: dict[int, LiveAnswer], unstored: set[LiveAnswer]) -> None:
        self._answers = answers  # running_answers.id → answer
        self._unstored = unstored  # they have no row, but clients that wait
        self._followed: set[int] = set()  # running_answers.id
        self._last_keepalive = self._last_write = self._last_end_abandoned = 0.0

    async def run(self) -> None:
        """Tick until cancelled, whatever fails: without ticks no answer could be stopped."""
        while True:
            is_followed = self._followed & self._answers.keys()
            await asyncio.sleep(FOLLOWED_TICK_S if is_followed else TICK_S)
            try:
                await self._tick(asyncio.get_running_loop().time())
            except Error as error:
                logger.warning("Heartbeat could not be written: %s", error_name(error))
            except Exception:
                logger.exception("Heartbeat failed")

    async def _tick(self, now: float) -> None:
        if now - self._last_keepalive >= SSE_KEEPALIVE_S:
            self._last_keepalive = now
            for answer in [*self._answers.values(), *self._unstored]:
                answer.add("")
        if self._answers:
            await self._write_or_poll(now)
        # After the heartbeat: a process that was suspended must not end its own answers.
        if now - self._last_end_abandoned >= END_ABANDONED_EVERY_S:
            self._last_end_abandoned = now
            await self._end_abandoned()

    async def _write_or_poll(self, now: float) -> None:
        """Write the heartbeat if it is due, else read the flags; stop what must stop."""
        ids = list(self._answers)
        if now - self._last_write >= HEARTBEAT_S:
            self._last_write = now
            stop_flags = await steps.run(self._write, ids)
        else:
            flags = await steps.run(read_flags, ids)
            stop_flags = {pk: of_answer.stop_asked for pk, of_answer in flags.items()}
            self._followed = {pk for pk, of_answer in flags.items() if of_answer.followed}
            if self._followed:
                await steps.run(self._write, list(self._followed))
        cancel_stopped(self._answers, ids, stop_flags)

    async def _end_abandoned(self) -> None:
        try:
            await steps.run(end_abandoned)
        except Error as error:
            logger.warning("Abandoned answers could not be ended: %s", error_name(error))

    def _write(self, ids: list[int]) -> dict[int, bool]:
        # In a database thread: joining long texts would hold up the loop.
        known = ((pk, self._answers.get(pk)) for pk in ids)
        answers = {pk: answer for pk, answer in known if answer}
        restore_contexts(answer.turn.answer for answer in answers.values())
        return write_heartbeat({pk: answer.text for pk, answer in answers.items()})
