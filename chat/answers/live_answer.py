"""An answer while this process generates it. Any thread may read its text, or listen to it.

How it is stopped: stop.py.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from rest_framework.exceptions import APIException

from chat.answers.answer_reader import Completion, ToolCalls
from chat.answers.save_answer import Ending
from chat.answers.turns import Turn
from chat.errors import DatabaseUnavailable
from chat.memory.recalled import Memory
from chat.models import Message
from retrieval.telemetry import log_context, metrics

# Proxies close a connection that is silent for too long, many after 60 s.
SSE_KEEPALIVE_S = 15.0


class Reasoning(str):
    """What a model thinks before it answers: a listener gets it, but it is never stored."""


Listener = Callable[[str | None], None]


class LiveAnswer:
    """One answer that this process generates.

    The event loop adds its text. A step's thread or the event loop publishes its end.

    ``running_id`` is the id of its row in running_answers; None: the turn is not stored. Then
    ``store``, if there is one, stores it once the answer has a word (docs/openai-api.md).
    """

    def __init__(
        self, turn: Turn, *, running_id: int | None, store: Callable[[], Turn] | None = None
    ) -> None:
        self.turn = turn
        self.running_id = running_id
        self.store = store
        self.refusal: APIException | None = None  # why ``store`` could not store the turn
        self.tool_calls: list[dict[str, Any]] = []  # deltas: only the OpenAI API asks for them
        self.completion = Completion()  # once the model has ended its answer
        # The tokens of the prompt by our count, once the model's server has accepted it.
        self.count_prompt: Callable[[], int] = lambda: 0
        self.question_tokens = 0  # of its embedding, while the turn is not stored
        # Whether the reply may be an event stream: known once the prompt is ready, or with
        # ``store`` at the answer's first word. False: the turn failed before that, so that the
        # client gets a plain status.
        self.may_stream: Future[bool] = Future()
        # The saved answer; None if it was deleted meanwhile. Raises DatabaseUnavailable.
        self.saved: Future[Message | None] = Future()
        self.memories: list[Memory] = []  # in the prompt; set before may_stream
        self.truncated = False  # the prompt holds the user's message cut
        self.ending: Ending | None = None  # set before the task is cancelled, or when it ends
        self.task: asyncio.Task[None] | None = None
        self._parts: list[str] = []
        self._reasoning: list[Reasoning] = []
        self._is_heard = False  # a client has listened from the start
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._began_at: float | None = log_context.request_began_at()  # None after the first text

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self._reasoning)

    @property
    def log_id(self) -> str | None:
        """Of the answer's message, for log lines: chat-17. None before it is stored."""
        answer = self.turn.answer
        return f"{self.turn.conversation.kind}-{answer.pk}" if answer.pk else None

    def add(self, text: str) -> None:
        """Append a piece of text and pass it to the listeners. An empty one is a keep-alive."""
        if text and self._began_at is not None:
            metrics.first_token_after(time.perf_counter() - self._began_at)
            self._began_at = None
        with self._lock:
            self._parts.append(text)
            for listener in self._listeners:
                listener(text)

    def add_tool_calls(self, calls: ToolCalls) -> None:
        """Append deltas of calls of tools, and wake the listeners.

        Calls without a word before them are an answer: the client need not wait for a stored turn.
        """
        self.tool_calls += calls
        if not self.may_stream.done() and not self.text.strip():
            self.may_stream.set_result(True)
        self.add("")

    def add_reasoning(self, text: str) -> None:
        """Pass a piece of reasoning to the listeners. It is no part of the text."""
        with self._lock:
            self._reasoning.append(Reasoning(text))
            for listener in self._listeners:
                listener(Reasoning(text))

    def listen(self, listener: Listener, *, from_start: bool = False) -> None:
        """Call ``listener`` with the text so far, then with each piece, then with None.

        ``from_start``: with the reasoning so far too, for the client that asked. The first calls
        are made by this thread. The event loop's thread passes the pieces; None may come from any
        thread.
        """
        with self._lock:
            if from_start:
                unheard = [] if self._is_heard else self._reasoning
                self._is_heard = True
                for reasoning in unheard:
                    listener(reasoning)
            if self._parts:
                listener(self.text)
            if self.saved.done():
                listener(None)
            else:
                self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        with self._lock, suppress(ValueError):
            self._listeners.remove(listener)

    def publish_end(self, saved: Message | DatabaseUnavailable | None) -> None:
        """Resolve the future ``saved`` and end the listeners' text. From any thread."""
        self._count(saved)
        with self._lock:
            if isinstance(saved, DatabaseUnavailable):
                self.saved.set_exception(saved)
            else:
                self.saved.set_result(saved)
            for listener in self._listeners:
                listener(None)

    def _count(self, saved: Message | DatabaseUnavailable | None) -> None:
        """Count the turn in the metrics, unless another process ends it, or it was refused."""
        ending = self.ending
        is_elsewhere = isinstance(saved, Message) and ending and saved.status != ending.status
        is_unsaved = isinstance(saved, DatabaseUnavailable)
        if ending is None or is_elsewhere or is_unsaved or self.refusal:
            metrics.answer_ended(None)
        else:
            metrics.answer_ended(str(ending.status), ending.error)

    def cancel(self, ending: Ending) -> None:
        """Cancel the task, which then saves the answer with this ending.

        No effect before the task runs or after the answer has an ending. On the event loop.
        """
        if self.task and not self.ending:
            self.ending = ending
            self.task.cancel()
