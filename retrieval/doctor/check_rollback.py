"""Migrations: all applied, all known to this version, all with a way back."""

from django.apps import apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from retrieval.doctor.examine import MIGRATE
from retrieval.doctor.report import Check, Finding, failed, passed, warning
from retrieval.models import Embedded

NAMED = 5  # migrations, in a finding


def labels() -> set[str]:
    """The apps that have messages: memory is made by their migrations."""
    return {model._meta.app_label for model in apps.get_models() if issubclass(model, Embedded)}


def all_applied() -> Finding:
    """checklist.7, trap.19. The server serves an older schema too; memory is off there."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        names = ", ".join(f"{one.app_label}.{one.name}" for one, _ in plan[-NAMED:])
        return warning(
            f"{len(plan)} migrations are not applied: {'..., ' * (len(plan) > NAMED)}{names}",
            MIGRATE,
        )
    return passed("every migration is applied")


def is_reversible() -> Finding:
    """criterion.7."""
    if (unknown := knows_them_all()).status != "PASS":
        return unknown
    loader = MigrationLoader(connection)
    closed = [
        name
        for (label, name), migration in loader.disk_migrations.items()
        if label in labels()
        and name[:4] != "0001"
        and not all(one.reversible for one in migration.operations)
    ]
    if closed:
        return failed(
            f"no way back from {', '.join(closed)}",
            "give each of its operations a reverse before it is applied",
        )
    ways = [
        f"migrate {label} {name}"
        for label, name in sorted(loader.disk_migrations)
        if label in labels() and name[:4] == "0001"
    ]
    return passed(
        f"{', '.join(ways)} undoes them all; so far, RAG_ENABLED=false or no OPENAI_API_KEY turns memory off"
    )


def knows_them_all() -> Finding:
    """trap.17: migrations that a later version has applied can be undone only by it."""
    loader = MigrationLoader(connection)
    unknown = sorted(
        key
        for key in loader.applied_migrations
        if key[0] in labels() and key not in loader.disk_migrations
    )
    if not unknown:
        return passed("this version knows every migration that is applied, and so what to undo")
    label = unknown[0][0]
    last = max(name for key, name in loader.disk_migrations if key == label)
    names = ", ".join(name for _, name in unknown)
    return failed(
        f"a later version has applied {names}: run the way back from that version",
        f"python manage.py migrate {label} {last}",
    )


CHECKS = [
    Check("criterion.7", is_reversible),
    Check("checklist.7", all_applied),
    Check("trap.17", knows_them_all),
    Check("trap.19", all_applied),
]
