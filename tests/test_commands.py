"""What all commands of the operator's have in common, whoever has written them."""

import re
import subprocess
import sys

from django.core.management import get_commands, load_command_class

from tests.support import PATIENCE_S, ROOT, clean_environment
from verse.tests.test_startup import AWAY

SAID = "CommandError: the database failed: connection failed: "
COMMANDS = (
    "enable_vector --check",
    "migrate",
    "clear_expired",
    "create_token alice",
)  # others: each in its own tests
DJANGOS = {"migrate"}


def test_a_database_that_is_away_is_one_line_and_exit_1() -> None:
    environment = clean_environment(DATABASE_URL=AWAY, SECRET_KEY="test", EMBEDDINGS="local")
    begun = {
        command: subprocess.Popen(
            [sys.executable, "manage.py", *command.split()], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for command in COMMANDS
    }  # fmt: skip
    for command, process in begun.items():
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out, len(err.splitlines())) == (1, "", 1), (command, err)
        assert err.startswith(SAID), command


def test_each_command_of_memory_teaches_by_an_example_and_tells_its_locks() -> None:
    ours = {name for name, app in get_commands().items() if app == "retrieval"} - DJANGOS
    assert len(ours) >= 8
    for name in ours:
        told = load_command_class("retrieval", name).create_parser("manage.py", name).format_help()
        assert re.search(rf"^  .*manage\.py {name}\b", told, re.MULTILINE), name
        assert re.search(r"Locks: |Reads only", told), name
