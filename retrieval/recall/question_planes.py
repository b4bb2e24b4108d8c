"""Estimates the cosine of a question and a message from the signs of the message's numbers.

The question is quantised to eight levels, the odd numbers from -7 to 7: three planes of bits, one
for each binary digit of (level + 7) / 2. The distance 4 * d4 + 2 * d2 + d1, where each d counts the
signs that differ from a plane, is an integer that PostgreSQL computes from an index alone.
docs/decisions/0009-recall-structures.md
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pgvector import Bit

from retrieval.vectors import Vector

# Half the distance between levels by the mean absolute number: the least squared error of eight
# levels for a normal distribution is at 0.293 standard deviations, 0.367 mean absolute numbers.
HALF_STEP = 0.367
# Standard deviation of the estimate by the square root of how many numbers are not zero: that of
# signs of a normal distribution, sqrt(pi / 2 - 1) = 0.755.
ERROR = 0.755


@dataclass(frozen=True)
class QuestionPlanes:
    """The planes of 4, 2 and 1 one after the other, and how a distance becomes a cosine.

    ``error``: the standard deviation of that cosine.
    """

    planes: Bit
    numbers: int  # of the question that are not zero
    scale: float
    error: float

    def similarities(self, distances: NDArray[np.int64]) -> NDArray[np.float64]:
        """The estimated cosines; NaN where the distance is negative: no vector."""
        agreement = 7 * self.numbers - 2 * distances
        return np.where(distances < 0, np.nan, agreement * self.scale)


def quantise(question: Vector) -> QuestionPlanes | None:
    """The planes of the question's vector; None if it has no direction.

    Zeros count for nothing: a model with fewer numbers than the column is padded with them, in the
    messages too, whose signs are then 0 as the planes are.
    """
    is_number = question != 0
    numbers = int(is_number.sum())
    length = float(np.linalg.norm(question))
    if not numbers or not math.isfinite(length):
        return None
    step = 2 * HALF_STEP * np.abs(question).sum() / numbers
    digits = np.clip(np.floor(question / step) + 4, 0, 7).astype(np.uint8)
    digits[~is_number] = 0
    levels = np.where(is_number, 2.0 * digits - 7, 0)
    scale = math.sqrt(math.pi / 2 / numbers) * length / float(levels @ question)
    planes = np.concatenate([digits & 4, digits & 2, digits & 1]).astype(bool)
    return QuestionPlanes(Bit(planes), numbers, scale, ERROR / math.sqrt(numbers))
