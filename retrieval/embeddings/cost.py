"""What embedding costs: tokens and dated prices."""

from dataclasses import dataclass

from django.conf import settings

# US dollars per 1,000 tokens; https://platform.openai.com/docs/pricing, read 2026-11-25. EMBEDDING_PRICE_PER_1K
# stands above it.
PRICES_PER_1K = {
    "text-embedding-3-small": 0.00002,
    "text-embedding-3-large": 0.00013,
    "text-embedding-ada-002": 0.0001,
}
TOKENS_PER_MESSAGE = 100  # of an estimate that counts no tokens; contract section 5


def price_per_1k() -> float:
    """US dollars per 1,000 tokens of the configured model; 0 for the bundled one and for none."""
    if settings.EMBEDDINGS != "openai":
        return 0.0
    if settings.EMBEDDING_PRICE_PER_1K is not None:
        return float(settings.EMBEDDING_PRICE_PER_1K)
    return PRICES_PER_1K.get(settings.EMBEDDING_MODEL, PRICES_PER_1K["text-embedding-3-small"])


def cost_usd(tokens: int) -> float:
    """What so many tokens cost with the configured model, in US dollars."""
    return tokens * price_per_1k() / 1000


@dataclass
class Spending:
    """Tokens paid and promised in one run, under a cap in US dollars; None: no cap."""

    most_usd: float | None = None
    tokens: int = 0

    @property
    def usd(self) -> float:
        """Spent so far, what is under way included."""
        return cost_usd(self.tokens)

    def allows(self, tokens: int) -> bool:
        """Whether so many more tokens stay within the cap."""
        return self.most_usd is None or cost_usd(self.tokens + tokens) <= self.most_usd
