"""What answers cost: dated prices of language models, for the admin. No limit depends on them."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings

BUNDLED = "bundled"  # the name of the bundled model in Message.context


@dataclass(frozen=True)
class Price:
    """US dollars per 1,000,000 tokens of prompts, of cached prompts and of answers."""

    prompt: float
    cached: float
    completion: float

    def cost_usd(self, usage: dict[str, int]) -> float:
        """Of an answer's ``usage``: the cached tokens are part of the prompt's."""
        prompt = usage["prompt_tokens"] - usage["cached_tokens"]
        cached, completion = usage["cached_tokens"], usage["completion_tokens"]
        total = prompt * self.prompt + cached * self.cached + completion * self.completion
        return total / 1_000_000


# As known on 2026-11-29, not read from the provider's page that day: compare them with
# https://developers.openai.com/api/docs/pricing. LLM_PRICE_PER_1M overrides the configured model's.
PRICES = {
    "gpt-4o-mini": Price(0.15, 0.075, 0.60),
    "gpt-4o": Price(2.50, 1.25, 10.00),
    "gpt-4.1": Price(2.00, 0.50, 8.00),
    "gpt-4.1-mini": Price(0.40, 0.10, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.025, 0.40),
    "gpt-5": Price(1.25, 0.125, 10.00),
    "gpt-5-mini": Price(0.25, 0.025, 2.00),
    "gpt-5-nano": Price(0.05, 0.005, 0.40),
    BUNDLED: Price(0.0, 0.0, 0.0),
}


def model_name() -> str:
    """The configured model, as answers store it."""
    return BUNDLED if settings.LLM == "local" else str(settings.LLM_MODEL)


def price_of(model: str) -> Price | None:
    """By today's settings; None if it is not known."""
    own: dict[str, Any] = settings.LLM_PRICE_PER_1M
    if own and model == model_name():
        return Price(**own)
    return PRICES.get(model)
