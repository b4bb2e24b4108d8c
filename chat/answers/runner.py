"""Answers being given by this process: one event loop in one thread owns them, whoever listens or leaves.

The view that begins an answer only hands it over; a client that goes away changes nothing. Every database step
is a short one in another thread, whose connection goes back to the pool before the model is asked anything.
"""

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any, ParamSpec, TypeVar

import uvloop
from django.conf import settings
from django.db import Error

from chat.answers import idempotency, llm, turns
from chat.answers.llm import CompletionError, complete, llm_address
from chat.answers.prompt import Prompt
from chat.answers.turns import Ending, Turn
from chat.db import with_connection
from chat.errors import DatabaseUnavailable
from chat.memory import embed
from chat.memory.recalled import Memory
from chat.models import Message, Status
from retrieval import forgetting
from retrieval.db_errors import error_name
from retrieval.embeddings import usage
from retrieval.recall import min_similarity

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)
TICK_S = 0.25  # a stop is noticed within this; contract: within 1 s
SSE_KEEPALIVE_S = (
    15.0  # after so long listeners hear something, so that no proxy takes their connection for dead
)
HEARTBEAT_S = 1.0  # text is at most this old when the process dies
# What each process sees to, and every how many seconds: 10 s + 2 s is within the 15 s promised for a dead process.
PERIODIC_TASKS: dict[Callable[[], object], float] = {
    turns.end_abandoned: 2.0,
    usage.flush: 5.0,
    min_similarity.measure: 600.0,
    idempotency.delete_expired_keys: 3600.0,
    forgetting.purge_deleted_users: 3600.0,
}
SAVE_RETRY_PAUSES_S = (
    0.2,
    0.5,
    1.0,
    2.0,
    4.0,
)  # pauses between tries to save an answer while the database is away
DATABASE_THREADS = 4
PROMPT_THREADS = 32  # they wait for the embedding service most of the time, without a connection


class LiveAnswer:
    """One answer being given; its text can be listened to from any thread."""

    def __init__(self, turn: Turn, prepare: Callable[[Turn], Prompt]) -> None:
        self.turn = turn
        self.prepare = prepare
        self.prepared: Future[None] = (
            Future()
        )  # the model is about to be asked; CompletionError where it cannot be
        self.finished: Future[Message | None] = (
            Future()
        )  # the answer as saved; None where it was deleted meanwhile
        self.ending: Ending | None = None  # set before the task is cancelled
        self.truncated = False
        self.context: list[Memory] = []  # what the answer is given; known when prepared
        self.task: asyncio.Task[None] | None = None
        self._parts: list[str] = []
        self._listeners: list[Callable[[str | None], None]] = []
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        """What has been said so far."""
        return "".join(self._parts)

    def add(self, text: str) -> None:
        """Keep a piece and tell the listeners."""
        with self._lock:
            self._parts.append(text)
            for listener in self._listeners:
                listener(text)

    def listen(self, listener: Callable[[str | None], None]) -> None:
        """Call ``listener`` with the text so far, then with each piece, then with None; in the loop's thread.

        A piece may be empty: a sign of life, every SIGN_S.
        """
        with self._lock:
            if self._parts:
                listener(self.text)
            if self.finished.done():
                listener(None)
            else:
                self._listeners.append(listener)

    def unlisten(self, listener: Callable[[str | None], None]) -> None:
        """The listener has gone."""
        with self._lock, suppress(ValueError):
            self._listeners.remove(listener)

    def end(self, saved: Message | DatabaseUnavailable | None) -> None:
        """Let everybody go who waits."""
        with self._lock:
            if isinstance(saved, DatabaseUnavailable):
                self.finished.set_exception(saved)
            else:
                self.finished.set_result(saved)
            for listener in self._listeners:
                listener(None)

    def cancel(self, ending: Ending) -> None:
        """End it early, from the loop's thread."""
        if self.task and not self.ending:
            self.ending = ending
            self.task.cancel()


