"""The names of the checklist and of the traps on which no statement can give a verdict."""

from collections.abc import Callable

from retrieval.doctor.criteria import CHECKLIST, TRAPS
from retrieval.doctor.report import Check, Finding, information, skipped

# What the operator has to look at, with a command that helps.
BY_HAND = {
    "checklist.10": "pg_dump -Fc --file=verse.dump service=verse\ncreatedb verse_restored\n"
    "pg_restore --no-owner --dbname=verse_restored verse.dump",
    "trap.16": "PGPASSFILE=~/.pgpass pg_dump -Fc --file=verse.dump service=verse",
    "trap.20": "",
    "trap.24": "kubectl apply -f deploy/kubernetes/jobs/backfill.yaml",
}
# What there is to know; nothing to look at.
INFO = {
    "trap.2": "",
    "trap.15": "python manage.py rag_cost_estimate --exact",
    "trap.22": "",
}


def _line(report: Callable[[str, str], Finding], text: str, fix: str) -> Callable[[], Finding]:
    return lambda: report(text, fix)


def _by_hand(text: str, fix: str) -> Finding:
    return skipped(f"by hand: {text}", fix)


CHECKS = [
    Check(name, _line(report, text, lines[name]), subject=subject)
    for lines, report, subject in (
        (BY_HAND, _by_hand, "nothing: to be looked at by hand"),
        (INFO, information, "nothing: information"),
    )
    for name, text in (CHECKLIST | TRAPS).items()
    if name in lines
]
