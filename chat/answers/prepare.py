"""Prepares a turn for the model: its history and its memories, fitted into one prompt."""

from collections.abc import Callable
from itertools import islice

from django.conf import settings
from django.db.models import Q

from chat.answers import turns
from chat.answers.llm import check_configured
from chat.answers.prompt import Prompt, build_prompt
from chat.answers.turns import Turn
from chat.memory.recalled import Memory
from chat.models import Message, MessageQuerySet

# ChatService._get_relevant_context: embeds the question and returns the memories for it.
Recall = Callable[[Message, list[Message]], list[Memory]]


def prepare_prompt(turn: Turn, *, recall: Recall) -> Prompt:
    """The prompt of the turn: instructions, passage, memories, history, the user's message.

    Stores in the answer the ids of what its prompt holds. Raises LLMNotConfigured if no language
    model is set.
    """
    check_configured()
    history = history_before(turn)
    prompt = build_prompt(
        turn.conversation,
        turn.question,
        history,
        recall(turn.question, history),
        budget_tokens=settings.LLM_CONTEXT_TOKENS - settings.LLM_MAX_TOKENS,
        memory_tokens=settings.RAG_CONTEXT_TOKENS,
    )
    turns.save_context(turn.answer, prompt.stored_context())
    return prompt


def history_before(turn: Turn) -> list[Message]:
    """The latest CHAT_HISTORY_LIMIT messages before the question, newest first. One query."""
    asked_at = turn.question.created_at
    earlier = Q(created_at__lt=asked_at) | Q(created_at=asked_at, pk__lt=turn.question.pk)
    messages: MessageQuerySet = turn.conversation.messages.filter(earlier)
    return list(islice(messages.finished().in_order().reverse(), settings.CHAT_HISTORY_LIMIT))
