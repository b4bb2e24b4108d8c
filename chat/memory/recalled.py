"""Recalled messages: shown by the API, and stored with the answer as ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model

from chat.json_times import json_time
from chat.models import (
    KINDS,
    ChatMessage,
    Conversation,
    Message,
    Passage,
    StandaloneChat,
    StandaloneChatMessage,
)
from retrieval.forgetting import was_edited_since
from retrieval.message_tables import unpack_ref
from retrieval.recall.messages import Companion, Recalled

Row = TypeVar("Row", bound=Model)
MODELS = {model.memory_table.kind_bit: model for model in KINDS.values()}
# The kinds of conversations, each with the field that its title is in.
CONVERSATIONS: dict[int, tuple[type[Conversation], str]] = {
    StandaloneChatMessage.memory_table.kind_bit: (StandaloneChat, "title"),
    ChatMessage.memory_table.kind_bit: (Passage, "reference"),
}


@dataclass(frozen=True)
class Memory:
    """A recalled message, its score, and the other message of its turn if the prompt holds it."""

    message: Message
    score: float
    companion: Message | None = None

    @property
    def ref(self) -> int:
        """The packed ref of the message."""
        return self.message.memory_table.pack_ref(self.message.pk)

    def as_json(self) -> dict[str, Any]:
        """A Memory of docs/api/memory.md."""
        conversation: Conversation = self.message.conversation
        return {
            "message_id": self.message.pk,
            "source": {
                "kind": conversation.kind,
                "id": conversation.pk,
                "title": str(conversation),
            },
            "role": self.message.role,
            "content": self.message.content,
            "created_at": json_time(self.message.created_at),
            "score": round(self.score, 4),
        } | self._with()

    def as_stored(self) -> dict[str, Any]:
        """An entry of Message.context: ids, so that a deleted text is not stored twice."""
        kind = self.message.conversation.kind
        return {"kind": kind, "id": self.message.pk, "score": round(self.score, 4)} | self._with()

    def _with(self) -> dict[str, list[int]]:
        return {"with": [self.companion.pk]} if self.companion else {}


def as_memory(recalled: Recalled, *, user_id: int) -> Memory:
    """The recalled message of this user."""
    kind_bit, _ = unpack_ref(recalled.ref)
    conversation = _conversation(kind_bit, user_id, recalled)
    message, companion = _message(conversation, recalled), None
    if recalled.companion:
        companion = _message(conversation, recalled.companion)
    return Memory(message, recalled.score, companion)


def title_of(conversation: Conversation) -> str:
    """Its title or reference as stored, "" for a chat without one."""
    _, title = CONVERSATIONS[KINDS[conversation.kind].memory_table.kind_bit]
    return str(getattr(conversation, title))


def _conversation(kind_bit: int, user_id: int, recalled: Recalled) -> Conversation:
    model, title = CONVERSATIONS[kind_bit]
    values = {"id": recalled.conversation, "user_id": user_id, title: recalled.title}
    return _row_of(model, values)


def _message(conversation: Conversation, recalled: Recalled | Companion) -> Message:
    kind_bit, pk = unpack_ref(recalled.ref)
    values = {
        "id": pk,
        "user_id": conversation.user_id,
        "conversation_id": conversation.pk,
        "role": recalled.role,
        "content": recalled.content,
        "created_at": recalled.created_at,
        "edited_at": recalled.edited_at,
    }
    message = _row_of(MODELS[kind_bit], values)
    message.conversation = conversation
    return message


def _row_of(model: type[Row], values: dict[str, Any]) -> Row:
    """A row with these fields; others would be loaded when they are read."""
    names = [field.attname for field in model._meta.concrete_fields if field.attname in values]
    return model.from_db(DEFAULT_DB_ALIAS, names, [values[name] for name in names])


def memories_of(answer: Message) -> list[Memory]:
    """The memories in the answer's prompt. Two queries, none if they are attached already."""
    if answer.memories is None:
        attach_memories([answer])
    return answer.memories or []


def attach_memories(messages: Sequence[Message]) -> None:
    """Set ``memories`` of all messages, without those edited or deleted since.

    Two queries at most, none without any memories.
    """
    answers = [message for message in messages if message.memories is None]
    refs = [ref for answer in answers for entry in _entries(answer) for ref in _refs(entry)]
    recalled = messages_by_ref(answers[0].user_id, refs) if refs else {}
    for answer in answers:
        answer.memories = _memories(answer, recalled)


def _memories(answer: Message, messages: dict[int, Message]) -> list[Memory]:
    answered_at = answer.edited_at or answer.created_at

    def unchanged(ref: int) -> Message | None:
        message = messages.get(ref)
        if message and was_edited_since(message.edited_at, answered_at):
            return None
        return message

    memories: dict[int, Memory] = {}
    for entry in _entries(answer):
        ref, *companions = _refs(entry)
        companion = next((unchanged(other) for other in companions), None)
        if message := unchanged(ref):
            memories[ref] = Memory(message, entry["score"], companion)
    return list(memories.values())


def _entries(answer: Message) -> list[dict[str, Any]]:
    """The answer's stored memories; other entries hold its history."""
    return [entry for entry in answer.context or [] if "kind" in entry]


def _refs(entry: dict[str, Any]) -> list[int]:
    """Packed refs of the stored memory and of its companion."""
    table = KINDS[entry["kind"]].memory_table
    return [table.pack_ref(pk) for pk in (entry["id"], *entry.get("with", []))]


def messages_by_ref(user_id: int, refs: list[int]) -> dict[int, Message]:
    """The user's messages of these packed refs, with conversations. One query for each kind."""
    messages: dict[int, Message] = {}
    for kind_bit, model in MODELS.items():
        ids = [pk for bit, pk in map(unpack_ref, refs) if bit == kind_bit]
        if ids:
            rows = model._default_manager.of(user_id).finished().select_related("conversation")
            for row in rows.filter(pk__in=ids):
                messages[model.memory_table.pack_ref(row.pk)] = row
    return messages
