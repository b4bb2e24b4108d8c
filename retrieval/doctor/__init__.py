"""What ``rag_doctor`` looks at; the checks of chat and of the site are in their own modules ``doctor``.

Each check is a function without arguments that returns a Finding; each file lists its own by name. Nothing is
changed and nobody is waited for longer than a second: docs/decisions/0012-doctor.md.
"""

from retrieval.doctor import (
    check_extension,
    check_indexes,
    check_messages,
    check_recall,
    check_rollback,
    check_schema,
    check_server,
    check_spending,
    traps,
)
from retrieval.doctor.report import Check


def checks() -> list[Check]:
    """All of them, nothing measured yet."""
    listed = (
        check_extension,
        check_schema,
        check_indexes,
        check_messages,
        check_spending,
        check_server,
        check_rollback,
        traps,
    )
    return [check for module in listed for check in module.CHECKS] + check_recall.checks()
