"""The rule that every call is paid once: at most what was in flight at a fault is paid again."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tests.storm.fakes import Call
from tests.storm.findings import Findings
from tests.storm.marks import mark_of, user_of

# From the last byte of an answer until it is stored, with the retries while the database is away
# (chat/answers/runner.py), on a busy machine.
STORED_AFTER_S = 15.0
Disruptions = list[tuple[float, float]]


def check_payments(
    calls: Iterable[Call],
    expected: Mapping[str, int],
    disruptions: Disruptions,
    findings: Findings,
    *,
    rule: str,
) -> None:
    """``expected``: how often a text may be paid for, by what is paid for; once if not there."""
    by_text: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_text[call.paid_for].append(call)
    for text, paid in by_text.items():
        again = len(paid) - expected.get(text, 1)
        excused = sum(_may_be_lost(call, disruptions) for call in paid)
        findings.counts[f"{rule}: calls"] += len(paid)
        findings.counts[f"{rule}: again, after a fault"] += max(again, 0)
        if again > excused:
            mark = mark_of(text)
            user = user_of(mark) if mark else None
            detail = f"paid {len(paid)} times, {excused} of them in flight at a fault"
            findings.add(rule, user, mark, detail)


def _may_be_lost(call: Call, disruptions: Disruptions) -> bool:
    return any(
        call.began <= ended and began <= call.ended + STORED_AFTER_S for began, ended in disruptions
    )
