"""Prepares a turn for the model: its history and its memories, fitted into one prompt."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from django.conf import settings

from chat.answers import turns
from chat.answers.llm import check_configured
from chat.answers.prompt import Prompt, build_prompt
from chat.answers.turns import Turn
from chat.memory import answer_recall
from chat.memory.answer_recall import Recalled, RecallRequest
from chat.memory.recalled import Memory
from chat.models import Message
from retrieval import connection_share, steps

# A subclass's ChatService._get_relevant_context: returns the memories for a question.
Recall = Callable[[Message, list[Message]], list[Memory]]


@dataclass(frozen=True)
class Reading:
    """What a turn reads before anything is asked: history, newest first, and memory's part."""

    history: list[Message]
    request: RecallRequest


class Preparation:
    """Makes the prompt of a turn, in two steps on the database with an embedding call between.

    ``recall`` replaces memory's own.
    """

    def __init__(self, turn: Turn, *, memory_limit: int, recall: Recall | None = None) -> None:
        self.turn = turn
        self._memory_limit = memory_limit
        self._recall = recall
        self._reading: Reading | None = None

    def read(self) -> None:
        """The first step, of up to five queries. ``prompt`` makes it if it was not made."""
        history = turns.history_before(self.turn)
        limit = 0 if self._recall else self._memory_limit
        request = answer_recall.read(self.turn.question, history=history, limit=limit)
        self._reading = Reading(history, request)

    async def prompt(self) -> Recalled[Prompt]:
        """Instructions, passage, memories, history, the user's message.

        Stores in the answer the ids of what its prompt holds. Raises LLMNotConfigured if no
        language model is set.
        """
        check_configured()
        if self._reading is None:
            await connection_share.run(self.turn.conversation.user_id, self.read)
        reading = cast("Reading", self._reading)
        build = partial(_build, self.turn, reading.history)
        recall = self._recall
        if recall is None:
            return await answer_recall.recall_then(reading.request, build)
        question = self.turn.question
        return Recalled(await steps.run(lambda: build(recall(question, reading.history))))


def _build(turn: Turn, history: list[Message], memories: list[Memory]) -> Prompt:
    prompt = build_prompt(
        turn.conversation,
        turn.question,
        history,
        memories,
        budget_tokens=settings.LLM_CONTEXT_TOKENS - settings.LLM_MAX_TOKENS,
        memory_tokens=settings.RAG_CONTEXT_TOKENS,
    )
    turns.save_context(turn.answer, prompt.stored_context())
    return prompt
