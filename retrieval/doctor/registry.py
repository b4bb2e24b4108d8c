"""Every check there is, in the order of the report."""

from importlib import import_module
from pkgutil import iter_modules

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from retrieval import doctor
from retrieval.doctor import advice
from retrieval.doctor.report import Check

GROUPS = ("criterion", "checklist", "trap")


def all_checks() -> list[Check]:
    """Those of this package's modules ``check_*`` and of each app's module ``doctor_checks``."""
    names = [f"{doctor.__name__}.{module.name}" for module in iter_modules(doctor.__path__)]
    names = [name for name in names if ".check_" in name]
    for app in apps.get_app_configs():
        if app.module and module_has_submodule(app.module, "doctor_checks"):
            names.append(f"{app.name}.doctor_checks")
    listed = [check for name in names for check in import_module(name).checks()]
    return sorted([*advice.checks(), *listed], key=_position)


def _position(check: Check) -> tuple[int, str, int]:
    """Criteria, checklist and traps by their numbers, then the others by name."""
    group, _, number = check.name.partition(".")
    if group in GROUPS:
        return GROUPS.index(group), group, int(number)
    return len(GROUPS), check.name, 0
