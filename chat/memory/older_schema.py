"""Fetches memories on schemas before 0010_recall_messages: retrieval/recall/older_schema.py."""

from chat.memory.recalled import messages_by_ref, title_of
from chat.models import Message, Role
from retrieval.forgetting import tainted_on_older_schema
from retrieval.recall.messages import Companion, Question, Recalled
from retrieval.recall.ranking import Ranking


def fetch(question: Question, ranking: Ranking, *, limit: int, companions: bool) -> list[Recalled]:
    """The first ``limit`` ranked messages that exist and are not tainted. Three queries a batch."""
    recalled: list[Recalled] = []
    waiting = ranking
    while len(waiting) and len(recalled) < limit:
        missing = limit - len(recalled)
        recalled += _fetch(question.scope.user_id, waiting[:missing], companions=companions)
        waiting = waiting[missing:]
    return recalled


def _fetch(user_id: int, ranking: Ranking, *, companions: bool) -> list[Recalled]:
    refs = ranking.refs.tolist()
    others = ranking.companions.tolist() if companions else [0] * len(refs)
    messages = messages_by_ref(user_id, refs + [other for other in others if other])
    answers = [ref for ref, message in messages.items() if message.role == Role.ASSISTANT]
    for ref in tainted_on_older_schema(user_id, answers):
        del messages[ref]
    scores = ranking.scores.tolist()
    return [
        _recalled(messages[ref], score, messages.get(other))
        for ref, score, other in zip(refs, scores, others, strict=True)
        if ref in messages
    ]


def _recalled(message: Message, score: float, other: Message | None) -> Recalled:
    return Recalled(
        *(message.memory_table.pack_ref(message.pk), score, None, message.conversation_id),
        *(title_of(message.conversation), message.role, message.content),
        *(message.created_at, message.edited_at, _companion(other) if other else None),
    )


def _companion(message: Message) -> Companion:
    ref = message.memory_table.pack_ref(message.pk)
    return Companion(ref, message.role, message.content, message.created_at, message.edited_at)
