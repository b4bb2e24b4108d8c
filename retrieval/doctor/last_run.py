"""The last run of the doctor from the admin's page, in the database: every process can show it.

On a schema from before chat 0013_doctor_run nothing is kept.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from django.db import ProgrammingError, transaction
from django.utils import timezone
from psycopg import errors

from retrieval.doctor.report import Check, Finding
from retrieval.models import DoctorRun

COLUMNS = ("at", "who", "findings")


def keep(findings: Iterable[tuple[Check, Finding]], *, who: str) -> DoctorRun:
    """Run the checks, and keep what they say in place of the run before. One statement at the end.

    Locks: the row.
    """
    checks = [{"name": check.name, **asdict(finding)} for check, finding in findings]
    run = DoctorRun(at=timezone.now(), who=who, findings=checks)
    with _table_may_be_missing():
        DoctorRun.objects.bulk_create(
            [run], update_conflicts=True, unique_fields=["id"], update_fields=COLUMNS
        )
    return run


def last() -> DoctorRun | None:
    """None before the first run. One statement."""
    runs: list[DoctorRun] = []
    with _table_may_be_missing():
        runs += DoctorRun.objects.all()[:1]
    return runs[0] if runs else None


@contextmanager
def _table_may_be_missing() -> Iterator[None]:
    try:
        with transaction.atomic():
            yield
    except ProgrammingError as error:
        if not isinstance(error.__cause__, errors.UndefinedTable):
            raise
