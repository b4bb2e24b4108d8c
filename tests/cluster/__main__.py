"""Runs Verse as on several machines, kills each part in turn, and counts what clients see of it.

    make cluster             python -m tests.cluster [--rate 20] [--only primary ...] [--json]

Starts two servers, two workers (EMBED_QUEUE=procrastinate), PgBouncer, a primary with a replica,
and HAProxy, all real programs on this machine; only the model's server is a fake. First the checks
of the API run through the balancer. Then users send requests, while each part is killed (or
restarted, reloaded, replaced) and comes back. It takes about four minutes.
Needs: apt-get install haproxy pgbouncer
Exit code 1: a check failed, an acknowledged turn is lost, a text was paid for again without a
cause, or a request failed that the outage does not explain.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from tests.cluster.exercise import Result, check_api, exercise, p95, started
from tests.cluster.outages import Outage, all_outages

COLUMNS = "{:26} {:>8} {:>6} {:>7} {:>9}  {}"


def main() -> None:
    """Run, print the table, and exit with 1 if a promise was broken."""
    options = parse()
    with started(options.users) as site:
        failed = 0
        for name, failure in check_api(site):
            failed += bool(failure)
            progress(f"{'FAILED' if failure else 'ok':6} {name} {failure}")
        outages = chosen(all_outages(site.cluster), options.only)
        result = exercise(
            site,
            outages,
            users=options.users,
            rate=options.rate,
            away_s=options.away,
            between_s=options.between,
            say=progress,
        )
        if options.logs:
            site.cluster.write_logs(options.logs)
    if options.json:
        print(json.dumps({"failed_checks": failed} | result.as_json()))
    else:
        print("\n".join(table(result, outages)))
    sys.exit(0 if result.is_good and not failed else 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", type=float, default=20, help="requests a second (20)")
    parser.add_argument("--users", type=int, default=20, help="who send them (20)")
    parser.add_argument("--away", type=float, default=4, help="seconds that a part is away (4)")
    parser.add_argument(
        "--between", type=float, default=8, help="seconds from its return to the next (8)"
    )
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="WORD", help="only outages with one of these words"
    )
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="write the parts' logs there")
    parser.add_argument("--json", action="store_true", help="print one object")
    return parser.parse_args()


def chosen(outages: list[Outage], words: list[str]) -> list[Outage]:
    """Those with one of the words in their names; all without words."""
    return [outage for outage in outages if not words or any(w in outage.name for w in words)]


def progress(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def table(result: Result, outages: list[Outage]) -> list[str]:
    """The lines to print."""
    reasons = {outage.name: outage.reasons for outage in outages}
    lines = [COLUMNS.format("", "requests", "failed", "p95 s", "longest s", "failed because")]
    for line in result.lines:
        failed, causes = line.failed.total(), reasons.get(line.name, {})
        first, *more = [
            f"{count} × {reason}: {causes.get(reason, 'UNEXPLAINED')}"
            for reason, count in line.failed.most_common()
        ] or [""]
        numbers = (line.attempts, failed, p95(line.seconds), f"{line.longest_s:.1f}")
        lines.append(COLUMNS.format(line.name, *numbers, first).rstrip())
        lines += [" " * 62 + text for text in more]
    again = ", ".join(f"{count} by '{name}'" for name, count in result.bought.again.items())
    return [
        *lines,
        "",
        f"{result.acknowledged} acknowledged turns, {len(result.lost)} lost {result.lost[:5]}",
        f"{result.bought.texts} texts embedded in {result.bought.calls} calls",
        f"paid for again without a cause: {len(result.bought.unexplained)}",
        f"paid for again since they were in a call at the outage: {again or 'none'}",
        f"failures without a known cause: {len(result.strange)} {result.strange[:5]}",
        f"requests left out since all users waited: {result.late}",
    ]


if __name__ == "__main__":
    main()
