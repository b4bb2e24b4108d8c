"""The type of an embedding, and its size."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 1536  # the columns are vector(1536): the size of text-embedding-3-small's vectors
Vector: TypeAlias = NDArray[np.float32]  # shape (1536,)
