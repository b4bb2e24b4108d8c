"""A user's messages are recalled, for an answer or for a search: the same way. retrieval does the finding."""

import logging
import re
import time
from collections.abc import Iterable
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.db import Error

from chat.db import release_connection, with_connection
from chat.memory.embed import embed_in_background, memory_executor
from chat.memory.memory_settings import MemorySettings, memory_settings_of
from chat.memory.recalled import MODELS, Memory, messages_of
from chat.models import Message, Role
from retrieval import current_model, storage
from retrieval.db import NoMemory, vector_type
from retrieval.db_errors import error_name
from retrieval.embeddings import embedding_service
from retrieval.embeddings.errors import EmbeddingError
from retrieval.forgetting import tainted
from retrieval.message_tables import unpack_ref
from retrieval.recall import min_similarity
from retrieval.recall.candidates import Scope, recall
from retrieval.recall.question import extract_question
from retrieval.recall.ranking import Ranked
from retrieval.vectors import Vector

logger = logging.getLogger(__name__)
OFF, LEXICAL, HYBRID = "off", "lexical", "hybrid"
MIN_RECALL_S = 1.0  # for words, where waiting for the embedding has used up RAG_TIMEOUT
SPARE = 25  # ranked messages that are looked at beyond those wanted: some turn out to be forgotten
ALIKE = 10  # memories that are looked at beyond those wanted: some say the same
SAME = 0.9  # the share of words, of all in two texts, that makes them one to a reader


@dataclass(frozen=True)
class SearchResult:
    """What a recall found, best first, and how it looked: ``off``, ``lexical`` or ``hybrid``."""

    mode: str
    memories: list[Memory] = field(default_factory=list)


def can_recall() -> bool:
    """Whether the settings and the schema have memory at all. At most one query."""
    if not settings.RAG_ENABLED or (
        settings.EMBEDDINGS == "openai" and not settings.OPENAI_API_KEY
    ):
        return False
    try:
        vector_type()
    except NoMemory:
        return False
    return True


def recall_for_answer(question: Message, *, sent: Iterable[Message]) -> list[Memory]:
    """What the answer to the question is given, best first; at most RAG_CONTEXT_LIMIT. Never fails, never waits long.

    One call for the question's embedding, which is stored while recall looks; past RAG_TIMEOUT seconds words decide.
    ``sent`` are the messages that the prompt holds anyway.
    """
    until = time.monotonic() + settings.RAG_TIMEOUT_S
    try:
        switches = memory_settings_of(question.user_id)
        if not switches.allow(question):
            return []
        recalls = can_recall()
        release_connection()
        work = embed_in_background(question, allowed=True)
        vector = work.vector_within(until - time.monotonic())
        excluded = [one.memory_table.pack_ref(one.pk) for one in (question, *sent)]
        scope = Scope(question.user_id, excluded=excluded, hidden=switches.hidden)
        found = _find_until(until, question.content, scope, vector) if recalls else []
        wait([work.stored], timeout=max(until - time.monotonic(), 0))
        return found
    except Error as error:
        logger.error("Error retrieving relevant context: %s", error_name(error))
        return []


def _find_until(until: float, text: str, scope: Scope, vector: Vector | None) -> list[Memory]:
    """The memories for an answer, found by another thread; [] past ``until`` of the monotonic clock."""
    limit = settings.RAG_CONTEXT_LIMIT
    looking = memory_executor().submit(
        with_connection,
        find_memories,
        text,
        scope,
        vector,
        limit=limit + ALIKE if limit else 0,
        companions=True,
    )
    try:
        found = looking.result(max(until - time.monotonic(), MIN_RECALL_S))
        return deduplicate(found.memories, text, limit=limit)
    except TimeoutError:
        logger.error(
            "Error retrieving relevant context: not found within RAG_TIMEOUT, %g s",
            settings.RAG_TIMEOUT_S,
        )
        return []


def search(user_id: int, text: str, scope: Scope, *, limit: int) -> SearchResult:
    """The recall that answers use, for a text that is no message: at most ``limit`` memories, best first."""
    if not can_recall():
        return SearchResult(OFF)
    switches = memory_settings_of(user_id)
    if not switches.enabled:
        return SearchResult(OFF)
    release_connection()
    return find_memories(
        text, replace(scope, hidden=switches.hidden), _embedding_of(text), limit=limit
    )


