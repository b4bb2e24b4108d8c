"""Three libraries that store memories in PostgreSQL, each in a separate environment and process.

Each gets the same vectors, loads them in its own way, builds its HNSW index, and answers the same
questions on the same server in a separate database. Environments are created once, in the user's
cache folder, from the pinned lists in this folder. Loading stops after ``load_s`` seconds; the
users whose recall is measured come first.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import psycopg

from benchmarks.generated_messages import Messages
from benchmarks.processes import BACKENDS
from benchmarks.programs import Program
from benchmarks.ways import Way

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "verse-benchmarks"
PEERS = {
    "mem0": "with_mem0",
    "langchain-postgres": "with_langchain",
    "llama-index": "with_llama_index",
}
QUIET = {"MEM0_TELEMETRY": "false", "LANGSMITH_TRACING": "false", "TOKENIZERS_PARALLELISM": "false"}


def environment(script: str) -> Path:
    """The Python of the peer's environment. Creating it takes some minutes the first time."""
    requirements = HERE / f"{script}.txt"
    folder = CACHE / f"{script}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print(f"making {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--quiet", "--no-deps", "--requirement", str(requirements)], check=True
        )
        (folder / "made").touch()
    return python


class Peer(Program):
    """A peer's process with loaded data. ``facts``: its versions, rows, and seconds to load."""

    def __init__(
        self, script: str, url: str, messages: Messages, questions: Path, *, load_s: float
    ) -> None:
        self._url = url
        program = [environment(script), HERE / f"{script}.py"]
        command = [*program, url, messages.folder, questions, str(load_s)]
        names = {"PATH", "HOME", "LANG"} & os.environ.keys()
        inherited = {name: os.environ[name] for name in names}
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=inherited | QUIET | {"MEM0_DIR": str(messages.folder)},
        )
        super().__init__(process)

    def pids(self) -> list[int]:
        """The server processes of its connections."""
        with psycopg.connect(self._url) as database:
            return [row[0] for row in database.execute(BACKENDS)]


@contextlib.contextmanager
def peers(
    url: str, messages: Messages, questions: Path, *, load_s: float
) -> Iterator[dict[str, Peer]]:
    """Load all peers one after the other. Their databases are dropped at the end."""
    loaded: dict[str, Peer] = {}
    try:
        for name, script in PEERS.items():
            own = _database(url, script)
            loaded[name] = Peer(script, own, messages, questions, load_s=load_s)
            with psycopg.connect(own, autocommit=True) as database:
                database.execute("VACUUM ANALYZE")  # autovacuum does this a minute later
            print(f"{name}: {loaded[name].facts}", file=sys.stderr, flush=True)
        yield loaded
    finally:
        for peer in loaded.values():
            peer.end()
        with psycopg.connect(url, autocommit=True) as server:
            for script in PEERS.values():
                server.execute(f"DROP DATABASE IF EXISTS verse_benchmark_{script} WITH (FORCE)")


def ways(loaded: dict[str, Peer]) -> dict[str, Way]:
    """Each peer as a way to search."""
    return {name: Way(peer.look, peer.pids) for name, peer in loaded.items()}


def _database(url: str, script: str) -> str:
    """Create an empty database with memory to build an index. Returns its URL."""
    name = f"verse_benchmark_{script}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {name}")
        server.execute(f"ALTER DATABASE {name} SET maintenance_work_mem = '1GB'")
        (own,) = server.execute("SELECT current_database()").fetchone() or ("",)
    return url.replace(f"/{own}?", f"/{name}?")
