"""How many tokens an answer has used: as its model's server counts them, else as we do."""

import json
import logging
from typing import Any

from django.db import Error

from chat.answers.live_answer import LiveAnswer
from retrieval import token_usage
from retrieval.db_errors import error_name
from retrieval.token_count import count_tokens
from retrieval.token_usage import Tokens

logger = logging.getLogger(__name__)
MAX_TOKENS = 1_000_000_000  # a larger count is a mistake of the server


def answer_tokens(live: LiveAnswer) -> Tokens:
    """Of the prompt and the answer, so far. An answer that was stopped has no count of the server.

    Zero if the server has refused every prompt. Reads the whole text if we count: not on the event
    loop.
    """
    usage = live.completion.usage or {}
    prompt, completion = (_number(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    if prompt is None or completion is None:
        return Tokens(live.count_prompt(), _count_answer(live))
    details = usage.get("prompt_tokens_details")
    cached = _number(details if isinstance(details, dict) else {}, "cached_tokens") or 0
    return Tokens(prompt, completion, min(cached, prompt))


def record_unstored(live: LiveAnswer) -> None:
    """A step: count the tokens of a turn that is not stored. Never fails."""
    try:
        tokens = answer_tokens(live) + Tokens(embedding_tokens=live.question_tokens)
        token_usage.add(live.turn.conversation.user_id, tokens)
    except Error as error:
        logger.error("Tokens could not be counted: %s", error_name(error))


def _count_answer(live: LiveAnswer) -> int:
    calls = json.dumps(live.tool_calls) if live.tool_calls else ""
    return count_tokens(live.text) + count_tokens(live.reasoning) + count_tokens(calls)


def _number(usage: dict[str, Any], name: str) -> int | None:
    number = usage.get(name)
    return number if type(number) is int and 0 <= number <= MAX_TOKENS else None
