"""A turn (a user's message and its answer) in the database: start, restart, replay.

Each function is one short transaction. A turn's rows exist before the model is asked; whatever
fails later (the model refuses, the process dies) ends in a status of the answer: save_answer.py.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.conf import settings
from django.db import connection, transaction
from rest_framework.exceptions import NotFound

from chat import errors
from chat.answers import idempotency
from chat.answers.turn_statements import ADD_TURN, LOCK_USER, TOUCH, execute
from chat.conflicts import repeat_after_conflict
from chat.models import Conversation, Message, MessageQuerySet, Role, RunningAnswer, Status
from chat.rate_limit import count_message
from chat.token_limits import check_tokens
from retrieval.replica.user_writes import recorded


@dataclass
class Turn:
    """A user's message and its answer.

    ``running_id`` is the id of the answer's row in running_answers. None: it has no such row, since
    the answer has ended or the turn is not stored (docs/openai-api.md).
    """

    conversation: Conversation
    question: Message
    answer: Message
    running_id: int | None = None


@repeat_after_conflict
def start(
    conversation: Conversation,
    content: str,
    *,
    key: str | None,
    digest: bytes | None = None,
    is_counted: bool = False,
) -> Turn:
    """Save the user's message and an empty answer, or return the turn of the idempotency key.

    ``digest``: of the request, if it is more than ``content``. ``is_counted``: the limits have let
    it pass already. Raises InProgress, KeyReused, TooManyStreams, Throttled, DailyLimit, NotFound;
    then nothing is saved.
    """
    digest = digest or hashlib.sha256(b"message " + content.encode()).digest()
    with transaction.atomic(), recorded(conversation.user_id):
        lock_user(conversation.user_id)
        question = idempotency.find_question(conversation, key, digest)
        if question is not None:
            return replay_or_retry(conversation, question)
        if not is_counted:  # before anything is inserted: a refusal must leave no dead rows
            check_tokens(conversation.user_id)
            count_message(conversation.user_id)
        turn = _add_turn(conversation, content)
        idempotency.save_key(conversation, key, digest, turn.question)
        return turn


@repeat_after_conflict
def restart(conversation: Conversation, answer: Message, *, key: str | None) -> Turn:
    """Empty the conversation's last answer, or return the turn of the idempotency key.

    Raises NotLast, InProgress, KeyReused, TooManyStreams, Throttled, DailyLimit; then nothing is
    changed.
    """
    digest = hashlib.sha256(f"regenerate {answer.pk}".encode()).digest()
    with transaction.atomic(), recorded(conversation.user_id):
        lock_user(conversation.user_id)
        question = idempotency.find_question(conversation, key, digest)
        if question is not None:
            return replay_or_retry(conversation, question)
        question = _question_of_last(conversation, answer)
        return answer_again(conversation, question, answer, key=key, digest=digest)


def answer_again(
    conversation: Conversation,
    question: Message,
    answer: Message | None,
    *,
    key: str | None,
    digest: bytes,
    is_counted: bool = False,
) -> Turn:
    """Empty the answer to the question, or add one. The user's row must be locked.

    Raises InProgress, TooManyStreams, Throttled, DailyLimit.
    """
    if not is_counted:
        check_tokens(conversation.user_id)
        count_message(conversation.user_id)
    now = _refuse_if_busy(conversation)
    idempotency.save_key(conversation, key, digest, question)
    return _start_answer(conversation, question, answer, now)


def running_answer_of(conversation: Conversation) -> RunningAnswer | None:
    """The row of the answer that is being generated in the conversation."""
    return RunningAnswer.objects.filter(**{conversation.kind: conversation}).first()


def lock_user(user_id: int) -> datetime:
    """Serialise one user's turns: lock the user's row (FOR NO KEY UPDATE) until the commit.

    Returns the time by the database's clock, then. Raises NotFound if the user was deleted.
    """
    with connection.cursor() as cursor:
        cursor.execute(LOCK_USER, {"user": user_id})
        row = cursor.fetchone()
    if row is None:
        raise NotFound
    return cast("datetime", row[0])


def replay_or_retry(conversation: Conversation, question: Message) -> Turn:
    """Replay a finished turn, or retry a failed one; the rate limit has counted it already.

    Raises InProgress, TooManyStreams, DailyLimit.
    """
    answer = conversation.messages.filter(reply_to=question.pk).order_by("id").last()
    if answer is not None and idempotency.may_replay(answer):
        return Turn(conversation, question, answer)
    check_tokens(conversation.user_id)
    now = _refuse_if_busy(conversation)
    return _start_answer(conversation, question, answer, now)


def _question_of_last(conversation: Conversation, answer: Message) -> Message:
    """The message that the answer replies to: of an imported answer, the user's message before it.

    Raises NotLast if a later answer exists, or if the message was deleted.
    """
    messages: MessageQuerySet = conversation.messages.all()
    last = messages.filter(role=Role.ASSISTANT).in_order().last()
    if answer.reply_to is None:
        earlier = messages.filter(role=Role.USER, created_at__lte=answer.created_at)
        question = earlier.in_order().last()
    else:
        question = messages.filter(pk=answer.reply_to).first()
    if last is None or last.pk != answer.pk or question is None:
        raise errors.NotLast
    return cast("Message", question)


def _refuse_if_busy(conversation: Conversation) -> datetime:
    """One answer at a time per conversation, STREAMS_PER_USER per user. The database's time.

    The user's row must be locked. Abandoned answers count until they are ended. Raises NotFound
    if the conversation was deleted meanwhile.
    """
    row = execute(TOUCH, conversation)
    if row is None:
        raise NotFound
    now, busy = row
    _refuse_busy(conversation, busy)
    return cast("datetime", now)


def _refuse_busy(conversation: Conversation, busy: list[int | None]) -> None:
    """``busy``: the conversations of this kind of the user's running answers, else None."""
    if conversation.pk in busy:
        raise errors.InProgress
    if len(busy) >= settings.STREAMS_PER_USER:
        raise errors.TooManyStreams(retry_after_s=1)


