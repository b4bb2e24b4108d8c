"""Rebuild the HNSW indexes, or drop and create them around a bulk fill. Safe under traffic.

  manage.py rag_index rebuild                   again under the same names; repairs an INVALID index
  manage.py rag_index rebuild --m 24 --ef-construction 128 --table chat_messages
  manage.py rag_index drop hnsw                 before a large backfill, which is then faster;
  manage.py rag_index create hnsw               and after it

Locks: SHARE UPDATE EXCLUSIVE on one message table after the other; reads and writes go on. A build
waits for transactions that are open, and says for which, every 10 s. If m or ef_construction
change, ACCESS EXCLUSIVE on the index for a moment, asked for 300 ms at a time. The role's timeouts
do not apply to builds. One that fails or is interrupted removes what it left; after a kill run it
again: it does that then.

Disk: rebuild needs room for a second index until it is done; it says how much. migrate does not
create again what was dropped. Processor: max_parallel_maintenance_workers processes besides the
first, 2 by default; PGOPTIONS="-c max_parallel_maintenance_workers=0" avoids them. If the graph
fits in memory, a build is much faster:

  PGOPTIONS="-c maintenance_work_mem=2GB" manage.py rag_index rebuild

Exit code: 0 done; 1 failed; 2 wrong usage; 130, 143 interrupted.
"""

import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError
from django.db import connection

from retrieval import audit
from retrieval.management.arguments import add_table_argument, whole_number_in
from retrieval.management.cancellation import cancel_on_signal, raise_keyboard_interrupt
from retrieval.management.operator_command import OperatorCommand
from retrieval.management.progress import Progress
from retrieval.reindex import index_state, rebuild
from retrieval.reindex.build_progress import LOADING, Build, follow_build, read_build
from retrieval.reindex.index_state import HnswOptions, IndexState
from retrieval.schema import locks
from retrieval.schema.waits import report_waits

LOCK_PATIENCE_S = 3.0  # a build whose client was killed ends within indexes.CLIENT_CHECK
BUSY = "another rag_index or migrate is running: let it finish, or stop it first"
BUILDS = {"rebuild": rebuild.rebuild, "create": rebuild.create}


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        m = whole_number_in(index_state.M_RANGE)
        ef = whole_number_in(index_state.EF_CONSTRUCTION_RANGE)
        ef_help = "candidates for the links, 4 to 1000, at least twice m (default 64)"
        add = parser.add_argument
        add("action", choices=[*BUILDS, "drop"], help="what to do")
        add("what", nargs="?", choices=["hnsw"], help="after drop and create: the HNSW indexes")
        add("--m", type=m, default=16, help="links of a row in the graph, 2 to 100 (default 16)")
        add("--ef-construction", type=ef, default=64, help=ef_help)
        add_table_argument(parser)

    def run(self, **options: Any) -> None:
        """One index after the other."""
        action, hnsw = options["action"], HnswOptions(options["m"], options["ef_construction"])
        if problem := find_problem(options, hnsw):
            raise CommandError(f"{problem}; see rag_index --help", returncode=2)
        message = (
            f"interrupted; run rag_index {action} again, it removes what may be left of an index"
        )
        progress = self.progress(on_stderr=options["json"])
        with (
            locks.try_advisory_lock(
                connection, locks.MIGRATE_LOCK, patience_s=LOCK_PATIENCE_S
            ) as acquired,
            cancel_on_signal(raise_keyboard_interrupt, message=message),
            report_waits(connection, progress.write),
        ):
            if not acquired:
                raise CommandError(BUSY)
            audit.record_command(f"rag_index {action}")
            reports = [
                work(index, action, hnsw, progress)
                for index in index_state.read_states(options["table"])
            ]
        if options["json"]:
            self.write_json({"indexes": reports})


def find_problem(options: dict[str, Any], hnsw: HnswOptions) -> str | None:
    """What is wrong with the arguments; pgvector itself would refuse the second only later."""
    if (options["action"] == "rebuild") == (options["what"] is not None):
        return "say rebuild, drop hnsw, or create hnsw"
    if hnsw.ef_construction < 2 * hnsw.m:
        return f"--ef-construction must be at least twice --m: {2 * hnsw.m} or more"
    return None


def work(index: IndexState, action: str, hnsw: HnswOptions, progress: Progress) -> dict[str, Any]:
    """Do the action on one index and report it. Raises CommandError if someone else builds one."""
    if read_build(index.table.table):
        raise CommandError(
            f"an index of {index.table.table} is being built: let it finish, or stop it first"
        )
    started_s = time.monotonic()
    if action == "drop":
        rebuild.drop(index)
        outcome = " is dropped" if index.valid is not None else " did not exist"
    elif action == "create" and index.valid:
        outcome = " exists and is valid; rag_index rebuild builds it again"
    else:
        announce(index, hnsw, progress.write)
        with show_build(index, progress):
            BUILDS[action](index, hnsw)
        outcome = ""
    seconds, after = time.monotonic() - started_s, index_state.read_state(index.table, index.name)
    size, reloptions = f"{after.size_bytes / 1e6:,.1f} MB", ", ".join(after.reloptions)
    progress.write(index.name + (outcome or f": built in {seconds:,.1f} s, {size}, {reloptions}"))
    return as_json(after, seconds)


@contextmanager
def show_build(index: IndexState, progress: Progress) -> Iterator[None]:
    """Show the progress of the build that runs inside; a line at once for each new phase."""
    phase, rows = "", 0

    def show(build: Build) -> None:
        nonlocal phase, rows
        line = f"{index.name}: {build}"
        if build.phase == LOADING and index.rows:
            rows = build.rows
            percent = min(100 * rows / index.rows, 100)
            line += f", {rows:,}/{index.rows:,} rows ({percent:.1f}%)"
        progress.update(
            index.name,
            rows,
            index.rows,
            unit="rows",
            note=str(build),
            line=line,
            at_once=build.phase != phase,
        )
        phase = build.phase

    def on_error() -> None:
        progress.write(f"{index.name}: its progress cannot be read; the build goes on")

    with progress, follow_build(index.table.table, show, on_error=on_error):
        yield


def as_json(index: IndexState, seconds: float) -> dict[str, Any]:
    return {
        "name": index.name,
        "table": index.table.table,
        "rows": index.rows,
        "size_bytes": index.size_bytes,
        "valid": bool(index.valid),
        "seconds": round(seconds, 2),
    }


def announce(index: IndexState, hnsw: HnswOptions, write: Callable[[str], object]) -> None:
    """Say what the build needs before it starts."""
    present = (
        f"besides the present {index.size_bytes / 1e6:,.0f} MB until it is done, "
        if index.size_bytes
        else ""
    )
    write(
        f"{index.name}: {index.rows:,} rows; about {index.disk_bytes / 1e6:,.0f} MB of disk, "
        f"{present}and as much of WAL. What is free cannot be seen from here: look on the server"
    )
    graph_bytes = index.graph_bytes(hnsw)
    if options := index_state.missing_memory(graph_bytes):
        write(
            f"{index.name}: the graph takes about {graph_bytes / 1e6:,.0f} MB,"
            f" maintenance_work_mem is {index_state.maintenance_work_mem() / 1e6:,.0f} MB;"
            f" faster, if the server has the memory: {options}"
        )
