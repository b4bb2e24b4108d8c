"""Starts the turn of a client's request where it belongs: one short transaction.

What was read before it (chat/openai_api/placement.py) is checked again inside; if another request
has changed the chat meanwhile, it is read again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import cast

from django.contrib.auth.models import User
from django.db import transaction
from rest_framework.exceptions import NotFound

from chat import client_chats, errors
from chat.answers import idempotency, turns
from chat.answers.client_messages import Part, text_of
from chat.answers.completion_parser import storable
from chat.answers.turns import Turn
from chat.conflicts import repeat_after_conflict
from chat.erasures import was_erased_since
from chat.models import IdempotencyKey, StandaloneChat
from chat.openai_api.outlines import last_message_of
from chat.openai_api.placement import Placement
from chat.titles import title_from
from retrieval.queries import execute
from retrieval.replica.user_writes import recorded

MAX_ATTEMPTS = 3  # to place a turn while other requests change the chat
# Until the end of the transaction: the triggers leave copies out of memory.
DEFER_MEMORY = "SELECT set_config('verse.defer_memory_insert', %s, true)"
# The context says that they are copies: retrieval/message_tables.py. Locks: the new rows.
COPY = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at, context)
    SELECT %(user)s, %(chat)s, role, content, now(), '[{"copy": true}]'
    FROM unnest(%(roles)s::text[], %(contents)s::text[]) WITH ORDINALITY sent (role, content, place)
    ORDER BY place
"""


class Moved(Exception):
    """Another request has changed the chat since it was read."""


@dataclass(frozen=True)
class NewTurn:
    """A question to save. ``digest`` is that of the whole request, for its idempotency key."""

    user: User
    question: str
    key: str | None
    digest: bytes
    memory: bool  # of a chat that is made for it
    is_counted: bool = False  # by the rate limit
    # By the database's clock, of a turn that is stored at its answer's first word.
    begun_at: datetime | None = None


def request_digest(body: object) -> bytes:
    """SHA-256 of the request's body."""
    return sha256(b"/v1 " + json.dumps(body, sort_keys=True).encode()).digest()


def stored_key(key: str | None) -> str | None:
    """A user's key, so that it differs from the keys of conversations, whatever it holds."""
    return key and f"/v1 {sha256(key.encode()).hexdigest()}"


@repeat_after_conflict
def find_replay(new: NewTurn) -> Turn | None:
    """The turn of the user's idempotency key, finished, or started again if it failed.

    Raises InProgress, KeyReused, TooManyStreams.
    """
    if new.key is None:
        return None
    known = IdempotencyKey.objects.filter(user=new.user, key=new.key, chat__isnull=False)
    for row in known.select_related("chat").order_by("-id")[:1]:
        chat = cast("StandaloneChat", row.chat)
        with transaction.atomic(), recorded(new.user.pk):
            turns.lock_user(new.user.pk)
            question = idempotency.find_question(chat, new.key, new.digest)
            return turns.replay_or_retry(chat, question) if question else None
    return None


@repeat_after_conflict
def start_turn(
    new: NewTurn, place: Callable[[], Placement], *, first: Placement
) -> tuple[Turn, Placement]:
    """Save the question and an empty answer, in a new chat if need be.

    ``place`` reads the placement again if another request has changed the chat since ``first`` was
    read. Raises NotFound, and what ``turns.start`` raises; then nothing is saved.
    """
    placement = first
    for _ in range(MAX_ATTEMPTS):
        try:
            with transaction.atomic(), recorded(new.user.pk):
                turns.lock_user(new.user.pk)
                return _start(new, placement), placement
        except Moved:
            placement = place()
    raise errors.InProgress


def _start(new: NewTurn, placement: Placement) -> Turn:
    if new.key and IdempotencyKey.objects.filter(user=new.user, key=new.key).exists():
        raise errors.InProgress  # the same request came twice at once
    if new.begun_at and was_erased_since(new.user.pk, new.begun_at):
        raise NotFound
    chat = placement.chat
    if chat is None:
        chat = _new_chat(new, placement)
    elif last_message_of(chat.pk) != placement.last_id:
        raise Moved
    turn = _in_chat(chat, new, placement)
    if new.begun_at:
        # What was edited since then taints the answer: its prompt held the old text.
        chat.messages.filter(pk=turn.answer.pk).update(edited_at=new.begun_at)
    return turn


def _in_chat(chat: StandaloneChat, new: NewTurn, placement: Placement) -> Turn:
    if placement.replaced is None:
        return turns.start(
            chat, new.question, key=new.key, digest=new.digest, is_counted=new.is_counted
        )
    question = chat.messages.get(pk=placement.replaced.question.ref)
    answer = placement.replaced.answer
    return turns.answer_again(
        chat,
        question,
        chat.messages.filter(pk=answer.ref).first() if answer else None,
        key=new.key,
        digest=new.digest,
        is_counted=new.is_counted,
    )


def _new_chat(new: NewTurn, placement: Placement) -> StandaloneChat:
    title = title_from(new.question)
    chat = StandaloneChat.objects.create(user=new.user, title=title, memory=new.memory)
    client_id, before = placement.client_id, placement.named_before
    if client_id and not client_chats.point_to(chat, client_id, before=before):
        raise Moved
    if placement.copied:
        _copy(placement.copied, chat)
    return chat


def _copy(messages: list[Part], chat: StandaloneChat) -> None:
    """Copies of a client's messages, in their order, that memory leaves out."""
    values = {
        "user": chat.user_id,
        "chat": chat.pk,
        "roles": [message["role"] for message in messages],
        "contents": [storable(text_of(message)) for message in messages],
    }
    execute(DEFER_MEMORY, ["on"])
    execute(COPY, values)
    execute(DEFER_MEMORY, ["off"])
