"""What an answer is given: messages recalled, kept with it as ids, looked up again when it is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chat.models import ChatMessage, Conversation, Message, StandaloneChatMessage
from retrieval.forgetting import was_edited_since
from retrieval.message_tables import unpack_ref

MODELS: dict[int, type[Message]] = {
    model.memory_table.kind_bit: model for model in (StandaloneChatMessage, ChatMessage)
}
NUMBERS = {"chat": 0, "passage": 1}


@dataclass(frozen=True)
class Memory:
    """A message recalled, its score, and the other half of its turn where that is told along."""

    message: Message
    score: float
    companion: Message | None = None

    @property
    def reference(self) -> int:
        """The number that names it among the messages of both kinds."""
        return self.message.memory_table.pack_ref(self.message.pk)

    def as_json(self) -> dict[str, Any]:
        """As the API shows it: a Memory of docs/api.md."""
        conversation: Conversation = self.message.conversation
        source = {"kind": conversation.kind, "id": conversation.pk, "title": str(conversation)}
        return {
            "message_id": self.message.pk,
            "source": source,
            "role": self.message.role,
            "content": self.message.content,
            "created_at": self.message.created_at.isoformat().replace("+00:00", "Z"),
            "score": round(self.score, 4),
        } | self._with()

    def as_kept(self) -> dict[str, Any]:
        """As the answer keeps it: ids, not copies, so that what is forgotten is gone from here too."""
        kind = self.message.conversation.kind
        return {"kind": kind, "id": self.message.pk, "score": round(self.score, 4)} | self._with()

    def _with(self) -> dict[str, list[int]]:
        return {"with": [self.companion.pk]} if self.companion else {}


def memories_of(message: Message) -> list[Memory]:
    """What the answer was given: as somebody has attached it, else by two queries."""
    if message.memories is None:
        attach_memories([message])
    return message.memories or []


def attach_memories(messages: Sequence[Message]) -> None:
    """Look up, for all of them at once, what they were given. Two queries at most, none where nothing was."""
    found = contexts_of([one for one in messages if one.memories is None])
    for message in messages:
        message.memories = found.get(message.pk, message.memories)


def contexts_of(answers: Sequence[Message]) -> dict[int, list[Memory]]:
    """What each answer was given (answer's id → memories), less what was forgotten since. Two queries at most."""
    kept = {
        one.pk: {
            _reference(entry): entry for entry in one.context or [] if "kind" in entry
        }  # else the history
        for one in answers
    }
    wanted = [
        reference
        for entries in kept.values()
        for entry in entries.values()
        for reference in _named(entry)
    ]
    if not wanted:
        return {pk: [] for pk in kept}
    found = messages_of(answers[0].user_id, wanted)
    given_at = {one.pk: one.edited_at or one.created_at for one in answers}

    def as_given(pk: int, reference: int) -> Message | None:
        message = found.get(reference)
        if message is None or was_edited_since(message.edited_at, given_at[pk]):
            return None
        return message

    return {
        pk: [
            Memory(
                message,
                entry["score"],
                next((as_given(pk, other) for other in _named(entry)[1:]), None),
            )
            for reference, entry in entries.items()
            if (message := as_given(pk, reference))
        ]
        for pk, entries in kept.items()
    }


def _reference(entry: dict[str, Any]) -> int:
    return _named(entry)[0]


def _named(entry: dict[str, Any]) -> list[int]:
    """The references of the message that an answer keeps, and of its companion."""
    source = MODELS[NUMBERS[entry["kind"]]].memory_table
    return [source.pack_ref(pk) for pk in (entry["id"], *entry.get("with", []))]


def messages_of(user_id: int, references: list[int]) -> dict[int, Message]:
    """The user's messages with these references, and their conversations; a query for each kind among them."""
    found: dict[int, Message] = {}
    for number, model in MODELS.items():
        ids = [unpack_ref(one)[1] for one in references if unpack_ref(one)[0] == number]
        if ids:
            rows = (
                model._default_manager.of(user_id)
                .said()
                .select_related("conversation")
                .filter(pk__in=ids)
            )
            found |= {model.memory_table.pack_ref(row.pk): row for row in rows}
    return found
