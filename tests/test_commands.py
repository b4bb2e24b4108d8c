"""What all of the operator's commands have in common."""

import re
import subprocess
import sys

from django.core.management import get_commands, load_command_class

from tests.support import PATIENCE_S, ROOT, clean_environment
from verse.tests.test_startup import AWAY

MESSAGE = "CommandError: the database failed: connection failed: "
# The other commands have this test in their own files.
COMMANDS = ("enable_vector --check", "migrate", "clear_expired", "create_token alice")


def test_a_missing_database_gives_one_line_and_exit_1() -> None:
    environment = clean_environment(DATABASE_URL=AWAY, SECRET_KEY="test", EMBEDDINGS="local")
    processes = {
        command: subprocess.Popen(
            [sys.executable, "manage.py", *command.split()],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for command in COMMANDS
    }
    for command, process in processes.items():
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out, len(err.splitlines())) == (1, "", 1), (command, err)
        assert err.startswith(MESSAGE), command


def test_the_help_of_each_memory_command_has_an_example_and_its_locks() -> None:
    ours = {name for name, app in get_commands().items() if app == "retrieval"} - {"migrate"}
    assert len(ours) >= 8
    for name in ours:
        parser = load_command_class("retrieval", name).create_parser("manage.py", name)
        help_text = parser.format_help()
        assert re.search(rf"^  .*manage\.py {name}\b", help_text, re.MULTILINE), name
        assert re.search(r"Locks: |Reads only", help_text), name
