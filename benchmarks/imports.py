"""Measures the import of a large ChatGPT export: its time, and the largest memory of the process.

    .venv/bin/python -m benchmarks.imports [--conversations 10000] [--messages 20]

Uses a scratch database on the configured server, which runs on this machine. The archive is
imported by the command, in a process of its own; then once more, which adds nothing; then as a dry
run, which counts tokens. The database's time is that of all its processes that ended meanwhile.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from django.contrib.auth.models import User
from django.db import connection

from benchmarks.stage import scratch_database
from benchmarks.transfer import natural_words
from retrieval.queries import value
from tests.support import ROOT, database_url

START = 1_600_000_000  # seconds since 1970


def main() -> None:
    """Print the table."""
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder, scratch_database():
        archive = Path(folder) / "export.zip"
        unpacked = write_archive(archive, options.conversations, options.messages)
        total = options.conversations * options.messages
        print(f"{options.conversations:,} conversations, {total:,} messages;", end=" ")
        print(f"{unpacked / 1e6:.0f} MB, packed {archive.stat().st_size / 1e6:.0f} MB")
        User.objects.create(username="alice")
        print("| | s | CPU: command, s | CPU: database, s | memory, MB |\n|---|---|---|---|---|")
        for name, more in (("import", []), ("the same again", []), ("dry run", ["--dry-run"])):
            report(name, str(archive), *more)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=20)
    return parser.parse_args()


def write_archive(path: Path, conversations: int, messages: int) -> int:
    """Write the archive, always the same; the bytes of its JSON."""
    rng, words, size = random.Random(1), natural_words(), 0
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("conversations.json", "w") as member,
    ):
        for number in range(conversations):
            text = ("," if number else "[") + json.dumps(talk(number, messages, rng, words))
            size += member.write(text.encode())
        size += member.write(b"]")
    return size


def talk(number: int, messages: int, rng: random.Random, words: list[str]) -> dict[str, Any]:
    """A conversation of the export, as short as its form allows."""
    mapping: dict[str, Any] = {"root": {"id": "root", "parent": None, "message": None}}
    last = "root"
    for place in range(messages):
        role = "assistant" if place % 2 else "user"
        text = " ".join(rng.choices(words, k=rng.randrange(5, 200 if place % 2 else 40)))
        node = f"{number}-{place}"
        message = {
            "id": node,
            "author": {"role": role, "name": None, "metadata": {}},
            "create_time": START + number * 3600 + place,
            "content": {"content_type": "text", "parts": [text]},
            "status": "finished_successfully",
            "metadata": {"model_slug": "model", "request_id": f"request-{node}"},
            "recipient": "all",
        }
        mapping[node] = {"id": node, "parent": last, "children": [], "message": message}
        last = node
    return {
        "title": f"Talk {number}",
        "create_time": START + number * 3600,
        "mapping": mapping,
        "current_node": last,
        "conversation_id": str(number),
    }


def report(name: str, *arguments: str) -> None:
    """Run the command, and print a line of the table."""
    environment = os.environ | {"DATABASE_URL": database_url(connection), "SECRET_KEY": "benchmark"}
    command = [sys.executable, "manage.py", "import_messages", "--format", "chatgpt"]
    connection.close()
    before, database_before, started = cpu_s(), database_cpu_s(), time.perf_counter()
    subprocess.run(
        [*command, "--user", "alice", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.perf_counter() - started
    memory_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    spent = f"{cpu_s() - before:.0f} | {database_cpu_s() - database_before:.0f}"
    print(f"| {name} | {seconds:.0f} | {spent} | {memory_mb:.0f} |", flush=True)


def cpu_s() -> float:
    """Processor time of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def database_cpu_s() -> float:
    """Processor time of the database server's processes that have ended."""
    folder = Path(str(value("SHOW data_directory")))
    pid = (folder / "postmaster.pid").read_text().splitlines()[0]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")  # cutime, cstime


if __name__ == "__main__":
    main()
