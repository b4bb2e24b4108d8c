"""The prompt of a client that sends its messages itself: the OpenAI API. docs/openai-api.md

One ``system`` message: the client's, then Verse's instructions. Then the client's own messages as
it sent them, whole turns of them from the newest as far as they fit; memories stand before the text
of the last message of the user's.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chat.answers.client_messages import (
    MESSAGE_OVERHEAD_TOKENS,
    Part,
    cost_of,
    cut_message,
    text_of,
    with_text_before,
)
from chat.answers.fences import SEAM_TOKENS, fence_memories
from chat.answers.fit_client_messages import fit_tail, fit_turns, whole_turns
from chat.answers.history import History
from chat.answers.prompt import (
    LAST_SHORTENING,
    MEMORY_DIVISOR,
    MESSAGE_DIVISOR,
    PASSAGE_DIVISOR,
    instructions,
)
from chat.memory.recalled import Memory
from chat.models import Message
from retrieval.token_count import count_tokens, cut_middle

HISTORY_SHARE = 0.75  # of what is left; so the length of the last message seldom moves its start


@dataclass(frozen=True)
class ClientRequest:
    """What a client asks of the model.

    ``messages``: all but the system's. ``sent_ids``: those of them that the conversation holds,
    oldest first. ``adds_history``: the stored history goes before the messages; it ends before
    ``replaced``, a stored question that the client asks again, if there is one.
    """

    messages: list[Part]
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    has_memory: bool = True
    adds_history: bool = False
    replaced: Message | None = None
    sent_ids: Sequence[int] = ()
    sent_refs: list[int] = field(default_factory=list)  # what must not be recalled
    was_sent: Callable[[str], bool] = lambda _: False  # whether a text is among the messages

    @property
    def last_user(self) -> int | None:
        """The place of the last message of the user's."""
        places = range(len(self.messages) - 1, -1, -1)
        return next((n for n in places if self.messages[n]["role"] == "user"), None)


@dataclass(frozen=True)
class ClientPrompt:
    """What the model is sent. ``turns``: the history that fitted, each a list of messages.

    ``tail``: from the last message of the user's on. ``shortenings``: how often the model's server
    has refused the prompt as too long.
    """

    system: str
    turns: list[list[Part]]
    tail: list[Part]
    request: ClientRequest
    truncated: bool = False  # the user's message was cut
    history: list[Message] = field(default_factory=list)  # stored messages among the turns
    memories: list[Memory] = field(default_factory=list)
    fenced_memories: str = ""
    memory_tokens: int = 0  # of these
    shortenings: int = 0

    @property
    def parts(self) -> list[Part]:
        """The messages of the request."""
        tail = self.tail
        if self.fenced_memories:
            tail = [with_text_before(tail[0], self.fenced_memories), *tail[1:]]
        history = [message for turn in self.turns for message in turn]
        return [{"role": "system", "content": self.system}, *history, *tail]

    @property
    def tokens(self) -> int:
        return sum(map(cost_of, self.parts))

    def shorter(self) -> "ClientPrompt | None":
        """The prompt after a refusal as too long; None if there is no shorter one.

        First without memories and with half of the history, then without history, then with the
        tail cut to half.
        """
        tokens = self.tokens
        for shortenings in range(self.shortenings + 1, LAST_SHORTENING + 1):
            shorter = self._shortened(shortenings)
            if shorter.tokens < tokens:
                return replace(shorter, shortenings=shortenings)
        return None

    def _shortened(self, shortenings: int) -> "ClientPrompt":
        turns = self.turns[-(len(self.turns) // 2) :] if len(self.turns) > 1 else []
        prompt = replace(self, turns=turns, memories=[], fenced_memories="")
        if shortenings > 1:
            prompt = replace(prompt, turns=[], history=[])
        if shortenings > 2:
            tail = [
                cut_message(message, max_tokens=count_tokens(text_of(message)) // 2)
                for message in self.tail
            ]
            prompt = replace(prompt, tail=tail, truncated=True)
        return prompt

    def stored_context(self) -> list[dict[str, Any]]:
        """Message.context: the ids of what the prompt holds, as far as they are stored."""
        stored = [message.pk for message in self.history] or list(self.request.sent_ids)
        ids = stored[-2 * len(self.turns) :] if self.turns else []
        entries = [memory.as_stored() for memory in self.memories]
        return [*entries, {"history": ids}] if ids else entries


@dataclass(frozen=True)
class ClientDraft:
    """A prompt without its memories, and the tokens that are left for them."""

    prompt: ClientPrompt
    memory_tokens: int

    def with_memories(self, memories: Sequence[Memory]) -> ClientPrompt:
        """The prompt with the memories that fit; none that the client's messages hold."""
        prompt, was_sent = self.prompt, self.prompt.request.was_sent
        if not prompt.tail or not self.memory_tokens:
            return prompt
        unsent = [
            replace(memory, companion=None)
            if memory.companion and was_sent(memory.companion.content)
            else memory
            for memory in memories
            if not was_sent(memory.message.content)
        ]
        question = text_of(prompt.tail[0])
        fenced = fence_memories(unsent, question, budget_tokens=self.memory_tokens)
        return replace(
            prompt,
            memories=list(fenced.memories),
            fenced_memories=fenced.text,
            memory_tokens=fenced.tokens,
        )


def draft_client_prompt(
    request: ClientRequest, history: History, budget_tokens: int, memory_tokens: int
) -> ClientDraft:
    """Fit into ``budget_tokens``: the system's texts, the last messages, the history.

    ``memory_tokens`` are left for memories, at most a third of the budget.
    """
    system = _system(request.system, max_tokens=budget_tokens // PASSAGE_DIVISOR)
    tools = request.parameters.get("tools")
    left = budget_tokens - count_tokens(system) - MESSAGE_OVERHEAD_TOKENS
    left -= min(count_tokens(json.dumps(tools)), budget_tokens // 4) if tools else 0
    place = request.last_user
    start = len(request.messages) if place is None else place
    usual_tokens = left * HISTORY_SHARE
    tail, truncated = fit_tail(request.messages[start:], budget_tokens // MESSAGE_DIVISOR, left)
    left -= sum(map(cost_of, tail)) + SEAM_TOKENS
    memory_tokens = max(min(memory_tokens, budget_tokens // MEMORY_DIVISOR, left), 0)
    turns = whole_turns(request.messages[:start])
    past = history.from_last_start()
    if past:
        turns = [[_as_part(message) for message in turn.messages] for turn in past]
    fitting = fit_turns(turns, int(min(left, usual_tokens)) - memory_tokens)
    fitting_past = past[len(past) - len(fitting) :] if past else []
    messages = [message for turn in fitting_past for message in turn.messages]
    prompt = ClientPrompt(system, fitting, tail, request, truncated, messages)
    return ClientDraft(prompt, memory_tokens)


def _system(texts: str, *, max_tokens: int) -> str:
    """The client's own instructions, then Verse's."""
    cut = cut_middle(texts, max_tokens=max_tokens)
    return "\n\n".join(filter(None, [cut, instructions()]))


def _as_part(message: Message) -> Part:
    return {"role": str(message.role), "content": message.content}
