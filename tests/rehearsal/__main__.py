"""Rehearses the rollout: adds memory to a live chat and removes it, while old and new code serve.

    make rehearse            python -m tests.rehearsal [--rows 20000] [--rate 20] [--seconds 10]

The old code is the parent of the commit that added the chat's second migration, run from a git
worktree; the new code is this folder. Both serve the same database at migration 0001 behind one
port. Writers and readers send requests through it, with memory on. Transactions stay open for 3 s,
and REPEATABLE READ snapshots for 30 s. Meanwhile the steps of docs/deployment.md are done: migrate,
backfill with the default pauses, build and rebuild indexes, change the embedding model and change
it back, migrate back to 0001.
Exit code 1: a request failed, a row was lost, or a request waited longer than half a second.
"""

import argparse
import asyncio
import json
import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from fake_openai import Answer, FakeOpenAI
from tests.rehearsal.stage import balancer, old_code, scratch_database, servers
from tests.rehearsal.steps import rehearse
from tests.rehearsal.traffic import Traffic

MAX_WAIT_MS = 500  # docs/promises.md, Zero downtime


def main() -> None:
    """Rehearse, print the results, and exit with 1 if a promise was broken."""
    options = parse()
    with old_code() as folder, scratch_database(options.rows) as database, FakeOpenAI() as model:
        model.chat.default = Answer("I see, and I shall remember the bread.")
        options.model = model.base_url
        with (
            servers(folder, database, model.base_url) as (old, new),
            balancer([old.port, new.port]) as port,
        ):
            traffic, durations = asyncio.run(rehearse(port, database, new, options))
    report(traffic, durations, options)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, default=20_000, help="messages in each table at the start"
    )
    parser.add_argument("--rate", type=int, default=20, help="requests a second")
    parser.add_argument(
        "--seconds", type=float, default=10, help="of traffic before, between and after the steps"
    )
    parser.add_argument("--json", action="store_true", help="print one object")
    return parser.parse_args()


def report(traffic: Traffic, durations: list[str], options: argparse.Namespace) -> None:
    """Print the results, and exit with 1 if a promise was broken."""
    lost = [failure for failure in traffic.failures if failure.startswith("lost")]
    results = {
        "rows_a_table": options.rows,
        "requests": traffic.requests,
        "messages_written": len(traffic.written),
        "failed": len(traffic.failures) - len(lost),
        "lost": len(lost),
        "longest_request_ms": round(traffic.longest_ms),
        "longest_request_ms_by_phase": {
            name: round(value) for name, value in traffic.by_phase.items()
        },
        "longest_lock_wait_ms": round(traffic.longest_lock_ms),
        "a_table_was_in_use": len(traffic.waits),
    }
    for line in (*durations, *traffic.waits, *traffic.failures[:10]):
        print(f"  {line}", file=sys.stderr)
    if options.json:
        print(json.dumps(results))
    else:
        print("\n".join(f"{name.replace('_', ' '):32} {value}" for name, value in results.items()))
    calm = traffic.longest_lock_ms <= MAX_WAIT_MS and traffic.longest_ms <= MAX_WAIT_MS
    sys.exit(0 if calm and not traffic.failures else 1)


if __name__ == "__main__":
    main()
