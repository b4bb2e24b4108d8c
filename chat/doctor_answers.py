"""rag_doctor's checks of answers: are questions answered, and does the chat work without memory?"""

from collections import Counter
from datetime import timedelta

from django.utils import timezone

from chat.memory.recalled import MODELS
from chat.models import Role, Status
from retrieval.doctor.check_migrations import migrations_are_reversible
from retrieval.doctor.fixes import LOG
from retrieval.doctor.report import Finding, all_of, information, passed, warning

NEWEST = 50  # answers of each message table; the primary key finds them
MAX_FAILED_SHARE = 0.1  # single answers fail when their users' models refuse a text
ENDED = (Status.COMPLETE, Status.INTERRUPTED, Status.FAILED)


def chat_works() -> Finding:
    """The newest answers of the last day, and whether memory can be removed again."""
    return all_of(answers_succeed(), migrations_are_reversible())


def answers_succeed() -> Finding:
    """The newest answers of the last day, by their status. Reads no text."""
    counts = _newest_answers()
    detail = ", ".join(f"{counts[status]} {status}" for status in ENDED)
    if not counts.total():
        return information("no answer in the last day", "see docs/deployment.md, Phase 6")
    if counts[Status.FAILED] > MAX_FAILED_SHARE * counts.total():
        return warning(f"of the newest answers many failed: {detail}", LOG)
    return passed(f"the newest answers of the last day: {detail}")


def _newest_answers() -> Counter[str]:
    """How many ended with which status. One statement for each message table."""
    since, counts = timezone.now() - timedelta(days=1), Counter[str]()
    for model in MODELS.values():
        answers = model._default_manager.filter(role=Role.ASSISTANT, status__in=ENDED)
        newest = answers.order_by("-pk").values_list("status", "created_at")[:NEWEST]
        counts.update(status for status, created_at in newest if created_at >= since)
    return counts
