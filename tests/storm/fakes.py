"""The language model and the embedding service of the storm: fake_openai with moods.

Both record what they were asked, and what they have answered whole and honestly: that was paid.
"""

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

from fake_openai import (
    Answer,
    Behaviour,
    CutAfter,
    Drop,
    Empty,
    EndsWithoutDone,
    ErrorEvent,
    FakeOpenAI,
    Garbled,
    Hang,
    HangAfter,
    Html,
    Lie,
    LieKind,
    RecordedRequest,
    Refuse,
    Vectors,
)
from fake_openai.exchange import Exchange
from fake_openai.shapes import Shape
from tests.storm.findings import Findings
from tests.storm.marks import mark_of, marks_in, owner_of

KEY = "sk-storm-0123456789-never-in-a-log"
QUOTED = 8  # marks of the prompt that an answer repeats
SLOWLY = "slowly"  # in a question: answer it over some seconds
LIMIT = Refuse(429, headers={"Retry-After": "1"})
MOODS: dict[str, Callable[[], Behaviour]] = {
    "refused_500": lambda: Refuse(500),
    "refused_429": lambda: LIMIT,
    "hang": Hang,
    "hang_after": lambda: HangAfter("Half an answer"),
    "cut": lambda: CutAfter("Half an answer"),
    "drop": Drop,
    "html": Html,
    "garbled": Garbled,
    "empty": Empty,
    "error_event": lambda: ErrorEvent("Half an answer"),
    "without_done": lambda: EndsWithoutDone("Half an answer"),
} | {kind: lambda kind=kind: Lie(kind) for kind in get_args(LieKind)}  # type: ignore[misc]
HONEST = {"", "slow", "reordered"}  # what these answer is right, and so paid


@dataclass(frozen=True)
class Call:
    """An answer that was sent whole: for the question with this mark, or for this text."""

    paid_for: str
    began: float  # time.monotonic() seconds
    ended: float


@dataclass(frozen=True)
class Prompt:
    """The mark of the question, and those of the memories in the prompt."""

    question: str
    memories: list[str]
    arrived: float


@dataclass
class Moody:
    """A service. ``mood``: how it misbehaves now; "": not at all. "away": it refuses to connect."""

    findings: Findings
    mood: str = ""
    calls: list[Call] = field(default_factory=list)
    server: FakeOpenAI = field(default_factory=lambda: FakeOpenAI(api_key=KEY, keep=1))

    def set_mood(self, mood: str) -> None:
        self.mood = mood
        if mood == "away":
            self.server.stop()
        else:
            self.server.start()

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        mood, began = self.mood, time.monotonic()
        behaviour = MOODS[mood]() if mood in MOODS else self.honest(exchange.request)
        await behaviour.play(exchange, shape)
        if mood in HONEST:
            ended = time.monotonic()
            self.calls += [Call(text, began, ended) for text in self.paid_for(exchange.request)]

    def honest(self, request: RecordedRequest) -> Behaviour:
        raise NotImplementedError

    def paid_for(self, request: RecordedRequest) -> list[str]:
        raise NotImplementedError


@dataclass
class Model(Moody):
    """Answers with a mark of its own, and the marks of the prompt: the memories' first."""

    prompts: list[Prompt] = field(default_factory=list)
    _numbers: dict[str, "itertools.count[int]"] = field(
        default_factory=lambda: defaultdict(lambda: itertools.count(1))
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def honest(self, request: RecordedRequest) -> Behaviour:
        question, known = request.last_user_text, self._known(request)
        self.findings.check_prompt(marks_in(request.prompt_text))
        own = self._new_mark(mark_of(question))
        text = f"I heard {own} about {question} and know {' '.join(known)}"
        first_s = 4.0 if self.mood == "slow" else 0.05
        words = text + " and so on" * 20 if SLOWLY in question else text
        return Answer(words, first_s, tokens_per_s=15 if SLOWLY in question else 60)

    def paid_for(self, request: RecordedRequest) -> list[str]:
        return [mark_of(request.last_user_text)]

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        request = exchange.request
        question = request.last_user_text
        memories = marks_in(str(request.messages[-1]["content"]).removesuffix(question))
        self.prompts.append(Prompt(mark_of(question), memories, time.monotonic()))
        await super().play(exchange, shape)

    def _known(self, request: RecordedRequest) -> list[str]:
        texts = [str(message["content"]) for message in reversed(request.messages)]
        texts[0] = texts[0].removesuffix(request.last_user_text)
        return marks_in("\n".join(texts))[:QUOTED]

    def _new_mark(self, question: str) -> str:
        with self._lock:
            beginning = owner_of(question)
            return f"{beginning}r{next(self._numbers[beginning])}"


@dataclass
class Embedder(Moody):
    """Embeds as fake_openai does: the same vector for the same text, always."""

    def honest(self, request: RecordedRequest) -> Behaviour:
        return Vectors(5.0 if self.mood == "slow" else 0.02)

    def paid_for(self, request: RecordedRequest) -> list[str]:
        return request.texts
