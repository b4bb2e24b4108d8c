"""log_counts: errors of the servers' logs, by kind; nothing of what the lines say."""

import ast
import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.models import Sum

from retrieval import log_counts, runtime
from retrieval.log_counts import STARTED, CountErrors
from retrieval.models import LogCount
from tests.support import PATIENCE_S, ROOT, Server

pytestmark = [pytest.mark.newest_schema, pytest.mark.django_db(transaction=True)]
SECRET = "sk-0123456789"
LOG_CALLS = ("error", "exception", "critical")


@pytest.fixture
def counter() -> Iterator[CountErrors]:
    """A new counter on the root logger, in a process that has just begun."""
    runtime.reset()
    log_counts._started_at.clear()
    handler = CountErrors()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    runtime.reset()


def rows() -> list[tuple[str, bool, int]]:
    """Of all minutes: a test may go on in the next one."""
    log_counts.flush()
    counts = LogCount.objects.values_list("kind", "at_start").annotate(total=Sum("count"))
    return sorted(counts)


def log_some(name: str = "chat.memory.recall") -> None:
    logger = logging.getLogger(name)
    logger.error("Error retrieving relevant context: %s, %.1f s", SECRET, 1.5)
    logger.warning("No error: %s", SECRET)


def test_errors_are_counted_by_kind_without_their_values(counter: CountErrors) -> None:
    log_some()
    log_some()
    log_some("gunicorn.error")
    kind = "Error retrieving relevant context: …, … s"
    assert rows() == [(kind, True, 2), ("gunicorn.error", True, 1)]
    log_some()
    assert (kind, True, 3) in rows()


def test_a_start_is_counted_without_the_errors_that_come_later(
    counter: CountErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_some()
    logging.getLogger("verse").info(STARTED)
    log_counts._started_at[0] -= log_counts.START_S
    log_some()
    kind = "Error retrieving relevant context: …, … s"
    assert rows() == [(STARTED, True, 1), (kind, False, 1), (kind, True, 1)]


def test_counts_wait_while_the_database_is_away(counter: CountErrors) -> None:
    log_some()
    connection.close()
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "no_such_database"
    try:
        with pytest.raises(OperationalError):
            log_counts.flush()
    finally:
        connection.settings_dict["NAME"] = name
    log_some()
    assert sum(count for _, _, count in rows()) == 2


def test_counts_wait_until_the_table_exists(counter: CountErrors) -> None:
    rename = "ALTER TABLE {} RENAME TO {}"
    with connection.cursor() as cursor:
        cursor.execute(rename.format("log_counts", "not_there_yet"))
    try:
        runtime.reset()
        log_some()
        log_counts.flush()
        log_counts.purge()
        assert log_counts.report() == {"hour": {}, "day": {}, "last_start": None}
    finally:
        with connection.cursor() as cursor:
            cursor.execute(rename.format("not_there_yet", "log_counts"))
        log_counts._table._known.forget()  # as after a minute
    assert sum(count for _, _, count in rows()) == 1


def test_memory_in_the_process_is_bounded(
    counter: CountErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_counts, "MAX_COUNTS", 3)
    for n in range(9):
        logging.getLogger(f"library.{n}").error("failed")
    assert len(rows()) == 3


def test_old_counts_are_deleted_but_the_last_start(counter: CountErrors) -> None:
    log_some()
    logging.getLogger("verse").info(STARTED)
    log_counts.flush()
    LogCount.objects.update(minute="2026-01-01T00:00Z")
    log_counts.purge()
    assert [kind for kind, _, _ in rows()] == [STARTED]


def test_rag_status_prints_the_counts(counter: CountErrors, remembering: object) -> None:
    log_some()
    log_counts.flush()
    out = StringIO()
    call_command("rag_status", "--json", stdout=out)
    kind = "Error retrieving relevant context: …, … s"
    log = json.loads(out.getvalue())["log"]
    assert log == {"hour": {kind: 1}, "day": {kind: 1}, "last_start": None}
    text = StringIO()
    call_command("rag_status", stdout=text)
    assert f"{kind:40}  {1:>13}  {1:>12}\n" in text.getvalue()
    assert SECRET not in out.getvalue() + text.getvalue()


def test_a_server_counts_its_start(server: Callable[..., Server]) -> None:
    server()
    wait_until(LogCount.objects.exists)
    assert [*LogCount.objects.values_list("kind", "at_start", "count")] == [(STARTED, True, 1)]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_the_texts_of_our_error_lines_are_constants() -> None:
    for package in log_counts.OWN_LOGGERS:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    is_log = getattr(node.func.value, "id", "") == "logger"
                    if is_log and node.func.attr in LOG_CALLS:
                        assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}"


def test_a_day_is_the_last_24_hours(counter: CountErrors) -> None:
    log_some()
    log_counts.flush()
    assert log_counts.errors_since(timedelta(days=1))
    assert not log_counts.errors_since(timedelta())
