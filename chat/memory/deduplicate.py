"""Leaves out memories that repeat each other, or the question."""

import re
from collections.abc import Iterable
from dataclasses import replace

from chat.memory.recalled import Memory

SAME_SHARE = 0.9  # two texts that share so much of all their words read as the same


def deduplicate(memories: Iterable[Memory], question: str, *, limit: int) -> list[Memory]:
    """The first ``limit`` memories that say something new: only the first of near-identical ones.

    Memories whose companion repeats the question come last: if a user asks again, the earlier
    question and its answer must not replace the fact that is asked for. A companion that is also
    a memory is dropped.
    """
    question_words = _words(question)
    unique: list[tuple[Memory, set[str]]] = []
    for memory in memories:
        words = _words(memory.message.content)
        earlier = (question_words, *(other for _, other in unique))
        if not any(_same(words, other) for other in earlier):
            unique.append((memory, words))
    ranked = sorted((memory for memory, _ in unique), key=lambda m: _answers(m, question_words))
    chosen = ranked[:limit]
    messages = [memory.message for memory in chosen]
    return [
        replace(memory, companion=None) if memory.companion in messages else memory
        for memory in chosen
    ]


def _answers(memory: Memory, question_words: set[str]) -> bool:
    return memory.companion is not None and _same(_words(memory.companion.content), question_words)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def _same(words: set[str], other: set[str]) -> bool:
    return len(words & other) >= SAME_SHARE * len(words | other)
