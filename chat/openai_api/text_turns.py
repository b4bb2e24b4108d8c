"""Conversations as whole turns of digests: what a client sends and what is stored look the same.

Two texts are equal if they differ in line ends, or in space at their ends, at most. Messages of the
system and of tools, images and calls of tools are left out. Of several answers to one question the
last counts: an answer that calls a tool is followed by another.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from chat.answers.client_messages import Part, text_of

DIGEST_BYTES = 16
SPACE = " \t\n\v\f"  # as in the index standalone_messages_text


def normal(text: str) -> str:
    """The text as it is compared."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.strip(SPACE)


def digest_of(normal_text: str) -> bytes:
    """As the index standalone_messages_text has it."""
    return sha256(normal_text.encode()).digest()[:DIGEST_BYTES]


class TextMessage(NamedTuple):
    """A message with text. ``ref``: its place among the client's messages, or its id."""

    by_user: bool
    digest: bytes
    ref: int


class TextTurn(NamedTuple):
    """A question and its answer; ``answer`` is None where the client shows none."""

    question: TextMessage
    answer: TextMessage | None

    @property
    def refs(self) -> list[int]:
        return [self.question.ref] + ([self.answer.ref] if self.answer else [])


def text_messages(messages: Sequence[Part]) -> list[TextMessage]:
    """Of a client's messages, those of the user's and the assistant's that have text."""
    spoken = []
    for place, message in enumerate(messages):
        role = message["role"]
        if role in ("user", "assistant") and (text := normal(text_of(message))):
            spoken.append(TextMessage(role == "user", digest_of(text), place))
    return spoken


def text_turns(messages: Iterable[TextMessage]) -> list[TextTurn]:
    """The messages in turns. An answer before the first question is left out."""
    turns: list[TextTurn] = []
    question = answer = None
    for message in messages:
        if not message.by_user:
            answer = message
            continue
        if question:
            turns.append(TextTurn(question, answer))
        question, answer = message, None
    return [*turns, TextTurn(question, answer)] if question else turns
