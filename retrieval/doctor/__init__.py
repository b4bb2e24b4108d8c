"""The checks of ``rag_doctor``. Chat and site have theirs in their own modules ``doctor_checks``.

A check is a function without arguments that returns a Finding, listed in its module's CHECKS. It
changes nothing and waits for no lock longer than a second: docs/decisions/0012-doctor.md.
"""
