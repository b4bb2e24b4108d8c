"""Every check there is, in the order of the report."""

from importlib import import_module

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from retrieval.doctor import (
    advice,
    check_columns,
    check_extension,
    check_indexes,
    check_locks,
    check_memory_rows,
    check_migrations,
    check_pending,
    check_recall,
    check_rights,
    check_schema,
    check_sequences,
    check_server,
    check_spending,
    check_vectors,
)
from retrieval.doctor.report import Check

MODULES = (
    advice,
    check_columns,
    check_extension,
    check_indexes,
    check_locks,
    check_memory_rows,
    check_migrations,
    check_pending,
    check_rights,
    check_schema,
    check_sequences,
    check_server,
    check_spending,
    check_vectors,
)
GROUPS = ("criterion", "checklist", "trap")


def all_checks() -> list[Check]:
    """Memory's checks, and those of each installed app's module ``doctor_checks``."""
    listed = [check for module in MODULES for check in module.CHECKS] + check_recall.checks()
    for app in apps.get_app_configs():
        if app.module and module_has_submodule(app.module, "doctor_checks"):
            listed += import_module(f"{app.name}.doctor_checks").CHECKS
    return sorted(listed, key=_position)


def _position(check: Check) -> tuple[int, str, int]:
    """Criteria, checklist and traps by their numbers, then the others by name."""
    group, _, number = check.name.partition(".")
    if group in GROUPS:
        return GROUPS.index(group), group, int(number)
    return len(GROUPS), check.name, 0
