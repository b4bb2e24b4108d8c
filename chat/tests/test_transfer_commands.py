"""The commands import_messages and export_messages, mostly in processes of their own."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import (
    CommandError,
    call_command,
    execute_from_command_line,
    load_command_class,
)
from django.db import connection

from chat.models import StandaloneChat
from chat.tests.transfer_support import (
    NASTY,
    exported,
    imported,
    line,
    manage,
    many,
    run,
    stored,
)
from chat.transfer.importing import PROGRESS_EVERY
from chat.transfer.json_lines import MAX_FILE_LINE_BYTES, read
from retrieval.management import progress
from tests.support import PATIENCE_S, ROOT, clean_environment, database_url

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_import_says_what_it_did_and_what_comes_next(
    alice: User, file: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = file([*many(1_234), line(user="bob"), line(role="x"), line(content="")])
    then = "They are found by words at once; backfill_embeddings embeds them.\n"
    message = (
        "Imported 1,235 messages in 17 conversations of 2 users;"
        " 0 were there already; 2 bad lines skipped\n"
    )
    assert run(name, "--create-users", "--skip-bad") == message + then
    assert (
        capsys.readouterr().err
        == "line 1236: role must be user or assistant\nline 1237: content is blank\n"
    )
    name = file([line(user="bob"), line(user="bob", content="x")])
    assert (
        run(name) == "Imported 1 message in 1 conversation of 1 user; 1 were there already\n" + then
    )


def test_the_import_prints_json_for_scripts(alice: User, file: Callable[..., str]) -> None:
    result = json.loads(run(file([line(), line(role="x")]), "--json", "--skip-bad"))
    assert result == {"messages": 1, "skipped": 1, "users": 1, "conversations": 1, "already": 0}


@pytest.mark.parametrize("count", [30_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_many_lines_show_progress_and_take_little_memory(
    count: int,
    alice: User,
    capsys: pytest.CaptureFixture[str],
    file: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    # The second time, as only reading is looked at here: adding so many takes the database a while.
    imported(line())
    name = file([line()] * count)
    tracemalloc.start()
    try:
        with pytest.raises(CommandError, match=f"line {count + 1}"):
            call_command("import_messages", file_with_bad_end(name))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    lines = [f"{number:,} lines read" for number in range(10_000, count + 1, 10_000)]
    assert capsys.readouterr().err.splitlines() == lines
    assert peak < 5_000_000


def test_a_long_import_says_when_reading_ends(
    alice: User,
    capsys: pytest.CaptureFixture[str],
    file: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    run(file([line()] * PROGRESS_EVERY))
    assert (
        capsys.readouterr().err == "10,000 lines read\nall lines read, now the database adds them\n"
    )
    run(file([line()]))
    assert not capsys.readouterr().err


def file_with_bad_end(name: str) -> str:
    """The file, and a bad line."""
    with Path(name).open("ab") as end:
        end.write(b"x\n")
    return name


def test_a_line_without_an_end_is_not_read_into_memory(alice: User) -> None:
    pieces = list(read(io.BytesIO(b"x" * 20_000_000 + b"\n" + line())))
    assert [len(piece) for piece in pieces] == [MAX_FILE_LINE_BYTES + 1, len(line())]
    assert [len(piece) for piece in read(io.BytesIO(b"y" * (2 * MAX_FILE_LINE_BYTES + 2)))] == [
        MAX_FILE_LINE_BYTES + 1
    ]
    longest = line(extra="x" * (MAX_FILE_LINE_BYTES - len(line(extra=""))))
    assert len(longest) == MAX_FILE_LINE_BYTES
    assert list(read(io.BytesIO(longest * 2))) == [longest] * 2
    assert imported(longest).messages == 1


def test_through_pipes_an_export_goes_into_an_import(alice: User) -> None:
    imported(*(line(content=content) for content in NASTY))
    out = manage("export_messages")
    assert (out.returncode, out.stdout, out.stderr) == (0, exported(), b"")
    StandaloneChat.objects.all().delete()
    back = manage("import_messages", "-", lines=out.stdout)
    assert (back.returncode, back.stderr) == (0, b"")
    assert exported() == out.stdout


def test_an_error_is_one_line_and_exit_1(
    alice: User, tmp_path: Path, file: Callable[..., str]
) -> None:
    name = file([line(), line(role="system")])
    for argument, reason in {
        str(
            tmp_path / "none"
        ): f"{tmp_path / 'none'}: No such file or directory; nothing was imported",
        str(tmp_path): f"{tmp_path}: Is a directory; nothing was imported",
        name: "line 2: role must be user or assistant; nothing was imported",
    }.items():
        with pytest.raises(CommandError) as raised:
            run(argument)
        assert (str(raised.value), raised.value.returncode) == (reason, 1)
    with pytest.raises(CommandError, match=r"^No user is called 'carol'$"):
        call_command("export_messages", "--user", "carol")
    ran = manage("import_messages", name)
    message = b"CommandError: line 2: role must be user or assistant; nothing was imported\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, b"", message)


EXAMPLES = {
    "import_messages": "history.jsonl --create-users",
    "export_messages": "--user alice > alice.jsonl",
}


COPYING = """
    SELECT 1 FROM pg_stat_activity
    WHERE query LIKE 'COPY import_lines%' AND datname = current_database()
