"""Migrations: applied, known to this version, reversible."""

from django.apps import apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from retrieval.doctor.fixes import MIGRATE
from retrieval.doctor.report import Check, Finding, Status, failed, passed, warning
from retrieval.models import Embedded

MAX_NAMES = 5  # migrations named in a finding
FIRST = "0001"  # the chat without memory


def memory_apps() -> set[str]:
    """The labels of the apps whose migrations add memory: those with message tables."""
    return {model._meta.app_label for model in apps.get_models() if issubclass(model, Embedded)}


def migrations_are_applied() -> Finding:
    """Migrations of this version that are not applied. Servers run on an older schema too."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        return passed("every migration is applied")
    names = [f"{migration.app_label}.{migration.name}" for migration, _ in plan[-MAX_NAMES:]]
    if len(plan) > MAX_NAMES:
        names = ["...", *names]
    return warning(f"{len(plan)} migrations are not applied: {', '.join(names)}", MIGRATE)


def migrations_are_reversible() -> Finding:
    """Every operation of the apps' migrations after the first one, and what trap.17 looks at."""
    known = migrations_are_known()
    if known.status is not Status.PASS:
        return known
    labels, migrations = memory_apps(), MigrationLoader(connection).disk_migrations
    irreversible = [
        name
        for (label, name), migration in migrations.items()
        if label in labels
        and not name.startswith(FIRST)
        and not all(operation.reversible for operation in migration.operations)
    ]
    if irreversible:
        return failed(
            f"{', '.join(irreversible)} cannot be undone",
            "give each of its operations a reverse before it is applied",
        )
    targets = sorted(key for key in migrations if key[0] in labels and key[1].startswith(FIRST))
    commands = ", ".join(f"migrate {label} {name}" for label, name in targets)
    return passed(f"{commands} removes memory; RAG_ENABLED=false or no OPENAI_API_KEY turns it off")


def migrations_are_known() -> Finding:
    """Applied migrations that this version does not have: only a later version can undo them."""
    loader, labels = MigrationLoader(connection), memory_apps()
    unknown = sorted(
        key
        for key in loader.applied_migrations
        if key[0] in labels and key not in loader.disk_migrations
    )
    if not unknown:
        return passed("this version knows every applied migration, and so can undo it")
    label = unknown[0][0]
    last = max(name for key, name in loader.disk_migrations if key == label)
    names = ", ".join(name for _, name in unknown)
    return failed(
        f"a later version has applied {names}: undo it from that version",
        f"{MIGRATE} {label} {last}",
    )


def checks() -> list[Check]:
    return [
        Check("trap.17", migrations_are_known),
        Check("trap.19", migrations_are_applied),
    ]
