"""The program of all peers: loads data, builds the index, answers. Runs in the peer's environment.

    python with_….py URL FOLDER QUESTIONS LOAD_S

``FOLDER`` is written by benchmarks/generated_messages.py; ``QUESTIONS`` is a .npz file with
``users`` and ``vectors``. Output lines that begin with ``> `` are for the parent: first the facts,
then an answer for each question number on standard input.
"""

import json
import sys
import time
import uuid
from importlib.metadata import version
from pathlib import Path

import numpy as np

BATCH = 500
CHUNK, TABLES = 2_000, 2  # as in benchmarks/generated_messages.py


def main(store_class):
    """Run with a store class that has ``add``, ``index`` and ``look``."""
    url, folder, questions_path, load_s = sys.argv[1:5]
    questions = np.load(questions_path)
    store = store_class(url)
    rows, loading = load(store, Path(folder), int(questions["users"].max()), float(load_s))
    started = time.perf_counter()
    store.index()
    facts = {
        "rows": rows,
        "load_s": round(loading),
        "index_s": round(time.perf_counter() - started),
    }
    say(facts | {"versions": {name: version(name) for name in store.packages}})
    for line in sys.stdin:
        number = int(line)
        user = f"user{questions['users'][number]}"
        answer(store, user, questions["vectors"][number].tolist())


def load(store, folder, last_measured, seconds):
    """Load the measured users' rows, then others while there is time. Returns count, seconds."""
    vectors, users = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "users.npy")
    texts = (folder / "texts.txt").read_text().split("\n")
    order = np.concatenate(
        [np.flatnonzero(users <= last_measured), np.flatnonzero(users > last_measured)]
    )
    required = int((users <= last_measured).sum())
    started, done = time.perf_counter(), 0
    while done < len(order) and (done < required or time.perf_counter() - started < seconds):
        rows = [int(row) for row in order[done : done + BATCH]]
        ids = [str(uuid.UUID(int=reference(row))) for row in rows]
        store.add(
            ids,
            [f"user{users[row]}" for row in rows],
            [texts[row] for row in rows],
            vectors[rows].tolist(),
        )
        done += len(rows)
    return done, time.perf_counter() - started


def reference(row):
    """The packed message id of a row."""
    chunk, place = divmod(row, CHUNK)
    return (chunk // TABLES * CHUNK + place + 1) * 2 + chunk % TABLES


def answer(store, user, vector):
    """Search, and print the ids and the times."""
    # CPU time of the whole process, because a library may search in other threads.
    cpu, started = time.process_time(), time.perf_counter()
    ids = store.look(user, vector)
    ms, cpu_ms = (time.perf_counter() - started) * 1000, (time.process_time() - cpu) * 1000
    say({"found": [uuid.UUID(pk).int for pk in ids], "ms": ms, "client_cpu_ms": cpu_ms})


def say(values):
    """Print a line for the parent."""
    print(f"> {json.dumps(values)}", flush=True)
