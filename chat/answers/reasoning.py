"""Separates a model's reasoning from its answer, where both come in one text."""

from collections.abc import Callable
from typing import Any, NamedTuple

OPEN, CLOSE = "<think>", "</think>"


class Piece(NamedTuple):
    """What a part of the stream adds to the answer, to the reasoning and to the calls of tools."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()  # OpenAI's deltas, each with its ``index``


class ReasoningSplitter:
    """Takes a leading ``<think>…</think>`` for reasoning. A tag after other text stays text.

    A tag may come in several pieces. If it never closes, all of the text is reasoning.
    """

    def __init__(self) -> None:
        self._held = ""  # may be a part of a tag, or is space before the answer
        self._step: Callable[[str], Piece] = self._before

    @property
    def is_over(self) -> bool:
        """Whether all that follows is the answer."""
        return self._step is Piece

    def feed(self, text: str) -> Piece:
        return self._step(text)

    def end(self) -> Piece:
        """What was held back."""
        held, self._held = self._held, ""
        return Piece(reasoning=held) if self._step == self._inside else Piece(held)

    def _before(self, text: str) -> Piece:
        text = self._held + text
        start = text.lstrip()
        if OPEN.startswith(start):
            self._held = text
            return Piece()
        self._held = ""
        if not start.startswith(OPEN):
            self._step = Piece
            return Piece(text)
        self._step = self._inside
        return self._inside(start.removeprefix(OPEN))

    def _inside(self, text: str) -> Piece:
        reasoning, closed, rest = (self._held + text).partition(CLOSE)
        self._held = ""
        if closed:
            self._step = self._after
            return Piece(self._after(rest).text, reasoning)
        sizes = range(min(len(CLOSE) - 1, len(reasoning)), 0, -1)
        held = next((size for size in sizes if CLOSE.startswith(reasoning[-size:])), 0)
        self._held = reasoning[len(reasoning) - held :]
        return Piece(reasoning=reasoning[: len(reasoning) - held])

    def _after(self, text: str) -> Piece:
        """Without the empty lines between reasoning and answer."""
        text = text.lstrip()
        if text:
            self._step = Piece
        return Piece(text)