def memory_state(user_id: int) -> dict[str, Any]:
    """How much of the user's messages is in memory, and how it is recalled: MemoryState of docs/api.md."""
    switches = memory_settings_of(user_id)
    messages = sum(_shown(model, user_id, switches).count() for model in MODELS.values())
    embedded = failed = 0
    by_meaning = False
    with suppress(NoMemory):
        embedded, failed = storage.count(user_id, switches.hidden)
        by_meaning = (
            embedded > 0 and current_model.current_model() == embedding_service.model_name()
        )
    mode = HYBRID if by_meaning and not embedding_service.is_paused() else LEXICAL
    if not (switches.enabled and can_recall()):
        mode = OFF
    pending = max(messages - embedded - failed, 0) if switches.enabled else 0
    return {
        "enabled": switches.enabled,
        "messages": messages,
        "embedded": embedded,
        "pending": pending,
        "failed": failed,
        "mode": mode,
    }


def _shown(model: type[Message], user_id: int, switches: MemorySettings) -> Any:
    """The user's messages that count for memory."""
    hidden = [
        pk
        for number, pk in map(unpack_ref, switches.hidden)
        if number == model.memory_table.kind_bit
    ]
    return model._default_manager.of(user_id).said().exclude(conversation_id__in=hidden)


def find_memories(
    text: str, scope: Scope, embedding: Vector | None, *, limit: int, companions: bool = False
) -> SearchResult:
    """Recall within the scope, less what is forgotten. Four statements, and more where much is.

    ``companions``: with the other half of each message's turn.
    """
    model = embedding_service.model_name() or ""
    try:
        ranked = recall(text, scope, embedding=embedding, model=model)
        least = min_similarity.min_similarity(model)
        near = [
            one for one in ranked if one.words or one.similarity is None or one.similarity >= least
        ]
        memories = _fetch(scope.user_id, near[: limit + SPARE], limit, companions=companions)
        by_meaning = any(one.similarity is not None for one in ranked)
        if (
            embedding is not None and not by_meaning
        ):  # there may be vectors where the filters let nothing pass
            by_meaning = storage.has_vectors(scope.user_id, model=model)
    except NoMemory:
        return SearchResult(OFF)
    return SearchResult(HYBRID if by_meaning else LEXICAL, memories)


def _embedding_of(text: str) -> Vector | None:
    """What a search's text asks as a vector, by one call within RAG_TIMEOUT; None where there is none."""
    model = embedding_service.model_name()
    if model is None:
        return None
    try:
        current_model.check_model(model)
        release_connection()
        (vector,) = embedding_service.submit([extract_question(text)]).result(
            timeout=settings.RAG_TIMEOUT_S
        )
    except (EmbeddingError, NoMemory):
        return None
    except TimeoutError:
        embedding_service.record_cut_off()
        return None
    return vector


def _fetch(user_id: int, ranked: list[Ranked], limit: int, *, companions: bool) -> list[Memory]:
    """The first ``limit`` messages that are there and not forgotten, in the ranking's order."""
    memories: list[Memory] = []
    while ranked and len(memories) < limit:
        some, ranked = ranked[: limit - len(memories)], ranked[limit - len(memories) :]
        wanted = [one.reference for one in some]
        wanted += [one.companion for one in some if companions and one.companion]
        found = messages_of(user_id, wanted)
        for forgot in tainted(
            user_id, [pk for pk, message in found.items() if message.role == Role.ASSISTANT]
        ):
            del found[forgot]
        memories += [
            Memory(
                found[one.reference],
                one.score,
                found.get(one.companion) if companions and one.companion else None,
            )
            for one in some
            if one.reference in found
        ]
    return memories


def deduplicate(memories: Iterable[Memory], asked: str, *, limit: int) -> list[Memory]:
    """The first ``limit`` that say something new: of near-identical texts the first, none that repeats the question.

    Asked again, a question finds itself and what was answered to it before what it asks for: the answer goes last. No
    companion is one of the memories.
    """
    kept: list[tuple[Memory, set[str]]] = []
    question = _words(asked)
    for memory in memories:
        words = _words(memory.message.content)
        if not any(_alike(words, other) for other in (question, *(told for _, told in kept))):
            kept.append((memory, words))
    chosen = sorted((one for one, _ in kept), key=lambda one: _answers(one, question))[:limit]
    told = [memory.message for memory in chosen]
    return [replace(one, companion=None) if one.companion in told else one for one in chosen]


def _answers(memory: Memory, question: set[str]) -> bool:
    return memory.companion is not None and _alike(_words(memory.companion.content), question)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def _alike(one: set[str], other: set[str]) -> bool:
    return len(one & other) >= SAME * len(one | other)
