"""What embedding costs: tokens and dated prices."""

from dataclasses import dataclass

from django.conf import settings

# US dollars per 1,000 tokens: https://platform.openai.com/docs/pricing, read 2026-11-25.
# EMBEDDING_PRICE_PER_1K overrides it.
PRICES_PER_1K = {
    "text-embedding-3-small": 0.00002,
    "text-embedding-3-large": 0.00013,
    "text-embedding-ada-002": 0.0001,
}
TOKENS_PER_MESSAGE = 100  # of an estimate that counts no tokens: docs/promises.md, "Commands"


def price_per_1k() -> float:
    """US dollars per 1,000 tokens of the configured model; 0 for the bundled one and for none.

    A model without a price in PRICES_PER_1K is priced like text-embedding-3-small.
    """
    if settings.EMBEDDINGS != "openai":
        return 0.0
    if settings.EMBEDDING_PRICE_PER_1K is not None:
        return float(settings.EMBEDDING_PRICE_PER_1K)
    return PRICES_PER_1K.get(settings.EMBEDDING_MODEL, PRICES_PER_1K["text-embedding-3-small"])


def cost_usd(tokens: int) -> float:
    """The price of so many tokens of the configured model, in US dollars."""
    return tokens * price_per_1k() / 1000


@dataclass
class Spending:
    """Tokens paid or reserved in one run, under a limit in US dollars; None: no limit."""

    max_usd: float | None = None
    tokens: int = 0

    @property
    def usd(self) -> float:
        """Spent so far, calls in flight included."""
        return cost_usd(self.tokens)

    def allows(self, tokens: int) -> bool:
        """Whether so many more tokens stay within the limit."""
        return self.max_usd is None or cost_usd(self.tokens + tokens) <= self.max_usd
