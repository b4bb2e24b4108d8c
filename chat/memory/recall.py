"""Recalls a user's messages, for an answer or for a search, in the same way for both.

retrieval ranks the messages; this module adds the user's settings, deadlines, and what must not
be shown: deleted and tainted messages, and duplicates.
"""

import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial

from django.conf import settings

from chat.memory import older_schema
from chat.memory.deduplicate import deduplicate
from chat.memory.memory_settings import memory_settings_of
from chat.memory.recalled import Memory, as_memory
from chat.token_limits import is_over_limit
from retrieval import current_model, steps, storage
from retrieval.db import NoMemory, has_recall_functions, vector_type
from retrieval.embeddings import embedding_service
from retrieval.embeddings.errors import EmbeddingError
from retrieval.recall import messages, min_similarity
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import Question, Recalled, rank_messages
from retrieval.recall.question import extract_question
from retrieval.replica import reading
from retrieval.telemetry import metrics
from retrieval.vectors import Vector

logger = logging.getLogger(__name__)
SPARE_MESSAGES = 10  # recalled for an answer beyond the limit, as some are duplicates
MODES = OFF, LEXICAL, HYBRID = ("off", "lexical", "hybrid")


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
    steps.release_connection()
    scope = replace(scope, hidden=memory_settings.hidden)
    return find_memories(text, scope, _embed_query(text, scope.user_id), limit=limit)


def find_memories(
    text: str,
    scope: Scope,
    embedding: Vector | None,
    *,
    limit: int,
    for_answer: bool = False,
    read_only: bool = False,
) -> SearchResult:
    """Recall within the scope, without tainted messages. Two queries, more if many are tainted.

    On the replica if there is one that has the user's latest write.

    ``for_answer``: with the other message of each one's turn, and without repetitions.
    ``read_only``: nothing is found while an edit or a deletion of the user's is not propagated.
    """
    question = Question(text, scope, embedding, embedding_service.model_name() or "", read_only)
    find = partial(_find, question, limit=limit, for_answer=for_answer)
    began = time.perf_counter()
    try:
        recalled, by_meaning = reading.read(scope.user_id, find)
    except NoMemory:
        return SearchResult(OFF)
    if for_answer:
        recalled = deduplicate(recalled, text, limit=limit)
    memories = [as_memory(message, user_id=scope.user_id) for message in recalled]
    mode = HYBRID if by_meaning else LEXICAL
    metrics.recalled_in(time.perf_counter() - began, mode=mode)
    return SearchResult(mode, memories)


def _find(question: Question, *, limit: int, for_answer: bool) -> tuple[list[Recalled], bool]:
    """The messages, and whether meaning was compared. Raises NoMemory."""
    ranking = rank_messages(question)
    related = ranking.related(min_similarity.min_similarity(question.model))
    fetch = messages.fetch if has_recall_functions() else older_schema.fetch
    spare = SPARE_MESSAGES if for_answer else 0
    recalled = fetch(question, related, limit=limit + spare, companions=for_answer)
    by_meaning = ranking.by_meaning
    if question.embedding is not None and not by_meaning:
        # The scope's filters may have excluded every message that has a vector.
        by_meaning = storage.has_vectors(question.scope.user_id, model=question.model)
    return recalled, by_meaning


def _embed_query(text: str, user_id: int) -> Vector | None:
    """The vector of a search's question: one call within RAG_TIMEOUT, None if it fails.

    None too for a user at a daily limit of tokens.
    """
    model = embedding_service.model_name()
    if model is None or is_over_limit(user_id):
        return None
    try:
        current_model.check_model(model)
        steps.release_connection()
        vectors = embedding_service.submit([extract_question(text)], users=[user_id], model=model)
        with steps.waiting():
            return vectors.result(timeout=settings.RAG_TIMEOUT_S)[0]
    except (EmbeddingError, NoMemory):
        return None
    except TimeoutError:
        embedding_service.record_cut_off()
        return None
