"""The history of a conversation as whole turns, and where in it a prompt begins.

A provider keeps the beginning of a prompt in a cache, so each prompt should begin as the one
before. Therefore the history begins where it began in the last answer's prompt, whose ids are
stored in ``Message.context``. Only when it is over its limit, of messages or of tokens, it is cut
to half of that limit; then many turns pass until the next cut. docs/decisions/0005-prompt.md
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chat.answers.turn_statements import HISTORY, MESSAGE_ROWS
from chat.answers.turns import Turn
from chat.models import Message, context_entries
from retrieval import queries

# The instructions and some words. Of the smallest LLM_CONTEXT_TOKENS, half is for the answer, and a
# fifth of the rest is the margin.
MIN_BUDGET_TOKENS = 204


@dataclass(frozen=True)
class PastTurn:
    """A question and its answer; an imported conversation can have several answers to one."""

    question: Message
    answers: Sequence[Message]

    @property
    def messages(self) -> list[Message]:
        return [self.question, *self.answers]

    @property
    def answer_text(self) -> str:
        return "\n\n".join(answer.content for answer in self.answers)


class Window(NamedTuple):
    """What is known of a window that is smaller than LLM_CONTEXT_TOKENS says: tokens of prompts.

    The largest one that the model's server has accepted, the smallest that it has refused.
    """

    accepted_tokens: int
    refused_tokens: int

    @property
    def largest_tokens(self) -> int:
        """The largest prompt that may be accepted. A server that refuses less is not believed."""
        return max(self.refused_tokens - 1, MIN_BUDGET_TOKENS)

    @property
    def usual_tokens(self) -> int:
        """The limit of prompts: what was accepted, but at least half of what was refused, because
        a short message that was accepted alone says little.
        """
        return max(self.accepted_tokens, self.refused_tokens // 2)

    def after(self, accepted_tokens: int) -> "Window | None":
        """None if the server accepts by now what it refused before."""
        accepted = max(accepted_tokens, self.accepted_tokens)
        return Window(accepted, self.refused_tokens) if accepted < self.refused_tokens else None


def window_after_refusal(window: Window | None, tokens: int) -> Window:
    """A prompt of so many tokens was refused. An accepted one that was as large says nothing."""
    if window is None or window.accepted_tokens >= tokens:
        return Window(0, tokens)
    return Window(window.accepted_tokens, min(window.refused_tokens, tokens))


@dataclass(frozen=True)
class History:
    """The newest turns, oldest first, at most ``limit`` messages; ``has_more``: older ones exist.

    ``sent`` are the ids of the history in the last answer's prompt, oldest first. ``window`` is
    what that prompt has shown of the server's window; None if no prompt was refused as too long.
    """

    turns: list[PastTurn] = field(default_factory=list)
    limit: int = 0
    has_more: bool = False
    sent: list[int] = field(default_factory=list)
    window: Window | None = None

    def from_last_start(self) -> list[PastTurn]:
        """The turns from where the last prompt's history began; half of the limit if it is over."""
        ids = {turn.question.pk for turn in self.turns}
        if self.has_more and not (self.sent and self.sent[0] in ids):
            return newest(self.turns, -(-self.limit // 4))  # a turn has two messages
        starts = (n for n, turn in enumerate(self.turns) if turn.question.pk in self.sent)
        return self.turns[next(starts, 0) :]


def newest(turns: list[PastTurn], number: int) -> list[PastTurn]:
    return turns[max(len(turns) - number, 0) :]


def fit_history(
    history: History, cost: Callable[[PastTurn], int], *, budget_tokens: int
) -> list[PastTurn]:
    """The turns of the prompt: all from the last start, or what fits into half of the budget.

    The newest turn may take the whole budget.
    """
    turns = history.from_last_start()
    costs = [cost(turn) for turn in turns]
    if sum(costs) <= budget_tokens:
        return turns
    left, fitting = budget_tokens // 2, 0
    while fitting < len(costs) and costs[-1 - fitting] <= left:
        left -= costs[-1 - fitting]
        fitting += 1
    if not fitting and costs[-1] <= budget_tokens:
        fitting = 1
    return newest(turns, fitting)


def read_history(turn: Turn, *, limit: int) -> History:
    """The finished turns before the question, at most ``limit`` messages. One query.

    A question without an answer is not part of it, nor an answer without a question.
    """
    turns_limit = limit // 2
    if not turns_limit:
        return History()
    pairs, context = _answers_before(turn, limit=turns_limit + 1)
    has_more = len(pairs) > turns_limit
    if has_more:  # the oldest one only shows that there is more
        oldest = pairs[-1][0]
        pairs = [(question, answer) for question, answer in pairs if question != oldest]
    by_question: dict[Message, list[Message]] = {}
    for question, answer in reversed(pairs):
        if question is not None and answer.content.strip():
            by_question.setdefault(question, []).append(answer)
    turns = [PastTurn(question, answers) for question, answers in by_question.items()]
    return History(turns, limit, has_more, *_last_prompt(context))


def _answers_before(
    turn: Turn, *, limit: int
) -> tuple[list[tuple[Message | None, Message]], str | None]:
    """The newest answers, newest first, with their questions; the newest one's context as JSON."""
    model = type(turn.question)
    params = {
        "conversation": turn.conversation.pk,
        "asked_at": turn.question.created_at,
        "question": turn.question.pk,
        "limit": limit,
    }
    row, pairs, context = MESSAGE_ROWS[model], [], None
    for values in queries.rows(HISTORY[model], params):
        question = row.instance(values[: len(row)]) if values[0] is not None else None
        answer = row.instance(values[len(row) : -1])
        for message in filter(None, (question, answer)):
            message.conversation = turn.conversation
        pairs.append((question, answer))
        context = context or values[-1]
    return pairs, context


def _last_prompt(context: str | None) -> tuple[list[int], Window | None]:
    """What an answer's context says of its prompt: ids of the history, what the window showed."""
    for entry in context_entries(json.loads(context or "[]")):
        if isinstance(entry.get("history"), list):
            return entry["history"], _window_of(entry.get("window"))
    return [], None


def _window_of(stored: Any) -> Window | None:
    match stored:
        case [int(accepted), int(refused)]:
            return Window(accepted, refused)
    return None
