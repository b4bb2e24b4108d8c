"""Which values LLM_PRICE_PER_1M takes."""

import json
from typing import Any

import pytest

from verse.price import PRICE, is_price

GOOD = {"prompt": 1, "cached": 0, "completion": 2.5}


def test_a_price_names_each_kind_of_token() -> None:
    assert is_price(GOOD)
    assert is_price(json.loads(PRICE.partition(", in")[0]))


@pytest.mark.parametrize(
    "change",
    [{"cached": -1}, {"cached": True}, {"cached": "1"}, {"cached": None}, {"image": 1}],
    ids=str,
)
def test_another_value_is_no_price(change: dict[str, Any]) -> None:
    assert not is_price(GOOD | change)
    assert not is_price({"prompt": 1, "completion": 1})
