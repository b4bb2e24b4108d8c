"""Measure recall on the database as it is, and keep the figures."""

from typing import Any

from django.core.management.base import CommandError

from retrieval import db
from retrieval.doctor.check_recall import AT, LEAST_RECALL, Measurement
from retrieval.management.operator_command import OperatorCommand

HELP = """\
Measure recall on users drawn from the database: which share of the five nearest messages, by an exact search, it
finds, and how long it takes. The figures are kept in the table recall_measurements. For a schedule, once a day:

  17 4 * * *  cd /srv/verse && .venv/bin/python manage.py measure_recall

Reads only, for ten seconds at the most; no call is made. Exit code 0, also where it warns; rag_doctor tells what
to do."""
KEEP = """
    INSERT INTO recall_measurements (questions, users, recall, p50_ms, p95_ms)
    VALUES (%(questions)s, %(users)s, %(recall)s, %(p50_ms)s, %(p95_ms)s)
"""


class Command(OperatorCommand):
    """Measure, keep, say."""

    help = HELP

    def run(self, **options: Any) -> None:
        """CommandError: nothing is embedded yet."""
        results = Measurement().results
        if not results.shares:
            raise CommandError(
                "no user has embedded messages to measure on: run backfill_embeddings first"
            )
        found = {
            "questions": len(results.shares),
            "users": len(results.users),
            "recall": round(results.recall, 4),
            "p50_ms": round(results.quantile_ms(0.5), 2),
            "p95_ms": round(results.quantile_ms(0.95), 2),
        }
        db.execute(KEEP, found)
        if options["json"]:
            self.write_json(found)
        else:
            self.stdout.write(
                f"recall@{AT} {found['recall']:.3f} over {found['questions']} questions of {found['users']} users, "
                f"p50 {found['p50_ms']:.0f} ms, p95 {found['p95_ms']:.0f} ms"
            )
        if results.recall < LEAST_RECALL:
            self.stderr.write(
                f"WARNING: recall is below {LEAST_RECALL}: rag_doctor says what to do"
            )
