"""What is left after the traffic: lost turns, texts paid for twice, and what failed and why."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from fake_openai.record import RecordedRequest
from tests.cluster.outages import Outage
from tests.cluster.parts import Cluster
from tests.cluster.traffic import GOOD, Operation, Traffic, User
from tests.support import wait_for

STORE_S = 1.0  # from the vectors' arrival to their commit, on a busy machine
ASKED = " asks number "  # in each text of the traffic


def wait_until_embedded(traffic: Traffic) -> None:
    """Until no message is pending: what a killed process had is embedded within a minute."""
    for user in traffic.users:
        wait_for(lambda user=user: user.get("/api/memory/")["pending"] == 0)  # type: ignore[misc]


def stored_messages(user: User) -> list[Any]:
    """All messages of the user's chat, by the API."""
    messages: list[Any] = []
    address: str | None = f"{user.messages}?page_size=100"
    while address:
        page = user.get(address)
        messages += page["results"]
        address = page["next"]
    return messages


def lost_turns(traffic: Traffic) -> list[str]:
    """Each acknowledged turn that is not stored exactly once, as it was acknowledged."""
    lost: list[str] = []
    for user in traffic.users:
        stored = stored_messages(user)
        counts = Counter(message["content"] for message in stored)
        by_id = {message["id"]: message["content"] for message in stored}
        lost.extend(
            operation.content
            for operation in user.operations
            if operation.turn and not is_stored(operation, by_id, counts)
        )
    return lost


def is_stored(operation: Operation, by_id: dict[int, str], counts: Counter[str]) -> bool:
    question, answer = operation.turn["user_message"], operation.turn["assistant_message"]
    return (
        by_id.get(question["id"]) == operation.content
        and by_id.get(answer["id"]) == answer["content"] == f"You said: {operation.content}"
        and counts[operation.content] == counts[answer["content"]] == 1
    )


@dataclass
class Purchases:
    """``texts``: how many were embedded; ``again``: paid for again, by the outage that explains it.

    ``unexplained``: texts that were paid for again although no part was away.
    """

    texts: int = 0
    calls: int = 0
    again: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)


def purchases(cluster: Cluster, outages: list[Outage]) -> Purchases:
    """By the embedding service's own record."""
    result, calls = Purchases(), defaultdict[str, list[RecordedRequest]](list)
    for call in cluster.model.requests:
        texts = [text for text in call.texts if ASKED in text] if "embeddings" in call.path else []
        result.calls += bool(texts)
        for text in texts:
            calls[text].append(call)
    result.texts = len(calls)
    for text, bought in calls.items():
        for call in bought[:-1]:
            cause = next((outage for outage in outages if explains(outage, call)), None)
            if cause:
                result.again[cause.name] += 1
            else:
                result.unexplained.append(text)
    return result


def explains(outage: Outage, call: RecordedRequest) -> bool:
    """Whether the vectors of the call may not have been committed because of the outage."""
    ended = call.finished_at or outage.back
    return outage.holds_calls and call.arrived_at <= outage.back and ended + STORE_S > outage.began


@dataclass
class Line:
    """Of one outage, or of the time without. ``seconds``: of attempts that were good."""

    name: str
    operations: int = 0
    turns: int = 0  # acknowledged
    attempts: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    longest_s: float = 0.0  # an operation with its repeats
    given_up: list[str] = field(default_factory=list)


def lines_of(traffic: Traffic, outages: list[Outage]) -> list[Line]:
    """An operation belongs to the outage in which its first attempt ended."""
    before = Line("all parts well")
    lines = [before, *(Line(outage.name) for outage in outages)]
    for operation in traffic.operations:
        ended = operation.attempts[0].ended
        begun = sum(outage.began <= ended for outage in outages)
        _count(operation, lines[begun])
    return lines


def _count(operation: Operation, line: Line) -> None:
    line.operations += 1
    line.turns += operation.turn is not None
    line.attempts += len(operation.attempts)
    line.failed.update(attempt.outcome for attempt in operation.attempts if attempt.outcome != GOOD)
    if operation.is_done:
        last = operation.attempts[-1]
        line.seconds.append(last.ended - last.began)
        line.longest_s = max(line.longest_s, last.ended - operation.attempts[0].began)
    else:
        line.given_up.append(operation.content or operation.kind)


def unexplained_failures(lines: list[Line], outages: list[Outage]) -> list[str]:
    """Failures whose reason the outage does not have, and what was never done."""
    reasons = {outage.name: outage.reasons for outage in outages}
    strange = [
        f"{line.name}: {reason}"
        for line in lines
        for reason in line.failed
        if reason not in reasons.get(line.name, {})
    ]
    return strange + [f"{line.name}: given up: {what}" for line in lines for what in line.given_up]
