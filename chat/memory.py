"""A user's memory: messages are remembered (embedded), and recalled for a question. retrieval does the finding."""

import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.db import Error

from chat.connections import release, with_connection
from chat.forgetting import forgotten
from chat.models import ChatMessage, Conversation, Message, Role, StandaloneChatMessage
from chat.remembering import remember_later, workers
from chat.switches import Switches, switches_of
from retrieval import current_model, embeddings, similarity, storage
from retrieval.embeddings import EmbeddingError, Vector
from retrieval.question import gist
from retrieval.ranking import Ranked
from retrieval.recall import Scope, recall
from retrieval.sources import split
from retrieval.sql import NoMemory, vector_schema

logger = logging.getLogger(__name__)
MODELS: dict[int, type[Message]] = {
    model.memory_source.number: model for model in (StandaloneChatMessage, ChatMessage)
}
NUMBERS = {"chat": 0, "passage": 1}
OFF, LEXICAL, HYBRID = "off", "lexical", "hybrid"
LEAST_RECALL_S = 1.0  # for words, where waiting for the embedding has used up RAG_TIMEOUT
SPARE = 25  # ranked messages that are looked at beyond those wanted: some turn out to be forgotten


@dataclass(frozen=True)
class Memory:
    """A message recalled, and its score."""

    message: Message
    score: float

    @property
    def reference(self) -> int:
        """The number that names it among the messages of both kinds."""
        return self.message.memory_source.reference(self.message.pk)

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
        }

    def as_kept(self) -> dict[str, Any]:
        """As the answer keeps it: an id, not a copy, so that what is forgotten is gone from here too."""
        return {"kind": self.message.conversation.kind, "id": self.message.pk, "score": round(self.score, 4)}


@dataclass(frozen=True)
class Found:
    """What a recall found, best first, and how it looked: ``off``, ``lexical`` or ``hybrid``."""

    mode: str
    memories: list[Memory] = field(default_factory=list)


def can_recall() -> bool:
    """Whether the settings and the schema have memory at all. At most one query."""
    if not settings.RAG_ENABLED or (settings.EMBEDDINGS == "openai" and not settings.OPENAI_API_KEY):
        return False
    try:
        vector_schema()
    except NoMemory:
        return False
    return True


def context_for(question: Message, *, sent: Iterable[Message]) -> list[Memory]:
    """What the answer to the question is given, best first; at most RAG_CONTEXT_LIMIT. Never fails, never waits long.

    One call for the question's embedding, which is stored while recall looks; past RAG_TIMEOUT seconds words decide.
    ``sent`` are the messages that the prompt holds anyway.
    """
    until = time.monotonic() + settings.RAG_TIMEOUT_S
    try:
        switches = switches_of(question.user_id)
        if not switches.allow(question):
            return []
        recalls = can_recall()
        release()
        work = remember_later(question, allowed=True)
        vector = work.vector_within(until - time.monotonic())
        excluded = [one.memory_source.reference(one.pk) for one in (question, *sent)]
        scope = Scope(question.user_id, excluded=excluded, hidden=switches.hidden)
        found = _find_until(until, question.content, scope, vector) if recalls else []
        wait([work.stored], timeout=max(until - time.monotonic(), 0))
        return found
    except Error as error:
        logger.error("Error retrieving relevant context: %s", type(error.__cause__ or error).__name__)
        return []


def _find_until(until: float, text: str, scope: Scope, vector: Vector | None) -> list[Memory]:
    """The memories for an answer, found by another thread; [] past ``until`` of the monotonic clock."""
    limit = settings.RAG_CONTEXT_LIMIT
    looking = workers().submit(with_connection, find, text, scope, vector, limit=limit)
    try:
        return looking.result(max(until - time.monotonic(), LEAST_RECALL_S)).memories
    except TimeoutError:
        logger.error("Error retrieving relevant context: not found within RAG_TIMEOUT, %g s", settings.RAG_TIMEOUT_S)
        return []


def search(user_id: int, text: str, scope: Scope, *, limit: int) -> Found:
    """The recall that answers use, for a text that is no message: at most ``limit`` memories, best first."""
    if not can_recall():
        return Found(OFF)
    switches = switches_of(user_id)
    if not switches.enabled:
        return Found(OFF)
    release()
    return find(text, replace(scope, hidden=switches.hidden), _embedding_of(text), limit=limit)


