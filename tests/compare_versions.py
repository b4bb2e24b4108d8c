"""What operators and clients see, in two checkouts: ``python -m tests.compare_versions OLD NEW``.

Prints each difference of the API's description, the commands' options, exit codes and JSON keys,
the doctor's checks and the log lines; exit code 1 if there is one. Run it with the Python of the
newer checkout. The commands run on an empty database of each version, on a server of their own.
"""

import ast
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg

from embedded_postgres.create_data import SUPERUSER
from embedded_postgres.ensure_running import ensure_running
from tests.support import clean_environment

LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
MIN_LOG_CHARS = 4  # shorter ones are forms such as "%s"
# In this order on one database. Some must fail.
RUNS = """
    enable_vector --check --json
    rag_status --json
    migrate
    enable_vector --check --json
    import_messages chat/samples/conversations.jsonl --create-users --json
    import_messages nowhere.jsonl
    backfill_embeddings --dry-run --json
    backfill_embeddings --json
    backfill_embeddings --limit 0
    export_messages --user demo
    export_messages --user nowhere
    rag_status --json
    rag_cost_estimate --json
    rag_cost_estimate --exact --json
    rag_model --json
    rag_model use
    rag_text --json
    rag_text use nowhere
    rag_index rebuild --json
    rag_index drop
    rag_doctor --json
    measure_recall --json
    clear_expired --json
    create_token demo
    create_token nowhere
    adopt_tables --check --json
    grant_roles --json
    migrate chat 0001_initial
"""


class Checkout:
    """One version of the repository and an empty database for it."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder, self.database_url = folder, database_url

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command without a key and without models."""
        settings = {"DATABASE_URL": self.database_url, "SECRET_KEY": "test", "EMBEDDINGS": "none"}
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.folder,
            env=clean_environment(**settings),
            capture_output=True,
            text=True,
            check=False,
        )

    def facts(self) -> set[str]:
        """Everything that is compared, one line each."""
        return {*self.openapi(), *self.options(), *log_lines(self.folder), *self.runs()}

    def openapi(self) -> Iterator[str]:
        """Each value of the API's description with its place."""
        description = self.manage("spectacular", "--format", "openapi-json").stdout
        for place, value in leaves(json.loads(description)):
            yield f"openapi: {place} = {json.dumps(value)}"

    def options(self) -> Iterator[str]:
        """Each command with its arguments and options."""
        for file in self.folder.glob("*/management/commands/[a-z]*.py"):
            usage = self.manage(file.stem, "--help").stdout.partition("\n\n")[0]
            yield from (f"option: {file.stem} {part}" for part in re.findall(r"\[.+?\]", usage))

    def runs(self) -> Iterator[str]:
        """The exit code of each of RUNS, the keys of its JSON, the doctor's names and statuses."""
        for number, line in enumerate(RUNS.strip().splitlines(), 1):
            run = f"run {number}: {line.strip()}"
            result = self.manage(*line.split())
            yield f"{run}: exit code {result.returncode}"
            if "--json" in line and result.stdout:
                printed = json.loads(result.stdout)
                yield from (f"{run}: key {place}" for place, _ in leaves(printed))
                for check in printed.get("checks", []):
                    yield f"{run}: {check['name']} {check['status']}"


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The values inside a JSON value, each with its keys; items of a list have the same place."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{place}.{key}")
    elif isinstance(value, list) and value:
        for item in value:
            yield from leaves(item, f"{place}[]")
    else:
        yield place, value


def log_lines(folder: Path) -> Iterator[str]:
    """The texts that product code logs, before values are filled in."""
    for file in folder.glob("*/**/*.py"):
        if not {"tests", "benchmarks", ".venv"} & set(file.relative_to(folder).parts):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and (text := _logged_text(node)):
                    yield f"log: {text}"


def _logged_text(call: ast.Call) -> str | None:
    if isinstance(call.func, ast.Attribute) and call.func.attr in LOG_METHODS and call.args:
        text = call.args[0]
        if isinstance(text, ast.Constant) and len(str(text.value)) >= MIN_LOG_CHARS:
            return str(text.value)
    return None


def differences(old: set[str], new: set[str]) -> list[str]:
    """``- fact`` of the old version only, ``+ fact`` of the new version only."""
    changed = [(fact, "-") for fact in old - new] + [(fact, "+") for fact in new - old]
    return [f"{sign} {fact}" for fact, sign in sorted(changed)]


def main(old_folder: str, new_folder: str) -> int:
    """Print the differences of two checkouts. Returns the exit code."""
    with tempfile.TemporaryDirectory() as home, ThreadPoolExecutor() as pool:
        url = f"postgresql://{SUPERUSER}@/{{}}?host={ensure_running(Path(home), 16)}"
        with psycopg.connect(url.format("postgres"), autocommit=True) as server:
            server.execute("CREATE DATABASE old")
            server.execute("CREATE DATABASE new")
        checkouts = (
            Checkout(Path(old_folder), url.format("old")),
            Checkout(Path(new_folder), url.format("new")),
        )
        old, new = pool.map(Checkout.facts, checkouts)
    changed = differences(old, new)
    print("\n".join(changed) or "no difference")  # noqa: T201 # a command
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
