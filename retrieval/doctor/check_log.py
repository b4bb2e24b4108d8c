"""Errors that the servers logged: the table log_counts."""

from datetime import timedelta

from django.utils import timezone

from retrieval import log_counts
from retrieval.doctor.fixes import LOG, STATUS
from retrieval.doctor.report import Check, Finding, information, passed, warning

MAX_KINDS = 5  # named in a finding; rag_status shows all


def log_has_no_errors() -> Finding:
    """Errors that the servers logged in the last hour and day, by kind."""
    hour = log_counts.errors_since(timedelta(hours=1))
    day = log_counts.errors_since(timedelta(days=1))
    if day:
        return warning(f"last hour: {_named(hour)}; last day: {_named(day)}", LOG, STATUS)
    started = log_counts.last_start()
    if started is None:
        return information("no server has been started since its log is counted", STATUS)
    return passed(f"no error in the last day; last start of a server: {started:%Y-%m-%d %H:%M} UTC")


def last_start_logged_no_errors() -> Finding:
    """Errors of the last start: until it was complete, and in the minute after that."""
    started = log_counts.last_start()
    if started is None:
        return information("no start of a server has been counted", STATUS)
    age = timedelta(seconds=log_counts.START_S) + (timezone.now() - started)
    errors = log_counts.errors_since(age, at_start=True)
    when = f"the last start, {started:%Y-%m-%d %H:%M} UTC"
    if errors:
        return warning(f"{when}, logged errors: {_named(errors)}", LOG)
    return passed(f"{when}, logged no error")


def _named(errors: dict[str, int]) -> str:
    named = [f"{count:,} {kind}" for kind, count in [*errors.items()][:MAX_KINDS]]
    rest = sum([*errors.values()][MAX_KINDS:])
    return ", ".join([*named, f"{rest:,} others"] if rest else named) or "none"


def checks() -> list[Check]:
    return [Check("criterion.5", log_has_no_errors), Check("checklist.8", log_has_no_errors)]
