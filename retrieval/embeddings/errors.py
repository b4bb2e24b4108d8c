"""Why texts could not be embedded."""

from retrieval.vectors import Vector


class EmbeddingError(Exception):
    """No vectors. The message is safe to log: it contains no key and no text of a user.

    ``retry_after_s``: how many seconds the service asked clients to wait, None if it did not ask.
    ``may_be_billed``: the service may have embedded the texts, although no vectors came.
    The class itself is used for permanent failures without a class of their own, such as an
    unknown model.
    """

    def __init__(
        self, reason: str, *, retry_after_s: float | None = None, may_be_billed: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.may_be_billed = may_be_billed


class ServiceUnavailable(EmbeddingError):
    """The service is unreachable, slow, overloaded or failing. A later call may succeed."""


class InvalidResponse(ServiceUnavailable):
    """The service answered without a valid vector for each text.

    ``usable`` has the valid ones, by the place of their text, if only some are invalid.
    """

    def __init__(self, reason: str, *, usable: dict[int, Vector] | None = None) -> None:
        super().__init__(reason, may_be_billed=True)
        self.usable = usable or {}


class RateLimited(ServiceUnavailable):
    """429: too many calls or tokens at the moment."""


class KeyRefused(EmbeddingError):
    """401 or 403: the key is wrong, or has no access to the model."""


class QuotaExceeded(EmbeddingError):
    """429 ``insufficient_quota``: the account has no credit left."""


class InputRefused(EmbeddingError):
    """400, 413 or 422: at least one of the texts is refused. Smaller calls show which."""


class CircuitOpen(EmbeddingError):
    """The circuit breaker is open after several failures; no call was made."""


class EmbeddingsNotConfigured(EmbeddingError):
    """No embedding model is configured; no call was made."""
