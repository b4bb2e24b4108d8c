"""A turn in the database: begun, ended, found again by its key. Each function is one short transaction.

A turn is a user's message and the answer to it. Its rows are there before the model is asked, and whatever
happens afterwards (the model refuses, the process dies) ends in a status of the answer.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.exceptions import NotFound

from chat import errors
from chat.answers import idempotency
from chat.models import (
    Message,
    MessageQuerySet,
    Passage,
    Role,
    RunningAnswer,
    StandaloneChat,
    Status,
)
from chat.rate_limit import count_hit

AnyConversation = Passage | StandaloneChat
ABANDONED_S = (
    10  # an answer whose process has shown no life for so long has none; docs/decisions/0006
)
INTERRUPTED = "interrupted"  # error of an answer whose process died or was stopped
# The message tables by a running answer's column. Locks: the rows named, for the statement.
END_ABANDONED = """
    WITH gone AS (
        DELETE FROM running_answers WHERE alive_at < now() - make_interval(secs => %(seconds)s)
        RETURNING passage_id, message_id, text
    ), passages AS (
        UPDATE chat_messages m SET status = 'interrupted', error = 'interrupted', content = gone.text
        FROM gone WHERE gone.passage_id IS NOT NULL AND m.id = gone.message_id
    )
    UPDATE standalone_chat_messages m SET status = 'interrupted', error = 'interrupted', content = gone.text
    FROM gone WHERE gone.passage_id IS NULL AND m.id = gone.message_id
"""
# Whoever deletes the row of an answer being given writes the answer, and nobody else. Locks: both rows.
FINISH = """
    WITH ours AS (DELETE FROM running_answers WHERE id = %(running)s RETURNING id)
    UPDATE {table} SET content = %(content)s, status = %(status)s, error = %(error)s, truncated = %(truncated)s
    WHERE id = %(id)s AND EXISTS (SELECT FROM ours)
"""
LOCK_USER = "SELECT FROM {users} WHERE id = %s FOR NO KEY UPDATE"
# The conversation's new time, and whatever of the user's is being answered, as it is once the user's row is ours.
TOUCH = """
    UPDATE {conversations} SET updated_at = %(now)s WHERE id = %(conversation)s
    RETURNING ARRAY(SELECT {column} FROM running_answers WHERE user_id = %(user)s)
"""
ADD = """
    WITH question AS (
        INSERT INTO {messages} (user_id, {column}, role, content, created_at)
        VALUES (%(user)s, %(conversation)s, 'user', %(content)s, %(now)s) RETURNING id
    ), answer AS (
        INSERT INTO {messages} (user_id, {column}, role, content, created_at, status, reply_to)
        SELECT %(user)s, %(conversation)s, 'assistant', '', %(now)s, 'streaming', id FROM question
        RETURNING id, reply_to
    )
    INSERT INTO running_answers (user_id, {column}, message_id)
    SELECT %(user)s, %(conversation)s, id FROM answer RETURNING id, message_id, (SELECT reply_to FROM answer)
