"""What the operator's commands share: signals, progress, arguments, one-line errors."""

import os
import signal
from argparse import ArgumentTypeError
from collections.abc import Callable

import pytest
from django.core.management import CommandError
from django.db import OperationalError
from psycopg import errors

from retrieval.db_errors import describe_db_error, error_name, sqlstate
from retrieval.management.arguments import number, whole_number_in
from retrieval.management.cancellation import cancel_on_signal, raise_keyboard_interrupt
from retrieval.management.operator_command import NOT_MIGRATED, summarise_db_error
from retrieval.management.progress import Progress


def run_and_signal(signum: signal.Signals, cancel: Callable[[], object]) -> CommandError:
    """Send this process the signal inside ``cancel_on_signal``; the error that this raises."""
    try:
        with cancel_on_signal(cancel, message="stopped") as signals:
            os.kill(os.getpid(), signum)
            assert signals == [signum]
    except CommandError as error:
        return error
    raise AssertionError("no CommandError")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_asks_the_work_to_stop_then_sets_the_exit_code(
    signum: signal.Signals, code: int
) -> None:
    calls: list[str] = []
    handler = signal.getsignal(signum)
    error = run_and_signal(signum, lambda: calls.append("cancel"))
    assert (str(error), error.returncode, calls) == ("stopped", code, ["cancel"])
    assert signal.getsignal(signum) == handler


def test_a_signal_can_interrupt_the_work_at_once() -> None:
    error = run_and_signal(signal.SIGTERM, raise_keyboard_interrupt)
    assert (str(error), error.returncode) == ("stopped", 143)


def test_without_a_terminal_progress_is_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    monkeypatch.setattr("retrieval.management.progress.time.monotonic", lambda: now_s)
    lines: list[str] = []
    with Progress(lines.append, terminal=None) as shown:
        for now_s in (1.0, 5.0, 9.0, 10.0):
            shown.update("Work", 1, 2, unit="rows", line=f"at {now_s}")
        shown.update("Work", 2, 2, unit="rows", line="a new phase", at_once=True)
        shown.write("done")
    assert lines == ["at 5.0", "at 10.0", "a new phase", "done"]


def test_a_number_out_of_range_is_wrong_usage() -> None:
    assert number(float, "a share", minimum=0, maximum=1)("0.5") == 0.5
    for text in ("2", "-1", "nan", "half"):
        with pytest.raises(ArgumentTypeError, match=rf"^'{text}' is not a share$"):
            number(float, "a share", minimum=0, maximum=1)(text)
    with pytest.raises(ArgumentTypeError, match=r"^'3' is not a whole number from 4 to 5$"):
        whole_number_in((4, 5))("3")


def wrapped(cause: BaseException) -> OperationalError:
    """The driver's error as Django raises it."""
    error = OperationalError(*cause.args)
    error.__cause__ = cause
    return error


def test_database_errors_are_named_without_their_messages() -> None:
    error = wrapped(errors.UniqueViolation("Key (name)=(secret) already exists."))
    assert (error_name(error), sqlstate(error)) == ("UniqueViolation", "23505")
    assert describe_db_error(error) == "UniqueViolation, SQLSTATE 23505"
    lost = OperationalError("the connection is closed")
    assert describe_db_error(lost) == "OperationalError, connection lost"


def test_a_command_gives_the_first_line_of_a_database_error() -> None:
    assert summarise_db_error(wrapped(errors.UndefinedTable("x"))) == NOT_MIGRATED
    failed = OperationalError("server closed the connection\nDETAIL: more")
    assert summarise_db_error(failed) == "the database failed: server closed the connection"
    read_only = wrapped(errors.ReadOnlySqlTransaction("x"))
    assert summarise_db_error(read_only).startswith("the database is read-only")
