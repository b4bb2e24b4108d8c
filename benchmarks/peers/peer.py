"""What all peers' processes do: load within a time, build the index, answer. Runs in the peer's environment.

    python with_….py URL FOLDER QUESTIONS LOAD_S

``FOLDER`` is that of benchmarks/people.py; ``QUESTIONS`` a .npz with ``users`` and ``vectors``. Lines that begin with
``> `` are for the parent: first the facts, then an answer for each question's number on standard input.
"""

import json
import sys
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import numpy as np

BATCH = 500
CHUNK, TABLES = 2_000, 2  # as in benchmarks/people.py, whose numbers for messages these are


def main(store_class):
    """All of it, for a class with ``add``, ``index`` and ``look``."""
    url, folder, questions, load_s = (
        sys.argv[1],
        Path(sys.argv[2]),
        np.load(sys.argv[3]),
        float(sys.argv[4]),
    )
    store = store_class(url)
    rows, loading = load(store, folder, int(questions["users"].max()), load_s)
    began = time.perf_counter()
    store.index()
    facts = {"rows": rows, "load_s": round(loading), "index_s": round(time.perf_counter() - began)}
    say(facts | {"versions": {name: version(name) for name in store.packages}})
    for line in sys.stdin:
        number = int(line)
        answer(
            store,
            f"user{questions['users'][number]}",
            [float(one) for one in questions["vectors"][number]],
        )


def load(store, folder, asked, seconds):
    """Rows of the users asked about, then of others until the time is up; how many, and the seconds."""
    vectors, users = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "users.npy")
    texts = (folder / "texts.txt").read_text().split("\n")
    order = np.concatenate([np.flatnonzero(users <= asked), np.flatnonzero(users > asked)])
    must = int((users <= asked).sum())
    began, done = time.perf_counter(), 0
    while done < len(order) and (done < must or time.perf_counter() - began < seconds):
        rows = [int(row) for row in order[done : done + BATCH]]
        ids = [str(uuid.UUID(int=reference(row))) for row in rows]
        store.add(
            ids,
            [f"user{users[row]}" for row in rows],
            [texts[row] for row in rows],
            vectors[rows].tolist(),
        )
        done += len(rows)
    return done, time.perf_counter() - began


def reference(row):
    """The number of the row's message."""
    turn, place = divmod(row, CHUNK)
    return (turn // TABLES * CHUNK + place + 1) * 2 + turn % TABLES


def answer(store, user, vector):
    """Look, and say what was found and what it took."""
    cpu, began = time.process_time(), time.perf_counter()
    found = store.look(user, vector)
    ms, cpu_ms = (time.perf_counter() - began) * 1000, (time.process_time() - cpu) * 1000
    say({"found": [uuid.UUID(one).int for one in found], "ms": ms, "cpu_ms": cpu_ms})


def say(values):
    """A line for the parent."""
    print(f"> {json.dumps(values)}", flush=True)
