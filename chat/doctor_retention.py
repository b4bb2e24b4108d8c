"""The doctor's check of RETENTION_DAYS: whether servers delete what has expired."""

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from chat.models import RetentionState
from chat.retention import sweep
from retrieval.doctor.report import Finding, passed, skipped, warning

LATE = timedelta(hours=3)  # a sweep is due once an hour
DRY_RUN = "python manage.py expire_conversations --dry-run"


def retention_runs() -> Finding:
    """WARN if conversations should expire and no server looks for them."""
    days = settings.RETENTION_DAYS
    if days is None:
        return passed("RETENTION_DAYS is not set: conversations are kept for ever")
    if not sweep.has_table():
        return skipped(
            "chat 0018_retention is not applied, or this role has no rights on its tables",
            "python manage.py showmigrations chat",
        )
    state = RetentionState.objects.first()
    if state is None:
        return warning(
            f"RETENTION_DAYS is {days}, but servers delete nothing before a first run by hand",
            DRY_RUN,
        )
    seen = state.swept_at or state.begun_at
    if timezone.now() - seen > LATE:
        return warning(
            f"no server has looked for expired conversations since {seen:%Y-%m-%d %H:%M} UTC: "
            "the servers do not have this setting, or none runs",
            f"RETENTION_DAYS={days}",
        )
    return passed(f"conversations expire after {days} days, looked for at {seen:%H:%M} UTC")
