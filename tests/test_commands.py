"""What all of the operator's commands have in common."""

import re
import subprocess
import sys

from django.core.management import BaseCommand, get_commands, load_command_class

from retrieval.management.operator_command import OperatorCommand
from tests.support import PATIENCE_S, ROOT, clean_environment
from verse.tests.test_startup import AWAY

MESSAGE = "CommandError: the database failed: connection failed: "
# The other commands have this test in their own files.
COMMANDS = (
    "adopt_tables --check",
    "enable_vector --check",
    "migrate",
    "clear_expired",
    "create_token alice",
)


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


def our_commands() -> dict[str, BaseCommand]:
    """All commands of the project but Django's migrate and the demo."""
    return {
        name: load_command_class(app, name)
        for name, app in get_commands().items()
        if app in ("retrieval", "chat", "verse") and name not in ("migrate", "demo")
    }


def test_every_command_is_an_operator_command() -> None:
    commands = our_commands()
    assert len(commands) >= 14
    assert all(isinstance(command, OperatorCommand) for command in commands.values())


def test_the_help_of_each_command_has_an_example_and_its_locks() -> None:
    for name, command in our_commands().items():
        help_text = command.create_parser("manage.py", name).format_help()
        assert re.search(rf"^  .*manage\.py {name}\b", help_text, re.MULTILINE), name
        assert "Locks: " in help_text, name
