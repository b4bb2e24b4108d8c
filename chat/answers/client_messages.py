"""Messages that a client of the OpenAI API sends itself: their text, their tokens, shorter copies.

A message's content is a string, or a list of parts of which some are text.
"""

import json
from collections.abc import Callable
from typing import Any

from retrieval.token_count import count_tokens, cut_middle

Part = dict[str, Any]  # a message: {"role", "content"}, and perhaps tool_calls, name and so on
MESSAGE_OVERHEAD_TOKENS = 4  # the role and the separators of each message, as OpenAI counts them
IMAGE_TOKENS = 765  # of a picture of 1024 x 1024 pixels, as OpenAI counts it; files too
CHARS_PER_TOKEN = 4  # of English; only to decide where a long history begins


def text_of(message: Part) -> str:
    """The message's text; of a list of parts the text parts, one after the other."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content or []
    return "\n".join(part["text"] for part in parts if part.get("type") == "text")


def cost_of(message: Part) -> int:
    """The tokens of the message."""
    content, calls = message.get("content"), message.get("tool_calls")
    others = sum(part.get("type") != "text" for part in content) if type(content) is list else 0
    tokens = count_tokens(text_of(message)) + others * IMAGE_TOKENS + MESSAGE_OVERHEAD_TOKENS
    return tokens + (count_tokens(json.dumps(calls)) if calls else 0)


def estimated_cost(message: Part) -> int:
    """About as many as ``cost_of``, for a hundredth of its work."""
    return len(text_of(message)) // CHARS_PER_TOKEN + MESSAGE_OVERHEAD_TOKENS


def cut_message(message: Part, *, max_tokens: int) -> Part:
    """The message with each of its texts cut in its middle; itself if it fits."""
    return with_texts(message, lambda text: cut_middle(text, max_tokens=max_tokens))


def with_texts(message: Part, change: Callable[[str], str]) -> Part:
    """The message with each of its texts changed."""
    content = message.get("content")
    if isinstance(content, str):
        changed = change(content)
        return message if changed == content else message | {"content": changed}
    if not isinstance(content, list):
        return message
    parts = [
        part | {"text": change(part["text"])} if part.get("type") == "text" else part
        for part in content
    ]
    return message | {"content": parts}


def with_text_before(message: Part, text: str) -> Part:
    """The message with a text before its own."""
    content = message.get("content")
    if isinstance(content, list):
        return message | {"content": [{"type": "text", "text": text}, *content]}
    return message | {"content": f"{text}\n\n{content or ''}"}
