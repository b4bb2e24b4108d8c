"""Logged exceptions: their classes and places, never their messages."""

import asyncio
import gc
import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from pytest_django import Settings

from verse.logs import JsonFormatter, TextFormatter, log_failed_thread

CANARY = "canary-8b1f"  # stands for a password, a key or a user's text
LOGGERS = ("verse.tests", "django.request", "asyncio", "verse.logs")


class Log:
    """Collects the lines of the loggers in LOGGERS in a format."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(formatter)

    @property
    def text(self) -> str:
        """The lines so far."""
        return self._stream.getvalue()


@pytest.fixture(params=[TextFormatter, JsonFormatter], ids=["text", "json"])
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    """A log in each format."""
    log = Log(request.param())
    for name in LOGGERS:
        logging.getLogger(name).addHandler(log.handler)
    yield log
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(log.handler)


def fail() -> None:
    """Raise an exception with a secret message."""
    raise ValueError(f"cannot read {CANARY}")


def fail_with_a_cause() -> None:
    """Raise an exception whose cause is another."""
    try:
        fail()
    except ValueError as error:
        raise KeyError(f"because of {CANARY}") from error


def fail_while_failing() -> None:
    """Raise an exception while another is handled."""
    try:
        fail_with_a_cause()
    except KeyError:
        raise RuntimeError(f"on top of {CANARY}")  # noqa: B904 # tests the context


def fail_in_a_group() -> None:
    """Raise an exception group with a note."""
    error = ExceptionGroup(CANARY, [ValueError(CANARY), TypeError(CANARY)])
    error.add_note(CANARY)
    raise error


def break_a_row() -> None:
    """Raise PostgreSQL's error that quotes a row."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE words (word text CHECK (length(word) < 5))")
        cursor.execute("INSERT INTO words VALUES (%s)", [CANARY])


def view(request: HttpRequest) -> HttpResponse:
    """A view that fails while it handles an exception."""
    try:
        break_a_row()
    except IntegrityError:
        raise RuntimeError(CANARY)  # noqa: B904 # tests the context
    return HttpResponse()


urlpatterns = [path("break/", view)]


def logged(log: Log, fails: Callable[[], None]) -> str:
    """The log after ``fails`` raised and its caller logged it."""
    try:
        fails()
    except Exception:
        logging.getLogger("verse.tests").exception("It failed")
    return log.text


@pytest.mark.parametrize(
    ("fails", "classes", "places"),
    [
        (fail, ["ValueError"], ["fail"]),
        (fail_with_a_cause, ["KeyError", "ValueError"], ["fail_with_a_cause", "fail"]),
        (
            fail_while_failing,
            ["RuntimeError", "KeyError", "ValueError"],
            ["fail_while_failing", "fail"],
        ),
        (fail_in_a_group, ["ExceptionGroup"], ["fail_in_a_group"]),
    ],
)
def test_a_logged_exception_has_classes_and_places_but_no_message(
    log: Log, fails: Callable[[], None], classes: list[str], places: list[str]
) -> None:
    text = logged(log, fails)
    assert CANARY not in text
    assert "It failed" in text
    assert all(name in text for name in classes)
    assert all(f" {place}" in text for place in places)
    assert "test_logs.py:" in text


@pytest.mark.usefixtures("db")
def test_a_row_in_postgresqls_message_is_not_logged_but_the_sqlstate_is(log: Log) -> None:
    with pytest.raises(IntegrityError, match=f"Failing row contains.*{CANARY}"):
        break_a_row()
    text = logged(log, break_a_row)
    assert CANARY not in text
    assert "IntegrityError (SQLSTATE 23514)" in text
    assert "CheckViolation (SQLSTATE 23514)" in text
    assert " break_a_row" in text


@pytest.mark.usefixtures("db")
def test_a_failing_view_is_logged_without_exception_messages(log: Log, settings: Settings) -> None:
    settings.ROOT_URLCONF = sys.modules[__name__]
    assert Client(raise_request_exception=False).get("/break/").status_code == 500
    assert CANARY not in log.text
    assert "Internal Server Error: /break/" in log.text
    assert "RuntimeError" in log.text
    assert "IntegrityError (SQLSTATE 23514)" in log.text


def test_text_cached_by_another_handler_is_not_used(log: Log) -> None:
    other = logging.StreamHandler(io.StringIO())
    other.setFormatter(logging.Formatter())  # caches its text in the record
    logger = logging.getLogger("verse.tests")
    logger.handlers.insert(0, other)
    try:
        assert CANARY not in logged(log, fail)
    finally:
        logger.removeHandler(other)
    assert "ValueError" in log.text


def test_an_unawaited_task_is_logged_without_its_exceptions_message(log: Log) -> None:
    async def forget() -> None:
        task = asyncio.create_task(asyncio.to_thread(fail), name=CANARY)
        await asyncio.wait([task])

    asyncio.run(forget())
    gc.collect()
    assert CANARY not in log.text
    assert "Task exception was never retrieved" in log.text
    assert "ValueError" in log.text


def test_a_failing_callback_is_logged_without_its_arguments(log: Log) -> None:
    async def call() -> None:
        asyncio.get_running_loop().call_soon(lambda _text: fail(), CANARY)
        await asyncio.sleep(0.01)

    asyncio.run(call())
    assert CANARY not in log.text
    assert "Exception in callback" in log.text


def test_a_failing_thread_is_logged_without_a_message(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", log_failed_thread)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert CANARY not in log.text
    assert "A thread failed" in log.text
    assert "ValueError" in log.text


def test_exceptions_that_cause_each_other_are_logged_once_each(log: Log) -> None:
    first, second = ValueError(CANARY), KeyError(CANARY)
    first.__cause__, second.__cause__ = second, first
    logging.getLogger("verse.tests").error("It failed", exc_info=first)
    assert log.text.count("ValueError") == 1
    assert log.text.count("KeyError") == 1


def test_a_text_line_begins_with_the_level() -> None:
    log = Log(TextFormatter())
    record = logging.makeLogRecord({"levelname": "WARNING", "msg": "No %s", "args": ("key",)})
    log.handler.handle(record)
    assert log.text == "WARNING: No key\n"


def test_a_json_record_is_a_single_line() -> None:
    log = Log(JsonFormatter())
    try:
        fail_with_a_cause()
    except KeyError as error:
        exc_info = (type(error), error, error.__traceback__)
    record = logging.makeLogRecord(
        {"levelname": "ERROR", "name": "verse", "msg": 'two\nlines "ü"', "exc_info": exc_info}
    )
    log.handler.handle(record)
    (line,) = log.text.splitlines()
    parts = json.loads(line)
    assert set(parts) == {"time", "level", "logger", "message", "error"}
    assert parts["message"] == 'two\nlines "ü"'
    assert parts["time"].endswith("+00:00")
    assert parts["error"].splitlines()[0] == "KeyError"


def test_an_exception_without_a_sqlstate_shows_none() -> None:
    formatted = TextFormatter().formatException((DatabaseError, DatabaseError(CANARY), None))
    assert formatted == "DatabaseError"
