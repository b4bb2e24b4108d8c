"""Log lines without secrets: text (``LEVEL: message``) or JSON, one object a line.

Exception messages are left out, because they can quote a row ("Failing row contains …"), a
password or a user's text. The class, the SQLSTATE and the place in the code are logged instead.
"""

import json
import logging
import re
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType

from retrieval.db_errors import sqlstate
from retrieval.telemetry import log_context, spans

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
logger = logging.getLogger(__name__)


def describe(error: BaseException) -> str:
    """The error's class, and the SQLSTATE if PostgreSQL gave one. Never its message."""
    state = sqlstate(error)
    return type(error).__qualname__ + (f" (SQLSTATE {state})" if state else "")


class TextFormatter(logging.Formatter):
    """``LEVEL: message``, and for an exception its class and its stack."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s: %(message)s")

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 # logging's own name
        """Classes and stack frames of the exception and of its causes, without messages."""
        lines: list[str] = []
        for error in chain(ei[1]):
            stack = traceback.extract_tb(error.__traceback__)
            frames = (f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in stack)
            lines += [describe(error), *frames]
        return "\n".join(lines)

    def format(self, record: logging.LogRecord) -> str:
        """Drops the text that another handler may have cached in the record."""
        record.exc_text = None
        return super().format(without_values(record))


class JsonFormatter(TextFormatter):
    """``{"time", "level", "logger", "message", "error"?}``, times ISO 8601 UTC.

    And ``request_id``, ``turn_id``, ``trace_id`` of the line's request, if it belongs to one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, even if the message has several."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": without_values(record).getMessage(),
            **log_context.ids(),
        }
        if trace_id := spans.trace_id():
            line["trace_id"] = trace_id
        if record.exc_info and record.exc_info[0]:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_failed_thread(failed: threading.ExceptHookArgs) -> None:
    """For threading.excepthook: logs instead of printing the exception's message to stderr."""
    logger.error("A thread failed", exc_info=failed.exc_value)


def without_values(record: logging.LogRecord) -> logging.LogRecord:
    """The record. asyncio's messages are cut before the values they show."""
    if record.name != "asyncio":
        return record
    message = re.split(r"[\n(<]", record.getMessage())[0].strip()
    return logging.makeLogRecord(record.__dict__ | {"msg": message, "args": None})


def chain(error: BaseException | None) -> list[BaseException]:
    """The exception, then its causes and contexts, as Python's traceback shows them."""
    errors: list[BaseException] = []
    while error is not None and error not in errors:
        errors.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return errors
