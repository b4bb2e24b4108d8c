"""Fetches memories on schemas before 0010_recall_messages: retrieval/recall/older_schema.py."""

from chat.memory.recalled import Memory, messages_by_ref
from chat.models import Role
from retrieval.forgetting import tainted_on_older_schema
from retrieval.recall.messages import Question
from retrieval.recall.ranking import Ranking


def fetch_memories(
    question: Question, ranking: Ranking, *, limit: int, companions: bool
) -> list[Memory]:
    """The first ``limit`` ranked messages that exist and are not tainted. Three queries a batch."""
    memories: list[Memory] = []
    waiting = ranking
    while len(waiting) and len(memories) < limit:
        missing = limit - len(memories)
        memories += _fetch(question.scope.user_id, waiting[:missing], companions=companions)
        waiting = waiting[missing:]
    return memories


def _fetch(user_id: int, ranking: Ranking, *, companions: bool) -> list[Memory]:
    refs = ranking.refs.tolist()
    others = ranking.companions.tolist() if companions else [0] * len(refs)
    messages = messages_by_ref(user_id, refs + [other for other in others if other])
    answers = [ref for ref, message in messages.items() if message.role == Role.ASSISTANT]
    for ref in tainted_on_older_schema(user_id, answers):
        del messages[ref]
    scores = ranking.scores.tolist()
    return [
        Memory(messages[ref], score, messages.get(other))
        for ref, score, other in zip(refs, scores, others, strict=True)
        if ref in messages
    ]
