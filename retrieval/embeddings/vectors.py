"""What every way to embed gives back, and the ways to fail."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 1536  # contract: the columns are vector(1536), text-embedding-3-small's own size
Vector: TypeAlias = NDArray[np.float32]  # shape (1536,)


class EmbeddingError(Exception):
    """No vectors. The words are fit for a log line: no key, no text of a user.

    ``retry_after_s``: how long the service asked to be left alone, in seconds, where it did. Of this class itself
    are failures that another try will not mend, such as an unknown model.
    """

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Unavailable(EmbeddingError):
    """The service is away, too slow, overloaded, or its answer is unusable; later it may be well again."""


class Unusable(Unavailable):
    """It has answered, with what is no vector for each text; where that stays so, one of the texts may be why."""


class KeyRefused(EmbeddingError):
    """401 or 403: the key is wrong, or has no right to the model."""


class QuotaExceeded(EmbeddingError):
    """429 ``insufficient_quota``: the account has no money left."""


class InputRefused(EmbeddingError):
    """400, 413 or 422: one of these texts at least is not taken; fewer at a time tell which."""


class CircuitOpen(EmbeddingError):
    """No call is made at present, because the last ones have failed."""


class NotConfigured(EmbeddingError):
    """No embedding model is set; nothing was asked."""
