"""Saves an answer: what its prompt holds, before the model is asked; at the end text and tokens."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import ProgrammingError, connection

from chat.answers.turn_statements import (
    FINISH,
    FINISH_AND_COUNT,
    RESTORE_CONTEXTS,
    SAVE_CONTEXT,
    Statements,
)
from chat.conflicts import repeat_after_conflict
from chat.models import Message, Status
from chat.prices import model_name
from retrieval import queries, token_usage
from retrieval.replica.user_writes import recorded
from retrieval.token_usage import Tokens

INTERRUPTED = "interrupted"  # the ``error`` of an answer whose process died or was stopped


@dataclass(frozen=True)
class Ending:
    """How an answer ended. ``error`` is None if it is complete or the user stopped it."""

    status: Status
    error: str | None = None
    detail: str = ""
    finish_reason: str | None = None  # why the model's server cut a complete answer

    def entries(self, tokens: Tokens | None) -> list[dict[str, Any]]:
        """What is added to Message.context."""
        entries: list[dict[str, Any]] = []
        if self.finish_reason:
            entries.append({"finish_reason": self.finish_reason})
        if tokens:
            numbers = (tokens.prompt_tokens, tokens.completion_tokens, tokens.cached_tokens)
            entries.append({"usage": list(numbers), "model": model_name()})
        return entries


@repeat_after_conflict
def finish(
    answer: Message,
    text: str,
    ending: Ending,
    *,
    running_id: int | None,
    truncated: bool = False,
    tokens: Tokens | None = None,
) -> Message | None:
    """Save the answer unless another process ended it first, and count its tokens.

    One statement, else two. Returns the answer as it is in the database; None if it was deleted.
    """
    values = {
        "content": text,
        "status": ending.status,
        "error": ending.error,
        "truncated": truncated,
    }
    entries = ending.entries(tokens)
    parameters = values | {
        "running_id": running_id,
        "answer_id": answer.pk,
        "context": json.dumps(answer.context) if answer.context else None,
        "entries": json.dumps(entries) if entries else None,
    }
    if not _finish(answer, parameters, tokens):
        return type(answer)._default_manager.filter(pk=answer.pk).first()
    for name, value in values.items():
        setattr(answer, name, value)
    if entries:
        answer.context = [*(answer.context or []), *entries]
    return answer


def _finish(answer: Message, parameters: dict[str, Any], tokens: Tokens | None) -> bool:
    """Whether the answer was saved."""
    if tokens and tokens.total and token_usage.has_table():
        counted = tokens.parameters(answer.user_id)
        try:
            return _run(FINISH_AND_COUNT, answer, parameters | counted)
        except ProgrammingError:
            token_usage.forget_table()  # migrated back since
    return _run(FINISH, answer, parameters)


def _run(statements: Statements, answer: Message, parameters: dict[str, Any]) -> bool:
    with recorded(answer.user_id), connection.cursor() as cursor:
        cursor.execute(statements[type(answer)], parameters)
        return bool(cursor.rowcount)


def save_context(answer: Message, context: list[dict[str, Any]]) -> None:
    """Store the ids of what the prompt holds, before the model sees it: the process may die."""
    answer.context = context or None
    if context:
        params = {"context": json.dumps(context), "answer": answer.pk}
        queries.execute(SAVE_CONTEXT[type(answer)], params)


def restore_contexts(answers: Iterable[Message]) -> None:
    """Before texts are stored: without its context nothing would taint an answer.

    One statement for each kind of answers that have a context; it waits for the disk.
    """
    by_model: dict[type[Message], list[Message]] = defaultdict(list)
    for answer in answers:
        if answer.context:
            by_model[type(answer)].append(answer)
    for model, of_kind in by_model.items():
        contexts = [json.dumps(answer.context) for answer in of_kind]
        params = {"ids": [answer.pk for answer in of_kind], "contexts": contexts}
        queries.execute(RESTORE_CONTEXTS[model], params)
