"""Fences around texts that the model must not take for instructions: a passage, memories.

A fence is two equal lines with a marker that the text between them cannot contain. A passage's
marker is the same in each prompt of its conversation, because providers keep a prompt's beginning
in a cache. The memories' marker is random in each prompt; they stand at the end.
docs/decisions/0005-prompt.md
"""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from django.utils.crypto import salted_hmac

from chat.answers.excerpt import excerpt, words_to_match
from chat.memory.recalled import Memory
from chat.models import Message, Passage
from retrieval.token_count import count_tokens, count_up_to, cut_end, cut_middle

MARKER_CHARS = 16  # hexadecimal: 64 bits
MIN_MEMORY_TOKENS = 30  # its own line takes up to 25; with less text it helps nothing
COMPANION_TOKENS = 200  # of the other half of a memory's turn; what matches the question
TITLE_TOKENS = 12  # five memories with such titles take 150 tokens for all but their texts, tested
SEAM_TOKENS = 4  # joined texts can have a few tokens more than their parts


def fence(text: str, *, about: str, marker: str) -> str:
    line = f"===== {about} {marker} ====="
    return f"{line}\n{text}\n{line}"


def fence_passage(passage: Passage, *, max_tokens: int) -> str:
    """Its reference, cut to a quarter of the tokens, and its text in a fence."""
    reference = cut_middle(passage.reference, max_tokens=max_tokens // 4)
    text = cut_middle(passage.text, max_tokens=max_tokens - max_tokens // 4)
    return fence(f"{reference}\n\n{text}", about="the passage", marker=_marker_of(passage))


def _marker_of(passage: Passage) -> str:
    """Derived from SECRET_KEY and the passage's id; another one if the passage contains it."""
    for attempt in count():
        digest = salted_hmac(__name__, f"{passage.pk} {attempt}", algorithm="sha256").hexdigest()
        marker = digest[:MARKER_CHARS]
        if marker not in passage.text and marker not in passage.reference:
            return marker
    raise AssertionError  # count() does not end


class FencedMemories(NamedTuple):
    """Memories as a prompt holds them: the text, the memories in it, best first, its tokens."""

    text: str = ""
    memories: Sequence[Memory] = ()
    tokens: int = 0


def fence_memories(
    memories: Sequence[Memory], question: str, *, budget_tokens: int
) -> FencedMemories:
    """One fence around the memories that fit, in order of time.

    Empty if none fits. A memory over its share is cut to what matches the question, so that a
    long answer does not push short facts out. The rest of the budget is for their companions, best
    first.
    """
    marker = secrets.token_hex(MARKER_CHARS // 2)
    left = budget_tokens - count_tokens(fence("", about="memories", marker=marker)) - SEAM_TOKENS
    memories = memories[: max(left, 0) // MIN_MEMORY_TOKENS]
    wanted = words_to_match(question) if memories else frozenset[str]()
    texts = quote_all([memory.message for memory in memories], wanted, budget_tokens=left)
    left -= sum(map(count_tokens, texts))
    quotes = [(memory.message, text) for memory, text in zip(memories, texts, strict=True)]
    used = []
    for memory in memories:
        if memory.companion and left >= COMPANION_TOKENS:
            text = quote(memory.companion, wanted, max_tokens=COMPANION_TOKENS)
            quotes.append((memory.companion, text))
            left -= count_tokens(text)
            used.append(memory)
        else:
            used.append(replace(memory, companion=None))
    if not used:
        return FencedMemories()
    in_order = sorted(quotes, key=lambda pair: pair[0].created_at)
    fenced = fence("\n".join(text for _, text in in_order), about="memories", marker=marker)
    return FencedMemories(fenced, used, budget_tokens - left)


def quote_all(
    messages: Sequence[Message], wanted: frozenset[str], *, budget_tokens: int
) -> list[str]:
    """Each message's quote. What short ones leave of their shares is for the long ones."""
    texts = [quote(message, wanted) for message in messages]
    sizes = [count_up_to(budget_tokens, text) for text in texts]
    left = budget_tokens
    by_size = sorted(range(len(texts)), key=lambda place: sizes[place])
    for waiting, place in zip(range(len(texts), 0, -1), by_size, strict=True):
        share = left // waiting
        if sizes[place] > share:
            texts[place] = quote(messages[place], wanted, max_tokens=share)
        left -= count_tokens(texts[place])
    return texts


def quote(message: Message, wanted: frozenset[str], *, max_tokens: int | None = None) -> str:
    """A line with the message's date, source and role, its text, and the end of its last line.

    Over ``max_tokens`` the text is cut to what has the wanted words.
    """
    source = cut_end(str(message.conversation), max_tokens=TITLE_TOKENS).replace("\n", " ")
    date = f"{message.created_at:%a %d %b %Y}"
    head = f"{date}, {message.conversation.kind} “{source}”, {message.role}:"
    content = message.content
    if max_tokens is not None:
        room = max_tokens - count_tokens(f"{head}\n\n") - SEAM_TOKENS
        content = excerpt(content, wanted, max_tokens=room)
    return f"{head}\n{content}\n"
