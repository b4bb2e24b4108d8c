"""Measure recall on users drawn at random, and store the figures.

Recall is the share of a question's five nearest messages, by an exact search, that it returns. The
figures, times included, are stored in the table recall_measurements. For a schedule, once a day:

  17 4 * * *  cd /srv/verse && .venv/bin/python manage.py measure_recall

It searches for ten seconds at most and makes no call to the embedding service.
Locks: none but the new row.
Exit code: 0, also if recall is so low that it warns (rag_doctor says what to do); 1 failed, or
nothing is embedded yet.
"""

from typing import Any

from django.core.management.base import CommandError

from retrieval import db
from retrieval.doctor.check_recall import MIN_RECALL, TOP, Measurement
from retrieval.management.operator_command import OperatorCommand
from retrieval.models import RecallMeasurement


class Command(OperatorCommand):
    def run(self, **options: Any) -> None:
        """Raises CommandError if nothing is embedded yet."""
        results = Measurement().results
        if not results.shares:
            raise CommandError(
                "no user has embedded messages to measure on: run backfill_embeddings first"
            )
        figures = {
            "questions": len(results.shares),
            "users": len(results.users),
            "recall": round(results.recall_at_5, 4),
            "p50_ms": round(results.quantile_ms(0.5), 2),
            "p95_ms": round(results.quantile_ms(0.95), 2),
        }
        with db.require_memory():
            RecallMeasurement.objects.create(**figures)
        self.report(
            options,
            figures,
            f"recall@{TOP} {figures['recall']:.3f} over {figures['questions']} questions"
            f" of {figures['users']} users,"
            f" p50 {figures['p50_ms']:.0f} ms, p95 {figures['p95_ms']:.0f} ms",
        )
        if results.recall_at_5 < MIN_RECALL:
            self.stderr.write(f"WARNING: recall is below {MIN_RECALL}: rag_doctor says what to do")
