"""Log lines without secrets: text (``LEVEL: message``) or JSON, one object a line.

What an exception says is left out, since it can quote a row, a password or what somebody wrote ("Failing row
contains …"). Its class, its SQLSTATE and the place in the code tell what went wrong.
"""

import json
import logging
import re
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
logger = logging.getLogger(__name__)


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
        for error in chain(ei[1]):
            lines += [
                describe(error),
                *(f"  {at.filename}:{at.lineno} {at.name}" for at in frames(error)),
            ]
        return "\n".join(lines)

    def format(self, record: logging.LogRecord) -> str:
        """The message, then the exception: as this class tells it, whatever another handler made of it before."""
        record.exc_text = None
        return super().format(quiet(record))


class JsonFormatter(TextFormatter):
    """``{"time", "level", "logger", "message", "error"?}``, times ISO 8601 UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": quiet(record).getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_failed_thread(failed: threading.ExceptHookArgs) -> None:
    """In the place of Python's own words on stderr, for threading.excepthook."""
    logger.error("A thread failed", exc_info=failed.exc_value)


def quiet(record: logging.LogRecord) -> logging.LogRecord:
    """The record; asyncio's ends before the values it shows, such as a failed task's exception."""
    if record.name != "asyncio":
        return record
    first = re.split(r"[\n(<]", record.getMessage())[0].strip()
    return logging.makeLogRecord(record.__dict__ | {"msg": first, "args": None})


def chain(error: BaseException | None) -> list[BaseException]:
    """The exception, then what caused it or was being handled, as Python's own traceback would show."""
    errors: list[BaseException] = []
    while error is not None and error not in errors:
        errors.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return errors


def frames(error: BaseException) -> traceback.StackSummary:
    """Where the exception came through, outermost first."""
    return traceback.extract_tb(error.__traceback__)
