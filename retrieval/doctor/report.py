"""What a check is, and what it reports."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """PASS: checked and right. WARN: works, but needs attention. FAIL: broken. SKIP: no verdict."""

    PASS = "PASS"  # noqa: S105 # no password
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


SEVERITY = (Status.PASS, Status.SKIP, Status.WARN, Status.FAIL)


@dataclass(frozen=True)
class Finding:
    """The result of a check. Each that is not PASS has a fix.

    ``fix`` can be pasted, a line for each step: SQL that ends with ``;``, a command, or a setting
    ``NAME=value``. It is prose only where nothing can be pasted.
    """

    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """A named check. ``option`` names the option of the command without which it does not run.

    ``in_transaction`` is false for a check that calls a service, or that writes and rolls back:
    all others run in a read-only transaction with time limits (``examine``).
    """

    name: str
    run: Callable[[], Finding]
    option: str = ""
    in_transaction: bool = True
    subject: str = ""

    @property
    def looks_at(self) -> str:
        """What the check looks at: ``subject``, or the first line of the function's docstring."""
        return self.subject or (self.run.__doc__ or "").strip().splitlines()[0]


def passed(detail: str) -> Finding:
    return Finding(Status.PASS, detail)


def warning(detail: str, fix: str, *more_fix: str) -> Finding:
    return Finding(Status.WARN, detail, "\n".join([fix, *more_fix]))


def failed(detail: str, fix: str, *more_fix: str) -> Finding:
    return Finding(Status.FAIL, detail, "\n".join([fix, *more_fix]))


def skipped(detail: str, fix: str, *more_fix: str) -> Finding:
    """The check could not run; ``detail`` says why, ``fix`` how to look by hand."""
    return Finding(Status.SKIP, detail, "\n".join([fix, *more_fix]))


def all_of(*findings: Finding) -> Finding:
    """Several findings as one: the worst status, and the details and fixes of what is not PASS."""
    worst = max(findings, key=lambda finding: SEVERITY.index(finding.status))
    problems = [finding for finding in findings if finding.status is not Status.PASS]
    details = "; ".join(finding.detail for finding in problems or findings)
    fixes = dict.fromkeys(finding.fix for finding in problems)  # in order, each once
    return Finding(worst.status, details, "\n".join(fixes))


def information(detail: str, fix: str, *more_fix: str) -> Finding:
    """A line without a verdict: SKIP, since a check that can only PASS would prove nothing."""
    return skipped(f"info: {detail}", fix, *more_fix)
