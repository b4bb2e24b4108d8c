"""Leaves out recalled messages that repeat each other, or the question."""

import re
from collections.abc import Iterable

from retrieval.recall.messages import Recalled

SAME_SHARE = 0.9  # two texts that share so much of all their words read as the same
END_CHARS = 2_000  # of a long text only the two ends are compared


def deduplicate(messages: Iterable[Recalled], question: str, *, limit: int) -> list[Recalled]:
    """The first ``limit`` messages that say something new, the first of near-identical ones.

    Messages whose companion repeats the question come last: if a user asks again, the earlier
    question and its answer must not replace the fact that is asked for. A companion that is also
    among the messages is dropped.
    """
    question_words = _words(question)
    seen, unique = [question_words], []
    for message in messages:
        words = _words(message.content)
        if not _is_among(seen, words):
            unique.append(message)
            seen.append(words)
    ranked = sorted(unique, key=lambda message: _repeats_question(message, question_words))
    chosen = ranked[:limit]
    refs = {message.ref for message in chosen}
    return [
        message._replace(companion=None)
        if message.companion and message.companion.ref in refs
        else message
        for message in chosen
    ]


def _repeats_question(message: Recalled, question_words: set[str]) -> bool:
    """Whether the message answers an earlier question of the same words."""
    return message.companion is not None and _is_among(
        [question_words], _words(message.companion.content)
    )


def _words(text: str) -> set[str]:
    ends = text if len(text) <= 2 * END_CHARS else f"{text[:END_CHARS]} {text[-END_CHARS:]}"
    return set(re.findall(r"\w+", ends.casefold()))


def _is_among(texts: list[set[str]], words: set[str]) -> bool:
    """Whether one of the texts shares at least SAME_SHARE of all its words and these."""
    min_words = SAME_SHARE * len(words)
    max_words = len(words) / SAME_SHARE
    for other in texts:
        if min_words <= len(other) <= max_words:  # else the words need no look
            shared = len(words & other)
            if shared >= SAME_SHARE * (len(words) + len(other) - shared):
                return True
    return False
