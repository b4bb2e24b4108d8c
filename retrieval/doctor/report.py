"""What a check is, and what it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """PASS: seen to be right. WARN: works, but needs somebody. FAIL: broken. SKIP: could not be, or was not, seen."""

    PASS = "PASS"  # noqa: S105 # no password
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True)
class Finding:
    """What a check found. ``fix`` can be pasted, a line a step: SQL that ends with ``;``, a command, or a setting
    ``NAME=value``; words only where nothing can be pasted."""

    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """A check by its name. ``option`` names the command's option without which it is not run.

    ``alone``: it is run outside the reading transaction of the others (``run.examine``), since it calls a service,
    or writes and rolls back.
    """

    name: str
    run: Callable[[], Finding]
    option: str = ""
    alone: bool = False


def passed(detail: str) -> Finding:
    """Seen to be right."""
    return Finding(Status.PASS, detail)


def warning(detail: str, fix: str) -> Finding:
    """It works, but somebody should do something."""
    return Finding(Status.WARN, detail, fix)


def failed(detail: str, fix: str) -> Finding:
    """It is broken."""
    return Finding(Status.FAIL, detail, fix)


def skipped(detail: str, fix: str = "") -> Finding:
    """Not seen; ``detail`` says why, and what to look at by hand."""
    return Finding(Status.SKIP, detail, fix)