"""
# A process that a shell script starts in the background ignores SIGINT, and so do its children.
INTERRUPTIBLE = """
import signal, sys
from django.core.management import execute_from_command_line
signal.signal(signal.SIGINT, signal.default_int_handler)
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


def test_an_interrupted_import_says_so_and_imports_nothing(alice: User, other: Any) -> None:
    environment = clean_environment(
        DATABASE_URL=database_url(connection),
        SECRET_KEY="test",
        DJANGO_SETTINGS_MODULE="verse.settings",
    )
    command = [sys.executable, "-c", INTERRUPTIBLE, "import_messages", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(  # type: ignore[call-overload]
        command, cwd=ROOT, env=environment, **pipes
    ) as process:
        process.stdin.write(line())
        process.stdin.flush()
        until = time.monotonic() + PATIENCE_S
        while not other.execute(COPYING).fetchone() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    message = b"CommandError: interrupted; nothing was imported\n"
    assert (process.returncode, out, err) == (130, b"", message)
    assert not stored()


def test_wrong_usage_is_exit_2_and_the_help_has_an_example() -> None:
    for arguments in (
        ["import_messages"],
        ["import_messages", "a", "b"],
        ["export_messages", "alice"],
    ):
        with pytest.raises(SystemExit) as ended:
            execute_from_command_line(["manage.py", *arguments])
        assert ended.value.code == 2
    helps = {
        name: load_command_class("chat", name).create_parser("manage.py", name).format_help()
        for name in EXAMPLES
    }
    assert all(f"\n  manage.py {name} {EXAMPLES[name]}\n" in helps[name] for name in EXAMPLES)


def test_a_closed_pipe_ends_an_export_silently(alice: User) -> None:
    imported(*(line(content=f"{number} " + "x" * 30_000) for number in range(20)))
    read_end, write_end = os.pipe()
    os.close(read_end)
    ran = manage("export_messages", stdout=write_end)
    os.close(write_end)
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_a_full_disk_ends_an_export_in_one_line(alice: User) -> None:
    imported(line())
    with Path("/dev/full").open("wb") as full:
        ran = manage("export_messages", stdout=full)
    message = b"CommandError: the export is not whole: No space left on device\n"
    assert (ran.returncode, ran.stderr) == (1, message)


# The process's peak memory; ru_maxrss would include that of its parent, this process.
MEASURED = """
import pathlib, re, sys
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
kilobytes = re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]
print(int(kilobytes) // 1024, file=sys.stderr)
"""


@pytest.mark.soak
def test_a_million_lines_go_in_and_out_in_less_than_200_mb(
    alice: User, file: Callable[..., str]
) -> None:
    environment = clean_environment(
        DATABASE_URL=database_url(connection),
        SECRET_KEY="test",
        DJANGO_SETTINGS_MODULE="verse.settings",
    )
    name = file(many(1_000_000))
    for arguments, lines in ((["import_messages", name], 2), (["export_messages"], 1_000_000)):
        ran = subprocess.run(
            [sys.executable, "-c", MEASURED, *arguments],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
        )
        assert ran.stdout.count(b"\n") == lines
        assert int(ran.stderr.split()[-1]) < 200