def state_of(user_id: int) -> dict[str, Any]:
    """How much of the user's messages is in memory, and how it is recalled: MemoryState of docs/api.md."""
    switches = switches_of(user_id)
    messages = sum(_shown(model, user_id, switches).count() for model in MODELS.values())
    embedded = 0
    with suppress(NoMemory):
        embedded = storage.count(user_id, switches.hidden, model=embeddings.model_name() or "")
    mode = HYBRID if embedded and not embeddings.is_paused() else LEXICAL
    if not (switches.enabled and can_recall()):
        mode = OFF
    pending = max(messages - embedded, 0) if switches.enabled else 0
    return {
        "enabled": switches.enabled,
        "messages": messages,
        "embedded": embedded,
        "pending": pending,
        "failed": 0,
        "mode": mode,
    }


def _shown(model: type[Message], user_id: int, switches: Switches) -> Any:
    """The user's messages that count for memory."""
    hidden = [pk for number, pk in map(split, switches.hidden) if number == model.memory_source.number]
    return model._default_manager.of(user_id).said().exclude(conversation_id__in=hidden)


def find(text: str, scope: Scope, embedding: Vector | None, *, limit: int) -> Found:
    """Recall within the scope, less what is forgotten. Four statements, and more where much is."""
    model = embeddings.model_name() or ""
    try:
        ranked = recall(text, scope, embedding=embedding, model=model)
        least = similarity.least(model)
    except NoMemory:
        return Found(OFF)
    by_meaning = any(one.similarity is not None for one in ranked)
    near = [one for one in ranked if one.words or one.similarity is None or one.similarity >= least]
    return Found(HYBRID if by_meaning else LEXICAL, _fetch(scope.user_id, near[: limit + SPARE], limit))


def memories_of(message: Message) -> list[Memory]:
    """What the answer was given: as somebody has attached it, else by two queries."""
    if message.memories is None:
        attach([message])
    return message.memories or []


def attach(messages: Sequence[Message]) -> None:
    """Look up, for all of them at once, what they were given. Two queries at most, none where nothing was."""
    found = contexts_of([one for one in messages if one.memories is None])
    for message in messages:
        message.memories = found.get(message.pk, message.memories)


def contexts_of(answers: Sequence[Message]) -> dict[int, list[Memory]]:
    """What each answer was given (answer's id → memories), less what was forgotten since. Two queries at most."""
    kept = {one.pk: {_reference(entry): entry["score"] for entry in one.context or []} for one in answers}
    wanted = [reference for entries in kept.values() for reference in entries]
    if not wanted:
        return {pk: [] for pk in kept}
    given_at = {one.pk: one.edited_at or one.created_at for one in answers}
    found = messages_of(answers[0].user_id, wanted)
    return {
        pk: [
            Memory(found[reference], score)
            for reference, score in entries.items()
            if reference in found and (found[reference].edited_at or given_at[pk]) <= given_at[pk]
        ]
        for pk, entries in kept.items()
    }


def _reference(entry: dict[str, Any]) -> int:
    return MODELS[NUMBERS[entry["kind"]]].memory_source.reference(entry["id"])


def _embedding_of(text: str) -> Vector | None:
    """What a search's text asks as a vector, by one call within RAG_TIMEOUT; None where there is none."""
    model = embeddings.model_name()
    if model is None:
        return None
    try:
        current_model.check_model(model)
        release()
        (vector,) = embeddings.begin([gist(text)]).result(timeout=settings.RAG_TIMEOUT_S)
    except (EmbeddingError, NoMemory):
        return None
    except TimeoutError:
        embeddings.note_cut_off()
        return None
    return vector


def _fetch(user_id: int, ranked: list[Ranked], limit: int) -> list[Memory]:
    """The first ``limit`` messages that are there and not forgotten, in the ranking's order."""
    memories: list[Memory] = []
    while ranked and len(memories) < limit:
        some, ranked = ranked[: limit - len(memories)], ranked[limit - len(memories) :]
        found = messages_of(user_id, [one.reference for one in some])
        gone = forgotten([reference for reference, message in found.items() if message.role == Role.ASSISTANT])
        memories += [
            Memory(found[one.reference], one.score)
            for one in some
            if one.reference in found and one.reference not in gone
        ]
    return memories


def messages_of(user_id: int, references: list[int]) -> dict[int, Message]:
    """The user's messages with these references, and their conversations; a query for each kind among them."""
    found: dict[int, Message] = {}
    for number, model in MODELS.items():
        ids = [split(one)[1] for one in references if split(one)[0] == number]
        if ids:
            rows = model._default_manager.of(user_id).said().select_related("conversation").filter(pk__in=ids)
            found |= {model.memory_source.reference(row.pk): row for row in rows}
    return found
