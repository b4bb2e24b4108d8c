"""The type of an embedding, and its size."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 1536  # the columns are vector(1536): the size of text-embedding-3-small's vectors
Vector: TypeAlias = NDArray[np.float32]  # shape (1536,)


@dataclass(frozen=True)
class Bought:
    """What a call to an embedding model gave: a vector for each text, for so many tokens in all."""

    vectors: list[Vector]
    tokens: int = 0
