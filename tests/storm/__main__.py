"""Thirty users talk to real servers while everything around them fails; then it is checked
that each user's data is what was acknowledged to that user.

    make storm SEED=7 MINUTES=10          python -m tests.storm --seed 7 --minutes 10

Runs a PostgreSQL of its own, two web servers, an embedding worker, and two services that misbehave:
a language model and an embedding service. With an odd seed the servers reach PostgreSQL through
PgBouncer, if it is installed. With the right to mount a file system, PostgreSQL's disk is a small
one, which the storm fills; with a C compiler it moves clocks.

The seed decides everything: what each user does (script.py), and which fault comes when
(schedule.py). How fast the machine is decides how far the scripts get, and what a fault meets: a
seed that has failed is worth several runs.

Only an acknowledged request counts: one that was not answered may have happened or not
(expectations.py). Checked, in part meanwhile and in full at the end:

  message stored once, in order, as acknowledged     only own texts, in prompts too
  forgotten stays forgotten: recall, answers, export         switched off is hidden
  no answer streams for ever                         everything is embedded, by its own text
  answers and embeddings paid once                   no content, key or bug in a log

Exit code 1: a rule was violated. The first line of the output says how to repeat the run.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.storm.client import Client
from tests.storm.expectations import Diary
from tests.storm.faults import Storm
from tests.storm.findings import Findings
from tests.storm.person import Person
from tests.storm.schedule import machine_faults, service_faults
from tests.storm.script import script
from tests.storm.services import Site, running_site
from tests.storm.verify_person import settle, verify
from tests.storm.verify_site import STREAMING, verify_site
from tests.support import PATIENCE_S, wait_for

SHOWN = 40  # violations
# Of servers and workers, if a rule was violated.
LOGS = Path(tempfile.gettempdir()) / "verse-storm.log"
SETTLE_ROUNDS = 2 * PATIENCE_S


def main() -> int:
    options = parse()
    command = f"make storm SEED={options.seed} MINUTES={options.minutes:g} PEOPLE={options.people}"
    print(f"Repeat it: {command}", flush=True)
    findings = Findings()
    with running_site(options.people, findings, has_pooler=options.seed % 2 == 1) as site:
        asyncio.run(run(site, findings, options))
        if findings.violations:
            LOGS.write_text("\n".join(site.logs()))
    report(findings, command)
    return int(bool(findings.violations))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.storm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="default: any")
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults (default: 2)")
    parser.add_argument("--people", type=int, default=30, help="users, 99 at most (default: 30)")
    return parser.parse_args()


async def run(site: Site, findings: Findings, options: argparse.Namespace) -> None:
    """The storm, then the checks."""
    addresses = [web.address for web in site.webs]
    people = [
        Person(Client(user, token, addresses, findings), Diary(options.seed, user), findings)
        for user, token in enumerate(site.tokens)
    ]
    storm, ended = Storm(site, findings), asyncio.Event()
    # A process that a thread has started may be ended with the thread: they live to the end.
    with ThreadPoolExecutor(2, "storm") as threads:
        try:
            print(f"{len(people)} users talk for {options.minutes:g} minutes", flush=True)
            with raging(storm, threads, options.seed):
                lives = [
                    asyncio.create_task(person.live(script(options.seed, number), ended))
                    for number, person in enumerate(people)
                ]
                await asyncio.wait(lives, timeout=60 * options.minutes)
                ended.set()
                await asyncio.to_thread(storm.ended.set)
                await asyncio.gather(*lives)
            print("The faults are over; checking", flush=True)
            await check(site, storm, people)
        finally:
            await asyncio.gather(*(person.client.close() for person in people))


@contextmanager
def raging(storm: Storm, threads: ThreadPoolExecutor, seed: int) -> Iterator[None]:
    """Faults happen during the block; after it all is well again."""
    lists = (machine_faults(seed), service_faults(seed))
    running = [threads.submit(storm.rage, faults) for faults in lists]
    try:
        yield
    finally:
        storm.ended.set()
        for lane in running:
            lane.result()


async def check(site: Site, storm: Storm, people: list[Person]) -> None:
    """Wait until the servers have settled, then check every rule."""
    with suppress(TimeoutError):  # verify says which
        await asyncio.to_thread(wait_for, lambda: not site.database.run(STREAMING)[0][0])
    if storm.findings.counts["fault fill_disk"]:
        await asyncio.to_thread(fill_words, site)
    await asyncio.gather(*(settle(person, rounds=SETTLE_ROUNDS) for person in people))
    for person in people:
        await verify(person)
    diaries = [person.diary for person in people]
    await asyncio.to_thread(verify_site, site, storm, diaries, storm.findings)


def fill_words(site: Site) -> None:
    """What an operator does after the disk was full: its messages may have no row in memory."""
    site.run("manage.py", "backfill_embeddings", EMBEDDINGS="none")


def report(findings: Findings, command: str) -> None:
    """The counts, the violations, and how to repeat the run."""
    for name, count in sorted(findings.counts.items()):
        print(f"{name:40} {count}")
    for violation in list(dict.fromkeys(findings.violations))[:SHOWN]:
        print(f"VIOLATED {violation}", file=sys.stderr)
    if findings.violations:
        print(f"{len(findings.violations)} violations; the logs: {LOGS}", file=sys.stderr)
        print(f"Repeat it: {command}", file=sys.stderr)
    else:
        print("All rules hold.")


if __name__ == "__main__":
    sys.exit(main())
