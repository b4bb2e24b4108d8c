"""The setting LLM_PRICE_PER_1M: chat/prices.py"""

from typing import Any

PRICE = '{"prompt": 0.15, "cached": 0.075, "completion": 0.6}, in US dollars'
TOKENS = {"prompt", "cached", "completion"}


def is_price(value: dict[str, Any]) -> bool:
    """Whether it has a number, 0 or more, for each kind of token and for nothing else."""
    numbers = [number for number in value.values() if type(number) in (int, float)]
    return value.keys() == TOKENS and len(numbers) == len(TOKENS) and min(numbers) >= 0
