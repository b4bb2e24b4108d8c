"""Prepares a turn for the model: its history and its memories, fitted into one prompt."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from django.conf import settings

from chat.answers.client_prompt import ClientDraft, ClientPrompt, ClientRequest, draft_client_prompt
from chat.answers.history import History, read_history
from chat.answers.llm import check_configured
from chat.answers.prompt import MEMORY_DIVISOR, Draft, Prompt, draft_prompt
from chat.answers.save_answer import save_context
from chat.answers.turns import Turn
from chat.memory import answer_recall
from chat.memory.answer_recall import Prepared, RecallRequest, refs_of
from chat.memory.recall_attempt import Recollection
from chat.memory.recalled import Memory
from chat.models import Message
from retrieval import connection_share, steps
from retrieval.rollout.state import OFF
from retrieval.telemetry import spans
from retrieval.token_count import is_tokenizer_of

# A subclass's ChatService._get_relevant_context: returns the memories for a question.
Recall = Callable[[Message, list[Message]], list[Memory]]
AnyPrompt = Prompt | ClientPrompt


@dataclass(frozen=True)
class Reading:
    """What a turn reads before anything is asked. The draft is the prompt without memories.

    ``dark``: a recall whose memories the user is not given: retrieval/rollout/state.py.
    """

    draft: Draft | ClientDraft
    request: RecallRequest
    dark: RecallRequest | None = None


class Preparation:
    """Makes the prompt of a turn, in two steps on the database with an embedding call between.

    ``recall`` replaces memory's own. ``client``: what a client of the OpenAI API sends itself.
    """

    def __init__(
        self,
        turn: Turn,
        *,
        memory_limit: int,
        recall: Recall | None = None,
        client: ClientRequest | None = None,
    ) -> None:
        self.turn = turn
        self._client = client
        self._has_memory = client is None or client.has_memory
        self._memory_limit = memory_limit if self._has_memory else 0
        self._recall = recall if self._has_memory else None
        self._reading: Reading | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What the client asks of the model, in addition to the prompt."""
        return self._client.parameters if self._client else {}

    def read(self) -> None:
        """The first step, of up to six queries. ``prompt`` makes it if it was not made."""
        limit = 0 if self._recall else self._memory_limit
        request, dark = answer_recall.without_memory(self.turn.question), None
        if self._has_memory:
            request = answer_recall.read(self.turn.question, limit=limit)
        if not request.rollout.gives_memories(self.turn.conversation.user_id):
            dark = request if request.limit and request.rollout.name != OFF else None
            request, self._recall = replace(request, limit=0), None
        draft = self._draft(settings.RAG_CONTEXT_TOKENS if request.limit or self._recall else 0)
        refs = refs_of(draft.prompt.history) + (self._client.sent_refs if self._client else [])
        self._reading = Reading(draft, request.without(refs), dark and dark.without(refs))

    def _draft(self, memory_tokens: int) -> Draft | ClientDraft:
        client, history, turn = self._client, History(), self.turn
        if client and client.replaced:
            turn = replace(turn, question=client.replaced)
        if client is None or client.adds_history:
            history = read_history(turn, limit=settings.CHAT_HISTORY_LIMIT)
        if client:
            return draft_client_prompt(client, history, prompt_budget(), memory_tokens)
        return draft_prompt(
            self.turn.conversation,
            self.turn.question,
            history,
            budget_tokens=prompt_budget(),
            memory_tokens=memory_tokens,
        )

    async def prompt(self) -> Prepared[AnyPrompt]:
        """Instructions, passage, history, memories, the user's message.

        Stores in the answer the ids of what its prompt holds. Raises LLMNotConfigured if no
        language model is set.
        """
        check_configured()
        if self._reading is None:
            await connection_share.run(self.turn.conversation.user_id, self.read)
        reading = cast("Reading", self._reading)

        def build(recollection: Recollection) -> AnyPrompt:
            prompt = reading.draft.with_memories(recollection.memories)
            if self.turn.answer.pk:
                save_context(self.turn.answer, prompt.stored_context())
            recollection.count(added_tokens=prompt.memory_tokens)
            return prompt

        recall = self._recall
        if recall is None:
            recalled = await answer_recall.recall_then(reading.request, build)
            if reading.dark:
                answer_recall.recall_in_the_dark(reading.dark, recalled.vectors, self._count_dark)
            return recalled
        question, history = self.turn.question, reading.draft.prompt.history
        with spans.step("turn.recall"):
            return Prepared(await steps.run(lambda: build(Recollection(recall(question, history)))))

    def _count_dark(self, recollection: Recollection) -> None:
        """Count what the prompt would have been given."""
        draft = cast("Reading", self._reading).draft
        tokens = min(settings.RAG_CONTEXT_TOKENS, prompt_budget() // MEMORY_DIVISOR)
        prompt = replace(draft, memory_tokens=tokens).with_memories(recollection.memories)
        recollection.count(added_tokens=prompt.memory_tokens)


def prompt_budget() -> int:
    """Tokens of a prompt, by our tokenizer. A margin of a quarter for models with another one.

    The bundled model's window is twice as large as LLM_CONTEXT_TOKENS says.
    """
    budget = settings.LLM_CONTEXT_TOKENS - settings.LLM_MAX_TOKENS
    is_exact = settings.LLM == "local" or is_tokenizer_of(settings.LLM_MODEL)
    return int(budget if is_exact else budget * 4 // 5)
