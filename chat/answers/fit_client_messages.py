"""Fits a client's own messages into a budget: the last ones cut, of the others the newest.

chat/answers/client_prompt.py
"""

from chat.answers.client_messages import Part, cost_of, cut_message, estimated_cost

MIN_CUT_TOKENS = 32  # of a message among many that together do not fit
ESTIMATE_STEPS = 4  # how often an estimate that was too low is raised by a half


def whole_turns(messages: list[Part]) -> list[list[Part]]:
    """The messages in groups that begin with one of the user's."""
    turns: list[list[Part]] = []
    for message in messages:
        if message["role"] == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def fit_tail(messages: list[Part], message_tokens: int, max_tokens: int) -> tuple[list[Part], bool]:
    """The last messages, each cut to ``message_tokens``, or to less if there are many long ones."""
    tail = [cut_message(message, max_tokens=message_tokens) for message in messages]
    while sum(map(cost_of, tail)) > max_tokens and message_tokens > MIN_CUT_TOKENS:
        message_tokens //= 2
        tail = [cut_message(message, max_tokens=message_tokens) for message in messages]
    return tail, bool(messages) and tail[0] != messages[0]


def fit_turns(turns: list[list[Part]], budget_tokens: int) -> list[list[Part]]:
    """The newest turns that fit. Their start moves in steps of half of the budget.

    So the next prompts begin in the same way, and a provider's cache knows them. The steps are
    those of an estimate, because to count the tokens of a long history takes as long as an answer.
    """
    estimates = [sum(map(estimated_cost, turn)) for turn in turns]
    for step in range(ESTIMATE_STEPS):
        start = _start_by_steps([cost * 3**step // 2**step for cost in estimates], budget_tokens)
        if _fits(turns[start:], budget_tokens):
            return turns[start:]
    return _newest_that_fit(turns, budget_tokens)


def _start_by_steps(costs: list[int], budget_tokens: int) -> int:
    half = max(budget_tokens // 2, 1)
    excess = sum(costs) - budget_tokens
    to_drop = -(-excess // half) * half if excess > 0 else 0
    start = 0
    while to_drop > 0 and start < len(costs):
        to_drop -= costs[start]
        start += 1
    return start


def _fits(turns: list[list[Part]], budget_tokens: int) -> bool:
    """Whether the turns fit; counts no more tokens than the budget has, and one turn."""
    left = budget_tokens
    for turn in reversed(turns):
        left -= sum(map(cost_of, turn))
        if left < 0:
            return False
    return True


def _newest_that_fit(turns: list[list[Part]], budget_tokens: int) -> list[list[Part]]:
    number, left = 0, budget_tokens
    for turn in reversed(turns):
        left -= sum(map(cost_of, turn))
        if left < 0:
            break
        number += 1
    return turns[len(turns) - number :]