def _add_turn(conversation: Conversation, content: str) -> Turn:
    """Insert the user's message, its empty answer and the running_answers row. One statement.

    Raises what ``_refuse_if_busy`` raises.
    """
    row = execute(ADD_TURN, conversation, content=content, max_running=settings.STREAMS_PER_USER)
    if row is None:
        raise NotFound
    now, busy, running_id, answer_id, question_id = row
    _refuse_busy(conversation, busy)
    fields = {"user_id": conversation.user_id, "conversation": conversation, "created_at": now}
    new = conversation.messages.model
    question = new(pk=question_id, role=Role.USER, content=content, **fields)
    answer = new(
        pk=answer_id, role=Role.ASSISTANT, status=Status.STREAMING, reply_to=question_id, **fields
    )
    return Turn(conversation, question, answer, running_id)


def _start_answer(
    conversation: Conversation, question: Message, answer: Message | None, now: datetime
) -> Turn:
    """Add an empty answer, or empty the given one, and add the running_answers row."""
    empty: dict[str, Any] = {
        "content": "",
        "status": Status.STREAMING,
        "error": None,
        "context": None,
        "reply_to": question.pk,
    }
    if answer is None:
        new = {"user_id": conversation.user_id, "role": Role.ASSISTANT, "created_at": now}
        answer = cast("Message", conversation.messages.create(**new, **empty))
    else:
        empty["edited_at"] = now  # taints answers that used the old text
        for name, value in empty.items():
            setattr(answer, name, value)
        answer.save(update_fields=list(empty))
    running = RunningAnswer.objects.create(
        user_id=conversation.user_id, message_id=answer.pk, **{conversation.kind: conversation}
    )
    return Turn(conversation, question, answer, running.pk)
