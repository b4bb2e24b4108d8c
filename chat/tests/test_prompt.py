"""The prompt fits its budget for any messages."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.answers.prompt import MESSAGE_OVERHEAD_TOKENS, build_prompt, fence
from chat.models import Passage, StandaloneChat, StandaloneChatMessage
from retrieval.token_count import count_tokens, cut_middle


def message(content: str, role: str = "user") -> StandaloneChatMessage:
    """A message that is not saved."""
    return StandaloneChatMessage(role=role, content=content)


def cost(parts: list[dict[str, str]]) -> int:
    """Tokens of a whole prompt."""
    return sum(count_tokens(part["content"]) + MESSAGE_OVERHEAD_TOKENS for part in parts)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(max_size=3000).map(lambda text: text * 20),
    history=st.lists(st.text(max_size=200), max_size=12),
    reference=st.text(max_size=200),
    budget=st.integers(256, 3000),
)
def test_a_prompt_is_never_over_its_budget(
    text: str, history: list[str], reference: str, budget: int
) -> None:
    passage = Passage(reference=reference, text=text)
    prompt = build_prompt(
        passage, message(text), [message(content) for content in history], budget_tokens=budget
    )
    assert cost(prompt.parts) <= budget
    assert prompt.parts[-1]["role"] == "user"


def test_the_newest_history_is_sent_without_a_gap() -> None:
    history = [message("newest"), message("long " * 500), message("oldest")]
    prompt = build_prompt(StandaloneChat(), message("Hello"), history, budget_tokens=300)
    assert [part["content"] for part in prompt.parts][1:] == ["newest", "Hello"]


@pytest.mark.parametrize(
    "text", ["word " * 5000, "好" * 9000, "😀" * 5000, "a" * 32_000, "<|endoftext|>" * 999]
)
def test_a_cut_text_keeps_both_ends_and_says_how_much_is_missing(text: Any) -> None:
    cut = cut_middle(text, max_tokens=200)
    assert count_tokens(cut) <= 200
    assert "tokens left out" in cut
    assert cut[:4] == text[:4]
    assert cut[-2:] == text[-2:]


def test_a_fence_cannot_be_closed_from_inside() -> None:
    first, second = fence("text", about="the passage"), fence("text", about="the passage")
    assert first != second
    marker = first.splitlines()[0]
    assert fence(first, about="the passage").count(marker) == 2  # only as the material inside
