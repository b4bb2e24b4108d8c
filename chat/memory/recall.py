"""Recalls a user's messages, for an answer or for a search, in the same way for both.

retrieval ranks the messages; this module adds the user's settings, deadlines, and what must not
be shown: deleted and tainted messages, and duplicates.
"""

import logging
from dataclasses import dataclass, field, replace

from django.conf import settings

from chat.db import release_connection
from chat.memory.memory_settings import memory_settings_of
from chat.memory.recalled import Memory, messages_by_ref
from chat.models import Role
from retrieval import current_model, steps, storage
from retrieval.db import NoMemory, vector_type
from retrieval.embeddings import embedding_service
from retrieval.embeddings.errors import EmbeddingError
from retrieval.forgetting import tainted
from retrieval.recall import min_similarity
from retrieval.recall.candidates import Scope, recall
from retrieval.recall.question import extract_question
from retrieval.recall.ranking import Ranked
from retrieval.vectors import Vector

logger = logging.getLogger(__name__)
MODES = OFF, LEXICAL, HYBRID = ("off", "lexical", "hybrid")
SPARE_RANKED = 25  # ranked messages fetched beyond the limit, as some are deleted or tainted


@dataclass(frozen=True)
class SearchResult:
    """Memories, best first, and the mode: ``off``, ``lexical`` or ``hybrid``."""

    mode: str
    memories: list[Memory] = field(default_factory=list)


def can_recall() -> bool:
    """Whether the settings and the schema have memory at all. At most one query."""
    if not settings.RAG_ENABLED:
        return False
    if settings.EMBEDDINGS == "openai" and not settings.OPENAI_API_KEY:
        return False
    try:
        vector_type()
    except NoMemory:
        return False
    return True


def search(text: str, scope: Scope, *, limit: int) -> SearchResult:
    """The recall that answers use, for a search: at most ``limit`` memories, best first."""
    if not can_recall():
        return SearchResult(OFF)
    memory_settings = memory_settings_of(scope.user_id)
    if not memory_settings.enabled:
        return SearchResult(OFF)
    release_connection()
    scope = replace(scope, hidden=memory_settings.hidden)
    return find_memories(text, scope, _embed_query(text, scope.user_id), limit=limit)


def find_memories(
    text: str, scope: Scope, embedding: Vector | None, *, limit: int, companions: bool = False
) -> SearchResult:
    """Recall within the scope, without tainted messages. Four queries, more if many are tainted.

    ``companions``: add the other message of each one's turn.
    """
    model = embedding_service.model_name() or ""
    try:
        ranked = recall(text, scope, embedding=embedding, model=model)
        threshold = min_similarity.min_similarity(model)
        relevant = [
            row
            for row in ranked
            if row.shares_words or row.similarity is None or row.similarity >= threshold
        ]
        rows = relevant[: limit + SPARE_RANKED]
        memories = _fetch(scope.user_id, rows, limit, companions=companions)
        by_meaning = any(row.similarity is not None for row in ranked)
        if embedding is not None and not by_meaning:
            # The scope's filters may have excluded every message that has a vector.
            by_meaning = storage.has_vectors(scope.user_id, model=model)
    except NoMemory:
        return SearchResult(OFF)
    return SearchResult(HYBRID if by_meaning else LEXICAL, memories)


def _embed_query(text: str, user_id: int) -> Vector | None:
    """The vector of a search's question: one call within RAG_TIMEOUT, None if it fails."""
    model = embedding_service.model_name()
    if model is None:
        return None
    try:
        current_model.check_model(model)
        release_connection()
        vectors = embedding_service.submit([extract_question(text)], users=[user_id], model=model)
        with steps.waiting():
            return vectors.result(timeout=settings.RAG_TIMEOUT_S)[0]
    except (EmbeddingError, NoMemory):
        return None
    except TimeoutError:
        embedding_service.record_cut_off()
        return None


def _fetch(user_id: int, ranked: list[Ranked], limit: int, *, companions: bool) -> list[Memory]:
    """The first ``limit`` ranked messages that exist and are not tainted."""
    memories: list[Memory] = []
    while ranked and len(memories) < limit:
        missing = limit - len(memories)
        batch, ranked = ranked[:missing], ranked[missing:]
        refs = [row.ref for row in batch]
        refs += [row.companion for row in batch if companions and row.companion]
        messages = messages_by_ref(user_id, refs)
        answers = [ref for ref, message in messages.items() if message.role == Role.ASSISTANT]
        for ref in tainted(user_id, answers):
            del messages[ref]
        for row in batch:
            if row.ref in messages:
                companion = messages.get(row.companion or 0) if companions else None
                memories.append(Memory(messages[row.ref], row.score, companion))
    return memories