"""


@dataclass
class Turn:
    """A message, its answer, and the row of the answer being given; ``running_id`` is None where it is over."""

    conversation: AnyConversation
    question: Message
    answer: Message
    running_id: int | None = None


@dataclass(frozen=True)
class Ending:
    """How an answer ended; ``error`` is None where it is an answer, whole or stopped by the user."""

    status: Status
    error: str | None = None
    detail: str = ""


def start(conversation: AnyConversation, content: str, *, key: str | None) -> Turn:
    """Keep the user's message and make room for its answer, or find the turn that the key began.

    Raises InProgress, KeyReused, TooManyStreams, Throttled, NotFound; then nothing is kept.
    """
    digest = hashlib.sha256(b"message " + content.encode()).digest()
    with transaction.atomic():
        lock_user(conversation.user_id)
        question = idempotency.find_question(conversation, key, digest)
        if question is not None:
            return _replay_or_retry(conversation, question)
        _refuse_if_busy(conversation)
        _count_against_rate_limit(conversation)
        turn = _add_turn(conversation, content)
        idempotency.save_key(conversation, key, digest, turn.question)
        return turn


def restart(conversation: AnyConversation, answer: Message, *, key: str | None) -> Turn:
    """Make room for a new text of the conversation's last answer, or find the turn that the key began.

    Raises NotLast, InProgress, KeyReused, TooManyStreams, Throttled.
    """
    digest = hashlib.sha256(f"regenerate {answer.pk}".encode()).digest()
    with transaction.atomic():
        lock_user(conversation.user_id)
        known = idempotency.find_question(conversation, key, digest)
        if known is not None:
            return _replay_or_retry(conversation, known)
        _refuse_if_busy(conversation)
        question = question_of(conversation, answer)
        _count_against_rate_limit(conversation)
        idempotency.save_key(conversation, key, digest, question)
        return _start_answer(conversation, question, answer)


def question_of(conversation: AnyConversation, answer: Message) -> Message:
    """The message that the conversation's last answer replies to. Raises NotLast."""
    messages: MessageQuerySet = conversation.messages.all()
    last = messages.filter(role=Role.ASSISTANT).order_by("created_at", "id").last()
    earlier = messages.filter(role=Role.USER, created_at__lte=answer.created_at).order_by(
        "created_at", "id"
    )
    question = messages.filter(pk=answer.reply_to or 0).first() or earlier.last()
    if last is None or last.pk != answer.pk or question is None:
        raise errors.NotLast
    return cast("Message", question)


