"""Measures recall of both checkouts, an exact scan and three libraries, for ``benchmarks.targets``.

Each checkout has a database with the same messages; users have 20 to 20,000 of them. All ways take
turns at every question. "before" and "now" run in processes of their own, with their checkout's
modules. The libraries (benchmarks/peers) are left out if ``quick``.
"""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import psycopg

from benchmarks import peers
from benchmarks.generated_messages import SIZES, DataGenerator, Messages, fill, sign_up, write
from benchmarks.programs import Program
from benchmarks.recall import ask_of, drop_hnsw, scan
from benchmarks.sides import Checkout, Figures, Side, databases
from benchmarks.ways import Question, Way, ask_all

ROWS, QUICK_ROWS = 100_000, 30_000
LIBRARY_LOAD_S = 60  # of other users' messages; those of the questions' users are always loaded
LIBRARY_SIZES = SIZES[:-1]
EXACT_SIZES = (2_000, 20_000)
CLIENT_SIZE = 700
RECALLER = str(Path(__file__).parent / "recaller.py")

BySize = dict[int, dict[str, dict[str, float]]]  # by messages of the user, then by way


def measure(both: list[Checkout], *, quick: bool) -> Figures:
    """The lines of recall."""
    with tempfile.TemporaryDirectory() as folder, databases(both) as sides:
        generator = DataGenerator()
        messages = write(Path(folder), QUICK_ROWS if quick else ROWS, generator)
        for side in sides:
            fill_side(side, messages)
        questions = {
            size: ask_of(messages, user, generator, 20 if quick else 60)
            for user, size in enumerate(SIZES, start=1)
        }
        return lines_of(measure_ways(sides, messages, questions, quick=quick))


def fill_side(side: Side, messages: Messages) -> None:
    """Load all messages, without the HNSW indexes, which recall does not read."""
    with psycopg.connect(side.url) as database:
        drop_hnsw(database)
        sign_up(database, messages)
        fill(database, messages, range(len(messages.users)))


def measure_ways(
    sides: list[Side], messages: Messages, questions: dict[int, list[Question]], *, quick: bool
) -> BySize:
    """The figures of all ways."""
    file = save(questions, messages.folder)
    with contextlib.ExitStack() as stack:
        exact = stack.enter_context(psycopg.connect(sides[-1].url, autocommit=True))
        ways = {"exact scan": scan(exact, "+ 0")}
        for side in sides:
            process = side.checkout.python(RECALLER, str(file), **environment(side))
            program = Program(process)
            stack.callback(program.end)
            ways[side.name] = Way(program.look, lambda program=program: [program.facts["backend"]])
        libraries: dict[str, peers.Peer] = {}
        if not quick:
            few = save({size: questions[size] for size in LIBRARY_SIZES}, messages.folder / "few")
            url = sides[-1].url
            libraries = stack.enter_context(peers.peers(url, messages, few, load_s=LIBRARY_LOAD_S))
        return {
            size: ask_all(
                ways | (peers.ways(libraries) if size in LIBRARY_SIZES else {}), questions[size]
            )
            for size in SIZES
        }


def environment(side: Side) -> dict[str, str]:
    """The settings of a recaller."""
    return {"DATABASE_URL": side.url, "DJANGO_SETTINGS_MODULE": "verse.settings"}


def save(questions: dict[int, list[Question]], folder: Path) -> Path:
    """Write questions to a file, in the order of their numbers."""
    folder.mkdir(exist_ok=True)
    every = [question for of_size in questions.values() for question in of_size]
    np.savez(
        folder / "questions.npz",
        users=[question.user for question in every],
        texts=[question.text for question in every],
        vectors=[question.vector for question in every],
    )
    return folder / "questions.npz"


def lines_of(figures: BySize) -> Figures:
    """The lines of the table. Those of the libraries only if they were measured."""
    sides = ("before", "now")
    lines: Figures = {
        f"recall of {size:,} messages, backend CPU ms": {
            side: ways[side]["server_cpu_ms"] for side in sides
        }
        for size, ways in figures.items()
    }
    for size in EXACT_SIZES:
        exact = figures[size]["exact scan"]["server_cpu_ms"]
        lines[f"recall / exact scan at {size:,}, backend CPU"] = {
            side: figures[size][side]["server_cpu_ms"] / exact for side in sides
        }
    ways = figures[CLIENT_SIZE]
    lines[f"recall of {CLIENT_SIZE} messages, client CPU ms"] = {
        side: ways[side]["total_cpu_ms"] - ways[side]["server_cpu_ms"] for side in sides
    }
    lines["recall's share of the five nearest, any size"] = {
        side: min(ways[side]["found"] for ways in figures.values()) for side in sides
    }
    lines["recall's answers of fewer than five"] = {
        side: sum(ways[side]["short"] for ways in figures.values()) for side in sides
    }
    return lines | library_lines(figures)


def library_lines(figures: BySize) -> Figures:
    """Recall's wall time divided by the fastest library's, at the size where the ratio is worst."""
    ratios: dict[str, float] = {}
    for size in LIBRARY_SIZES:
        ways = figures[size]
        libraries = [ways[name]["p50_ms"] for name in peers.PEERS if name in ways]
        if libraries:
            for side in ("before", "now"):
                ratio = ways[side]["p50_ms"] / min(libraries)
                ratios[side] = max(ratio, ratios.get(side, 0))
    return {"recall / fastest library up to 2,000, p50": ratios} if ratios else {}
