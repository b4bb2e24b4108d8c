"""The page of ``rag_doctor --report``: what runs in production, as Markdown with places to fill in.

It holds no key, password, user or message: details of checks show at most the end of a key.
"""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import connection
from django.utils import timezone

from retrieval.doctor.database import setting
from retrieval.doctor.report import Check, Finding

# What only the operator knows.
TO_FILL_IN = (
    "Address of the service",
    "Who is on call, and how to reach them",
    "Where the logs are",
    "Where the settings and keys are kept",
    "When backups are made, and where they are kept",
    "When a backup was last restored, and how long it took",
    "The provider's spending limit and its alert",
    "Where rag_doctor runs by cron, and whom it alerts",
)


def markdown(results: Sequence[tuple[Check, Finding]]) -> list[str]:
    """The page's lines. One query."""
    rows = [(check.name, finding.status, finding.detail) for check, finding in results]
    return [
        f"# Verse in production, {timezone.now():%Y-%m-%d %H:%M} UTC",
        *_table(("what", "value"), [*_details().items()]),
        *_table(("to fill in", "value"), [(name, "") for name in TO_FILL_IN]),
        *_table(("check", "result", "detail"), rows),
    ]


def _details() -> dict[str, Any]:
    database = connection.settings_dict
    return {
        "Verse": settings.VERSION,
        "PostgreSQL": setting("server_version"),
        "Database": database["NAME"],
        "Database host": database.get("HOST") or "this machine",
        "Workers of a server": settings.WEB_CONCURRENCY,
        "Connections of a worker": settings.DATABASE_POOL_SIZE,
        "Embeddings": f"{settings.EMBEDDINGS}, {settings.EMBEDDING_MODEL}",
        "Language model": f"{settings.LLM}, {settings.LLM_MODEL}",
        "Recall": "on" if settings.RAG_ENABLED else "off",
        "Budget in US dollars a month": settings.EMBEDDING_BUDGET_USD or "none",
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["", *(f"| {' | '.join(map(_cell, row))} |" for row in cells)]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