def finish(turn: Turn, text: str, ending: Ending, *, truncated: bool = False) -> Message | None:
    """Write the answer, once, unless another process has ended it; the message as it is then, None if it is gone.

    One statement, two where another was quicker.
    """
    answer = turn.answer
    written = {
        "content": text,
        "status": ending.status,
        "error": ending.error,
        "truncated": truncated,
    }
    statement = FINISH.replace("{table}", answer._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(statement, written | {"running": turn.running_id, "id": answer.pk})
        ours = cursor.rowcount
    if not ours:
        return type(answer)._default_manager.filter(pk=answer.pk).first()
    for name, value in written.items():
        setattr(answer, name, value)
    return answer


def save_context(answer: Message, context: list[dict[str, Any]]) -> None:
    """Keep with the answer the ids of what it is given, before it is given: it counts though the process dies."""
    answer.context = context or None
    if context:
        type(answer)._default_manager.filter(pk=answer.pk).update(context=context)


def heartbeat(texts: dict[int, str]) -> dict[int, bool]:
    """Write the texts so far of running answers (row id → text); which still run, and which were asked to stop."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE running_answers r SET text = v.text, alive_at = now() "
            "FROM unnest(%s::bigint[], %s::text[]) v(id, text) WHERE r.id = v.id RETURNING r.id, r.stop_asked",
            [list(texts), list(texts.values())],
        )
        return dict(cursor.fetchall())


def poll_stop_flags(ids: list[int]) -> dict[int, bool]:
    """Which of these running answers still run, and which were asked to stop. Writes nothing."""
    return dict(RunningAnswer.objects.filter(pk__in=ids).values_list("pk", "stop_asked"))


def end_abandoned(*, seconds: float = ABANDONED_S) -> None:
    """End as interrupted, with the text they have, the answers of processes that are gone."""
    with connection.cursor() as cursor:
        cursor.execute(END_ABANDONED, {"seconds": seconds})


def running_answer_of(conversation: AnyConversation) -> RunningAnswer | None:
    """The conversation's answer being given."""
    return RunningAnswer.objects.filter(**of_conversation(conversation)).first()


def lock_user(user_id: int) -> None:
    """Wait for the user's other turn to be begun: limits are counted one after the other. Lock: the user's row."""
    with connection.cursor() as cursor:
        cursor.execute(LOCK_USER.replace("{users}", get_user_model()._meta.db_table), [user_id])


def _replay_or_retry(conversation: AnyConversation, question: Message) -> Turn:
    """The turn as it ended; one without an answer runs again, and is not counted: it was, the first time."""
    answer = conversation.messages.filter(reply_to=question.pk).order_by("id").last()
    if answer is not None and answer.status == Status.STREAMING:
        raise errors.InProgress
    if answer is not None and answer.error is None:
        return Turn(conversation, question, answer)
    _refuse_if_busy(conversation)
    return _start_answer(conversation, question, answer)


def _refuse_if_busy(conversation: AnyConversation) -> None:
    """One answer at once for a conversation, STREAMS_PER_USER for a user; abandoned ones count until ended."""
    # It may have been deleted since it was found; whoever deletes it holds the user's row, as we do now.
    row = _execute(TOUCH, conversation)
    if row is None:
        raise NotFound
    (busy,) = row
    if conversation.pk in busy:
        raise errors.InProgress
    if len(busy) >= settings.STREAMS_PER_USER:
        raise errors.TooManyStreams(retry_after_s=1)


def _execute(
    statement: str, conversation: AnyConversation, **params: Any
) -> tuple[Any, ...] | None:
    """The statement's row; the names of the conversation's tables and its column stand in braces."""
    source = conversation.messages.model.memory_table
    names = {
        "conversations": conversation._meta.db_table,
        "messages": source.table,
        "column": source.conversation,
    }
    params |= {"user": conversation.user_id, "conversation": conversation.pk}
    with connection.cursor() as cursor:
        cursor.execute(statement.format(**names), {"now": timezone.now()} | params)
        return cast("tuple[Any, ...] | None", cursor.fetchone())


def _add_turn(conversation: AnyConversation, content: str) -> Turn:
    """The user's message, its answer still empty, and the row of the answer being given. One statement."""
    now = timezone.now()
    row = _execute(ADD, conversation, content=content, now=now)
    running_id, answer_id, question_id = row or (None, None, None)
    fields = {"user_id": conversation.user_id, "conversation": conversation, "created_at": now}
    new = conversation.messages.model
    question = new(pk=question_id, role=Role.USER, content=content, **fields)
    answer = new(
        pk=answer_id, role=Role.ASSISTANT, status=Status.STREAMING, reply_to=question_id, **fields
    )
    return Turn(conversation, question, answer, running_id)


def _count_against_rate_limit(conversation: AnyConversation) -> None:
    rate = settings.THROTTLE_MESSAGES
    if rate is None:
        return
    wait_s = count_hit(f"messages {conversation.user_id}", limit=rate.limit, seconds=rate.seconds)
    if wait_s is not None:
        raise errors.Throttled(retry_after_s=wait_s)


def _add(conversation: AnyConversation, role: Role, **fields: Any) -> Message:
    return conversation.messages.create(user_id=conversation.user_id, role=role, **fields)


def _start_answer(conversation: AnyConversation, question: Message, answer: Message | None) -> Turn:
    """The rows of an answer being given: a new one, or the earlier one emptied."""
    empty = {
        "content": "",
        "status": Status.STREAMING,
        "error": None,
        "context": None,
        "reply_to": question.pk,
    }
    if answer is None:
        answer = _add(conversation, Role.ASSISTANT, **empty)
    else:
        empty["edited_at"] = (
            timezone.now()
        )  # what was said before, and to whom it was given, is no more
        for name, value in empty.items():
            setattr(answer, name, value)
        answer.save(update_fields=list(empty))
    running = RunningAnswer.objects.create(
        user_id=conversation.user_id, message_id=answer.pk, **of_conversation(conversation)
    )
    return Turn(conversation, question, answer, running.pk)


def of_conversation(conversation: AnyConversation) -> dict[str, AnyConversation]:
    """The column that holds the conversation, by its kind."""
    return {conversation.kind: conversation}
