"""Three libraries that keep memories in PostgreSQL, each in an environment and a process of its own.

Each is given the ready-made vectors, loads them by its own means, builds its HNSW index, and answers the same
questions on the same server, in a database of its own. Environments are made once, in the user's cache folder, from
the pinned lists beside this file. Loading stops after ``load_s`` seconds: the users who are asked about come first.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.people import People
from benchmarks.ways import Answer, Question, Way

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "verse-benchmarks"
PEERS = {
    "mem0": "with_mem0",
    "langchain-postgres": "with_langchain",
    "llama-index": "with_llama_index",
}
QUIET = {"MEM0_TELEMETRY": "false", "LANGSMITH_TRACING": "false", "TOKENIZERS_PARALLELISM": "false"}


def environment(script: str) -> Path:
    """The Python of the peer's environment, made where it is not there yet: some minutes the first time."""
    wanted = HERE / f"{script}.txt"
    folder = CACHE / f"{script}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print(f"making {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        subprocess.run([*install, "--requirement", str(wanted)], check=True)
        (folder / "made").touch()
    return python


class Peer:
    """A peer's process, loaded and ready; ``facts`` says what it is: its versions, rows, seconds, megabytes."""

    def __init__(
        self, script: str, url: str, people: People, questions: Path, *, load_s: float
    ) -> None:
        self._url = url
        command = [
            environment(script),
            HERE / f"{script}.py",
            url,
            people.folder,
            questions,
            str(load_s),
        ]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept | QUIET | {"MEM0_DIR": str(people.folder)},
        )
        self.facts: dict[str, Any] = self._read()

    def look(self, question: Question) -> Answer:
        """Ask; times are the peer's own, without the way to it and back."""
        self._say(question.number)
        said = self._read()
        return Answer(said["found"], said["ms"], said["cpu_ms"])

    def pids(self) -> list[int]:
        """The server's processes that hold its connections."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(self._url) as database:
            return [
                row[0] for row in database.execute(query + " AND backend_type = 'client backend'")
            ]

    def end(self) -> None:
        """Nothing of its process stays."""
        self._process.kill()
        self._process.wait()

    def _say(self, number: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        """Its next line; what a library prints otherwise goes by."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("> "):
                return dict(json.loads(line[2:]))
        raise RuntimeError(f"the peer has ended: {self._process.args!r}")


@contextlib.contextmanager
def peers(url: str, people: People, questions: Path, *, load_s: float) -> Iterator[dict[str, Peer]]:
    """All of them, loaded one after the other; their databases are dropped in the end."""
    made: dict[str, Peer] = {}
    try:
        for name, script in PEERS.items():
            own = _database(url, script)
            made[name] = Peer(script, own, people, questions, load_s=load_s)
            with psycopg.connect(own, autocommit=True) as database:
                database.execute("VACUUM ANALYZE")  # as the server does by itself, a minute later
            print(f"{name}: {made[name].facts}", file=sys.stderr, flush=True)
        yield made
    finally:
        for peer in made.values():
            peer.end()
        with psycopg.connect(url, autocommit=True) as server:
            for script in PEERS.values():
                server.execute(f"DROP DATABASE IF EXISTS verse_benchmark_{script} WITH (FORCE)")


def ways(made: dict[str, Peer]) -> dict[str, Way]:
    """Each as a way to look."""
    return {name: Way(peer.look, peer.pids) for name, peer in made.items()}


def _database(url: str, script: str) -> str:
    """An empty one on the same server, where an index of 100,000 vectors is built in memory; its URL."""
    name = f"verse_benchmark_{script}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {name}")
        server.execute(f"ALTER DATABASE {name} SET maintenance_work_mem = '1GB'")
        (own,) = server.execute("SELECT current_database()").fetchone() or ("",)
    return url.replace(f"/{own}?", f"/{name}?")
