"""A long memory is cut to what matches the question, and leaves room for short ones."""

from datetime import UTC, datetime, timedelta

import pytest

from chat.answers.excerpt import excerpt, words_to_match
from chat.answers.fences import fence_memories
from chat.memory.recalled import Memory
from chat.models import StandaloneChat, StandaloneChatMessage
from retrieval.token_count import count_tokens, count_up_to

LIST = "\n".join(f"{number}. Pack the shirt number {number}" for number in range(300))


def memory(content: str, pk: int, role: str = "user") -> Memory:
    at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=pk)
    chat = StandaloneChat(title="Trip")
    message = StandaloneChatMessage(
        pk=pk, role=role, content=content, created_at=at, conversation=chat
    )
    return Memory(message, 1.0)


def test_the_best_line_of_a_long_text_stays() -> None:
    text = LIST.replace("shirt number 200", "charger for the camera")
    cut = excerpt(text, words_to_match("Which charger did I need?"), max_tokens=60)
    assert "charger for the camera" in cut
    assert (cut.startswith("[…]\n"), cut.endswith("\n[…]")) == (True, True)
    assert count_tokens(cut) <= 60


@pytest.mark.parametrize(
    "text", ["x" * 32_000, "好" * 9_000, "camera " * 9_000, "\n" * 9_000, "🦊\n" * 5_000, LIST]
)
@pytest.mark.parametrize("max_tokens", [-20, -1, 0, 5, 20, 200])
def test_an_excerpt_never_exceeds_its_tokens(text: str, max_tokens: int) -> None:
    cut = excerpt(text, words_to_match("the camera? 好"), max_tokens=max_tokens)
    assert count_tokens(cut) <= max(max_tokens, 0)


def test_a_long_answer_does_not_push_short_facts_out() -> None:
    facts = [
        memory(f"Fact {number}: the gate code is {number * 11}", number) for number in range(1, 5)
    ]
    memories = [memory(LIST, 9, "assistant"), *facts]
    text, used, _ = fence_memories(memories, "gate code", budget_tokens=700)
    assert [item.message.pk for item in used] == [item.message.pk for item in memories]
    assert all(fact.message.content in text for fact in facts)
    assert count_tokens(text) <= 700
    assert count_tokens(text) > 550  # what the short ones leave is for the long one


def test_too_small_a_budget_gives_no_memory() -> None:
    assert fence_memories([memory("Fact", 1)], "gate code", budget_tokens=50) == ("", (), 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Fact",
        "x" * 32_000,
        "好" * 9_000,
        " " * 9_000,
        LIST,
        LIST + "好" * 999,
        "好" * 999 + LIST,
    ],
)
@pytest.mark.parametrize("limit", [0, 1, 20, 2_000])
def test_a_count_up_to_a_limit_is_exact_below_it(text: str, limit: int) -> None:
    exact = count_tokens(text)
    counted = count_up_to(limit, text)
    assert counted == exact if exact <= limit else counted > limit
