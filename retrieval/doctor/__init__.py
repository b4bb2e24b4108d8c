"""What ``rag_doctor`` looks at; the checks of chat and of the site are in their own modules ``doctor``.

Each check is a function without arguments that returns a Finding; each file lists its own by name. Nothing is
changed and nobody is waited for longer than a second: docs/decisions/0012-doctor.md.
"""

from retrieval.doctor import extension, indexes, messages, recall, schema, server, spending, traps, wayback
from retrieval.doctor.report import Check


def checks() -> list[Check]:
    """All of them, nothing measured yet."""
    listed = (extension, schema, indexes, messages, spending, server, wayback, traps)
    return [check for module in listed for check in module.CHECKS] + recall.checks()