class AnswerLoop:
    """The process's event loop of running answers, in a daemon thread."""

    def __init__(self) -> None:
        self.answers: dict[int, LiveAnswer] = {}
        self.loop = uvloop.new_event_loop()
        self._database = ThreadPoolExecutor(DATABASE_THREADS, "answers-database")
        self._prompts = ThreadPoolExecutor(PROMPT_THREADS, "answers-prompt")
        self._thread = threading.Thread(target=self.loop.run_forever, name="answers", daemon=True)
        self._thread.start()
        self._heart = self._call(self._beat())

    def give(self, running: LiveAnswer) -> None:
        """Begin to give the answer, and return."""
        self.answers[running.turn.running_id or 0] = running
        prompt = self._prompts.submit(with_connection, running.prepare, running.turn)
        self._call(self._give(running, prompt))

    def drain(self, grace_s: float) -> None:
        """Wait up to ``grace_s`` seconds for the answers to end, then end them as interrupted."""
        self._wait(grace_s)
        self.loop.call_soon_threadsafe(self._cancel_all)
        self._wait(sum(SAVE_RETRY_PAUSES_S))

    def close(self) -> None:
        """End the loop and its threads; no answer may be running."""
        self._heart.cancel()
        self._call(llm.close()).result()
        self.loop.call_soon_threadsafe(
            self.loop.call_later, TICK_S, self.loop.stop
        )  # after the heart has stopped
        self._thread.join()
        self._database.shutdown()
        self._prompts.shutdown()
        embed.finish_embedding_jobs()
        self.loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        # An empty context: the caller's would tie the task to the caller's request.
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, self.loop)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.answers and time.monotonic() < until:
            time.sleep(0.05)

    def _cancel_all(self) -> None:
        for running in list(self.answers.values()):
            running.cancel(
                Ending(
                    Status.INTERRUPTED,
                    turns.INTERRUPTED,
                    "The server stopped before the answer was whole.",
                )
            )

    async def _give(self, running: LiveAnswer, prompt: Future[Prompt]) -> None:
        running.task = asyncio.current_task()
        running.ending = await self._ask(running, prompt)
        if not running.prepared.done():
            running.prepared.set_result(None)
        saved = await self._save(running, running.ending)
        if isinstance(saved, Message):
            saved.memories = running.context
        self.answers.pop(running.turn.running_id or 0, None)
        running.end(saved)
        if isinstance(saved, Message):
            embed.embed_in_background(saved)

    async def _ask(self, running: LiveAnswer, preparing: Future[Prompt]) -> Ending:
        """The model's answer, however it ends."""
        try:
            prompt = await asyncio.wrap_future(preparing)
            running.truncated = prompt.truncated
            running.context = prompt.memories
            running.prepared.set_result(None)
            await complete(prompt.parts, running.add)
        except CompletionError as error:
            if error.__cause__ is not None:
                logger.warning(
                    "No answer from %s: %s", llm_address(), type(error.__cause__).__name__
                )
            return ended_by(error, running)
        except asyncio.CancelledError:
            return running.ending or Ending(Status.INTERRUPTED, turns.INTERRUPTED)
        except Exception:
            logger.exception("An answer failed")
            return Ending(Status.FAILED, "llm_error", "The answer could not be given.")
        return Ending(Status.COMPLETE)

    async def _save(
        self, running: LiveAnswer, ending: Ending
    ) -> Message | DatabaseUnavailable | None:
        for pause_s in (*SAVE_RETRY_PAUSES_S, None):
            try:
                return await self._in_database(
                    turns.finish, running.turn, running.text, ending, truncated=running.truncated
                )
            except Error as error:
                reason = error_name(error)
                logger.error("An answer could not be saved: %s", reason)
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
        return (
            DatabaseUnavailable()
        )  # its row stays, and is ended as interrupted by whoever finds it

    async def _beat(self) -> None:
        """Show life for all answers, notice which were asked to stop, end those that nobody owns."""
        written = signed = 0.0
        chores = dict.fromkeys(PERIODIC_TASKS, 0.0)
        while True:
            await asyncio.sleep(TICK_S)
            now = self.loop.time()
            if now - signed >= SSE_KEEPALIVE_S:
                signed = now
                for running in list(self.answers.values()):
                    running.add("")
            try:
                if self.answers:
                    due = now - written >= HEARTBEAT_S
                    written = now if due else written
                    self._obey(await self._in_database(self._look, write=due))
                for chore, done_at in chores.items():
                    if now - done_at >= PERIODIC_TASKS[chore]:
                        chores[chore] = now
                        await self._in_database(chore)
            except Error as error:
                logger.warning("No sign of life could be written: %s", error_name(error))
            except (
                Exception
            ):  # whatever it is, the next beat must come: without it answers cannot be stopped
                logger.exception("A sign of life failed")

    def _look(self, *, write: bool) -> dict[int, bool | None]:
        """Each answer's row: asked to stop or not, None where it is gone."""
        texts = {pk: running.text for pk, running in list(self.answers.items())}
        found = turns.heartbeat(texts) if write else turns.poll_stop_flags(list(texts))
        return {pk: found.get(pk) for pk in texts}

    def _obey(self, found: dict[int, bool | None]) -> None:
        for pk, stop_asked in found.items():
            running = self.answers.get(pk)
            if running and stop_asked is not False:
                running.cancel(Ending(Status.INTERRUPTED))

    async def _in_database(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.loop.run_in_executor(
            self._database, lambda: with_connection(function, *args, **kwargs)
        )


def ended_by(error: CompletionError, running: LiveAnswer) -> Ending:
    """Interrupted where something was said, else failed; where nothing was asked, the one who waits is told."""
    if not running.prepared.done():
        running.prepared.set_exception(error)
    status = Status.INTERRUPTED if running.text else Status.FAILED
    return Ending(status, error.code, str(error))


@cache
def answer_loop() -> AnswerLoop:
    """The process's loop; started by the first who asks."""
    return AnswerLoop()


def start_answer(turn: Turn, prepare: Callable[[Turn], Prompt]) -> LiveAnswer:
    """Begin to give the turn's answer; ``prepare`` makes the prompt, in a thread with a connection."""
    running = LiveAnswer(turn, prepare)
    answer_loop().give(running)
    return running


def find_live_answer(answer: Message) -> LiveAnswer | None:
    """The answer, where this process gives it."""
    return next(
        (one for one in list(answer_loop().answers.values()) if one.turn.answer == answer), None
    )


def start() -> None:
    """Start the loop with the server: answers that died with the process before are ended soon after."""
    answer_loop()


def drain(grace_s: float = settings.SHUTDOWN_GRACE_S) -> None:
    """The server stops: running answers get ``grace_s`` seconds, then they are saved as they are."""
    answer_loop().drain(grace_s)
