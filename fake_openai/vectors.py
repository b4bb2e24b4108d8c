"""Meaningful vectors: texts that share words are similar, texts that share none are not."""

import math
import re
from collections import defaultdict
from functools import lru_cache
from hashlib import sha256

WORD = re.compile(r"\w+")
SUFFIXES = ("ing", "ed", "es", "s")
# English function words. At full weight "what is the" would make any two questions similar.
STOP_WORDS = frozenset(
    (  # noqa: SIM905 # sixty quoted words would be hard to read
        "a an and are as at be but by can did do does for from had has have he her his how i if "
        "in is it its me my no not of on or our she so that the their them they this to was we "
        "were what when where which who will with would you your"
    ).split()
)
STOP_WEIGHT = 0.2  # chosen by hand: one shared noun outweighs several of these
# Of 1,536 positions: two words share 0.04 positions on average, so they are nearly orthogonal.
POSITIONS_PER_WORD = 8
NO_WORDS = "\0no words"  # stands for a text without words


def vector_of(text: str, dimensions: int) -> list[float]:
    """A unit vector, the same on every machine: the sum of the directions of the words."""
    parts: defaultdict[int, float] = defaultdict(float)
    for word in WORD.findall(text.lower()) or [NO_WORDS]:
        weight = STOP_WEIGHT if word in STOP_WORDS else 1.0
        for position, sign in _direction(_stem(word), dimensions):
            parts[position] += weight * sign
    return _normalized(parts, dimensions)


def _normalized(parts: dict[int, float], dimensions: int) -> list[float]:
    length = math.sqrt(sum(part * part for part in parts.values()))
    vector = [0.0] * dimensions
    for position, part in parts.items():
        vector[position] = part / length if length else 0.0
    if not length:  # the words cancel each other out, possible in few dimensions
        vector[0] = 1.0
    return vector


@lru_cache(maxsize=65_536)  # more words than tests and load texts contain
def _stem(word: str) -> str:
    """The word without a common English ending; "dogs" equals "dog". At least three letters."""
    return next(
        (word[: -len(end)] for end in SUFFIXES if word.endswith(end) and len(word) > len(end) + 2),
        word,
    )


@lru_cache(maxsize=65_536)
def _direction(word: str, dimensions: int) -> tuple[tuple[int, float], ...]:
    digest = sha256(word.encode("utf-8", "surrogatepass")).digest()
    numbers = [
        int.from_bytes(digest[at : at + 4], "little") for at in range(0, 4 * POSITIONS_PER_WORD, 4)
    ]
    return tuple(((number >> 1) % dimensions, 1.0 if number & 1 else -1.0) for number in numbers)
