"""Compares what a client sends with what a chat holds: does its turn continue the chat?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chat.openai_api.outlines import Outline
from chat.openai_api.text_turns import TextTurn

# Whether the client's answer (its place) is the beginning of the stored one (its id), for pairs.
AreBeginnings = Callable[[list[tuple[int, int]]], bool]


@dataclass(frozen=True)
class Match:
    """The turn continues the chat, or answers ``replaced``, its last question, again.

    ``held``: the stored messages that the client sends, oldest first.
    """

    replaced: TextTurn | None = None
    held: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Sent:
    """What a client sends: the turns before its question, and the question's digest.

    A question without an answer is one that the client stopped, or that failed, or a text that it
    puts before the real question: so turns are compared with and without them.
    """

    turns: list[TextTurn]
    question: bytes
    are_beginnings: AreBeginnings

    @property
    def forms(self) -> list[list[TextTurn]]:
        answered = [turn for turn in self.turns if turn.answer]
        return [self.turns] if len(answered) == len(self.turns) else [self.turns, answered]

    def equal(self, turns: Sequence[TextTurn], stored: Sequence[TextTurn]) -> bool:
        """By role and text. An answer of the client's may be the beginning of the stored one."""
        if len(turns) != len(stored):
            return False
        pairs = []
        for turn, other in zip(turns, stored, strict=True):
            if turn.question.digest != other.question.digest or other.answer is None:
                return False
            if turn.answer and turn.answer.digest != other.answer.digest:
                pairs.append((turn.answer.ref, other.answer.ref))
        return not pairs or self.are_beginnings(pairs)


def match(
    sent: Sent, chat: Outline, *, is_named: bool = False, is_alone: bool = False
) -> Match | None:
    """How the turn continues the chat; None if the client's history is another one.

    ``is_named``: the request names this chat, so an empty history is no reason to look elsewhere.
    ``is_alone``: the request has only a question. If the chat's last question is the same, that one
    is asked again.
    """
    for form in sent.forms:
        if len(form) == len(chat.turns) and sent.equal(form, chat.turns) and (form or is_named):
            return _continued(sent, chat, len(form))
        if _asks_again(sent, chat) and sent.equal(form, chat.turns[:-1]):
            return _again(chat, len(form))
        if chat.open and ends_unfinished(sent, form, chat) and not form[-1].answer:
            return _continued(sent, chat, len(form) - 1)
    for form in sent.forms:
        size = len(form)
        if is_named and size and sent.equal(form, chat.turns[:size]):
            return None  # the client went back to an earlier place, rather than left out its start
        if 0 < size < len(chat.turns) and sent.equal(form, chat.turns[-size:]):
            return _continued(sent, chat, size)
        before = chat.turns[:-1]
        end = before[len(before) - size :]
        is_end = size < len(before) and (size > 0 or is_alone)
        if is_end and _asks_again(sent, chat) and sent.equal(form, end):
            return _again(chat, size)
    return None


def match_failed(sent: Sent, chat: Outline) -> Match | None:
    """The same messages again, after an answer that failed or broke off."""
    if chat.open and chat.open.question.digest == sent.question:
        for form in sent.forms:
            if sent.equal(form, chat.turns):
                return Match(chat.open, held_in(chat.turns))
    if chat.is_broken and _asks_again(sent, chat):
        for form in sent.forms:
            if sent.equal(form, chat.turns[:-1]):
                return _again(chat, len(form))
    return None


def is_part(sent: Sent, chat: Outline) -> bool:
    """Whether the chat holds the client's history, and goes on otherwise.

    A client may have seen more of an answer than a process had saved when it died.
    """
    for form in sent.forms:
        if ends_unfinished(sent, form, chat):
            return True
        size = len(form)
        for start in range(len(chat.turns) - size + 1):
            if form and sent.equal(form, chat.turns[start : start + size]):
                return True
    return False


def ends_unfinished(sent: Sent, form: Sequence[TextTurn], chat: Outline) -> bool:
    """Whether the client's last question is the chat's last one, which has no whole answer."""
    if not form:
        return False
    *before, last = form
    unfinished, earlier = chat.open, chat.turns
    if chat.is_broken and chat.turns:
        *earlier, unfinished = chat.turns
    if not unfinished or last.question.digest != unfinished.question.digest:
        return False
    return sent.equal(before, earlier[len(earlier) - len(before) :])


def held_in(turns: Sequence[TextTurn]) -> list[int]:
    return [ref for turn in turns for ref in turn.refs]


def shared(sent: Sent, chat: Outline) -> list[int]:
    """The stored messages that the client sends too, whatever else it has changed."""
    turns = [*chat.turns, *([chat.open] if chat.open else [])]
    messages = {turn.question.digest: turn.question.ref for turn in turns}
    messages |= {turn.answer.digest: turn.answer.ref for turn in chat.turns if turn.answer}
    digests = (
        message.digest for turn in sent.turns for message in (turn.question, turn.answer) if message
    )
    return [messages[digest] for digest in digests if digest in messages]


def _asks_again(sent: Sent, chat: Outline) -> bool:
    """Whether the question is the chat's last one, which has an answer with text."""
    is_last = chat.open is None and bool(chat.turns)
    return is_last and chat.turns[-1].question.digest == sent.question


def _continued(sent: Sent, chat: Outline, size: int) -> Match:
    held = held_in(chat.turns[len(chat.turns) - size :])
    is_open = chat.open is not None and chat.open.question.digest == sent.question
    return Match(chat.open if is_open else None, held)


def _again(chat: Outline, size: int) -> Match:
    before = chat.turns[:-1]
    return Match(chat.turns[-1], held_in(before[len(before) - size :]))
