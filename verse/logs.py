"""Log lines without secrets: text (``LEVEL: message``) or JSON, one object a line.

What an exception says is left out, since it can quote a row, a password or what somebody wrote ("Failing row
contains …"). Its class, its SQLSTATE and the place in the code tell what went wrong.
"""

import json
import logging
import traceback
from datetime import UTC, datetime
from types import TracebackType

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def describe(error: BaseException) -> str:
    """The error's class, with the SQLSTATE where PostgreSQL gave one; never its words."""
    sqlstate = getattr(error, "sqlstate", None) or getattr(error.__cause__, "sqlstate", None)
    return type(error).__qualname__ + (f" (SQLSTATE {sqlstate})" if sqlstate else "")


class TextFormatter(logging.Formatter):
    """``LEVEL: message``, then for an exception its class and the places it came through."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s: %(message)s")

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 - logging's own name
        """Frames and class of the exception and of its causes, without their words."""
        lines: list[str] = []
        error = ei[1]
        while error is not None:
            lines += [describe(error), *(f"  {at.filename}:{at.lineno} {at.name}" for at in frames(error))]
            error = error.__cause__
        return "\n".join(lines)


class JsonFormatter(TextFormatter):
    """``{"time", "level", "logger", "message", "error"?}``, times ISO 8601 UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def frames(error: BaseException) -> traceback.StackSummary:
    """Where the exception came through, outermost first."""
    return traceback.extract_tb(error.__traceback__)
