"""What a user knows of their own data: only what was acknowledged is certain.

A request without an acknowledgement may have happened or not: what it would have added is MAYBE,
and what it would have changed may be either.
"""

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.storm.marks import canary, mark_of, marks_in


class Presence(Enum):
    """Whether something is stored."""

    CERTAIN = "certain"
    MAYBE = "maybe"
    DELETED = "deleted"


@dataclass
class Expected:
    """A message. ``texts``: what it may be now; None: anything. ``pk``: None if not known."""

    role: str
    texts: set[str] | None
    presence: Presence = Presence.MAYBE
    pk: int | None = None

    @property
    def mark(self) -> str:
        """Of one of its texts, for a report."""
        return mark_of(min(self.texts)) if self.texts else ""

    @property
    def marks(self) -> set[str]:
        """Of the texts that it may be now."""
        return {mark_of(text) for text in self.texts or ()} - {""}

    @property
    def is_certain(self) -> bool:
        """Whether it is stored, and its id is known."""
        return self.presence == Presence.CERTAIN and self.pk is not None

    def acknowledge(self, message: dict[str, Any]) -> None:
        """It is stored like this: a Message of the API."""
        self.pk, self.texts = message["id"], {message["content"]}
        self.presence = Presence.CERTAIN


@dataclass
class Exchange:
    """A question and its answer."""

    question: Expected
    answer: Expected


@dataclass
class Talk:
    """A conversation. ``memory``: its switch as it may be now. ``import_id``: what added it."""

    kind: str  # "chats" or "passages", as in addresses
    title: str
    presence: Presence = Presence.MAYBE
    pk: int | None = None
    memory: set[bool] = field(default_factory=lambda: {True})
    exchanges: list[Exchange] = field(default_factory=list)
    import_id: int | None = None

    @property
    def messages(self) -> list[Expected]:
        return [expected for pair in self.exchanges for expected in (pair.question, pair.answer)]


@dataclass
class Diary:
    """Of one user. ``enabled``: the user's memory switch as it may be now."""

    seed: int
    user: int
    talks: list[Talk] = field(default_factory=list)
    enabled: set[bool] = field(default_factory=lambda: {True})
    # Marks of texts that were forgotten, and when that was acknowledged: time.monotonic() seconds.
    forgotten: dict[str, float] = field(default_factory=dict)
    sent: dict[str, list[float]] = field(default_factory=dict)  # mark: when it was asked
    generations: dict[str, int] = field(default_factory=dict)  # mark: how many answers were asked
    _number: int = 0

    def new_text(self, words: str) -> str:
        """A text of the user with a mark of its own."""
        self._number += 1
        return f"{canary(self.seed, self.user)}x{self._number} {words}"

    def forget(self, marks: set[str]) -> None:
        now = time.monotonic()
        self.forgotten |= {mark: now for mark in marks if mark not in self.forgotten}

    def forget_message(self, expected: Expected) -> None:
        """Its deletion was acknowledged."""
        expected.presence = Presence.DELETED
        self.forget(expected.marks)

    def forget_talk(self, talk: Talk) -> None:
        """Its deletion was acknowledged."""
        talk.presence = Presence.DELETED
        self.forget({mark_of(talk.title)})
        for expected in talk.messages:
            self.forget_message(expected)

    def asks(self, text: str) -> None:
        """The text is sent, or sent again, to be answered."""
        self.sent.setdefault(mark_of(text), []).append(time.monotonic())

    def doubt_talk(self, talk: Talk) -> None:
        """Its deletion was not acknowledged."""
        doubtful: list[Talk | Expected] = [talk, *talk.messages]
        for item in doubtful:
            if item.presence == Presence.CERTAIN:
                item.presence = Presence.MAYBE

    def confirm_talk(self, talk: Talk) -> None:
        """It is stored with its messages."""
        talk.presence = Presence.CERTAIN
        for message in talk.messages:
            message.presence = Presence.CERTAIN

    def usable_talks(self) -> list[Talk]:
        """Those in which the user can talk."""
        return [talk for talk in self.talks if talk.pk and talk.presence == Presence.CERTAIN]

    def expects_answer(self, text: str) -> None:
        """One more answer to the text may be paid for."""
        self.generations[mark_of(text)] = self.generations.get(mark_of(text), 0) + 1

    def forgotten_in(self, text: str, *, since: float) -> set[str]:
        """Marks in the text that were forgotten before this time."""
        return {mark for mark in marks_in(text) if self.forgotten.get(mark, since) < since}
