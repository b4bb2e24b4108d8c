"""The extension vector: there, new enough, loaded as it should be."""

from django.db import connection

from retrieval.doctor.expected import vector_indexes
from retrieval.doctor.queries import rows, setting, value
from retrieval.doctor.report import Check, Finding, failed, passed, skipped, warning
from retrieval.schema import extension

SOUND = (
    0,
    8,
    4,
)  # fixed up to it: a buffer overflow, index corruption, insert errors; contract, "Versions"
ENABLE = "python manage.py enable_vector"
INSTALLED = """
    SELECT extversion, (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'vector')
    FROM pg_catalog.pg_extension WHERE extname = 'vector'
"""
PRELOADED = """
    SELECT setting FROM pg_catalog.pg_settings WHERE name = 'shared_preload_libraries'
    UNION SELECT setting FROM pg_catalog.pg_file_settings WHERE name = 'shared_preload_libraries'
"""
AVAILABLE = """
    SELECT superuser AND NOT trusted FROM pg_catalog.pg_available_extension_versions WHERE name = 'vector' LIMIT 1
"""


def is_made() -> Finding:
    """In any schema: Verse names it with each type and operator."""
    version = extension.check(connection)
    return passed(f"pgvector {version} in the schema {extension.schema(connection)}")


def is_sound() -> Finding:
    """Not older than SOUND, nor than what the server has."""
    found = rows(INSTALLED)
    if not found:
        return failed(extension.MISSING, ENABLE)
    version, installed = found[0]
    newest = max(_parts(version), _parts(installed or version))
    if newest < SOUND:
        return warning(
            f"pgvector {version} has faults that 0.8.4 mended; the server has no later one: install it there first",
            _update(),
        )
    if _parts(version) < newest:
        return warning(f"pgvector {version} in this database, {installed} on the server", _update())
    return passed(f"pgvector {version}, the server's own")


def _update() -> str:
    """Indexes too: an older version may have written them wrongly."""
    rebuilt = [f"REINDEX INDEX CONCURRENTLY {index.name};" for _, index in vector_indexes()]
    return "\n".join(["ALTER EXTENSION vector UPDATE;", *rebuilt])


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def is_not_preloaded() -> Finding:
    """trap.6. Read in the server's files too, where this role may: there it stands before the next start."""
    if not value("SELECT pg_catalog.pg_has_role(current_user, 'pg_read_all_settings', 'MEMBER')"):
        return skipped(
            "this role may not read shared_preload_libraries: ask as a superuser",
            "SHOW shared_preload_libraries;",
        )
    may_read_files = value(
        "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE')"
    )
    for (named,) in rows(PRELOADED if may_read_files else PRELOADED.split("UNION")[0]):
        libraries = [one.strip() for one in named.split(",") if one.strip()]
        if "vector" in libraries or "pgvector" in libraries:
            others = ", ".join(one for one in libraries if one not in ("vector", "pgvector"))
            fix = f"ALTER SYSTEM SET shared_preload_libraries = {others};" if others else ""
            return warning(
                f"shared_preload_libraries = '{named}': pgvector needs no such entry, and a name that the server "
                "does not find keeps it from starting",
                fix or "ALTER SYSTEM RESET shared_preload_libraries;",
            )
    return passed("shared_preload_libraries does not name it; the extension is called vector")


def may_be_made() -> Finding:
    """trap.7. A role that may make it is needed once only."""
    untrusted = rows(AVAILABLE)
    if not untrusted:
        return skipped("the server does not tell what extensions it has")
    made = bool(rows(INSTALLED))
    if not made:
        return failed(
            "the extension is missing, and a grant on the database does not allow to make it",
            ENABLE,
        )
    who = "only a superuser could make it" if untrusted[0][0] else "it is trusted here"
    return passed(f"made already; {who}, a grant on the database would not do")


def is_listed_by_azure() -> Finding:
    """trap.21."""
    listed = setting("azure.extensions")
    if listed is None:
        return skipped("not a server of Azure's; link to what vendors say, with a date")
    if "vector" in [one.strip().lower() for one in listed.split(",")]:
        return passed("azure.extensions lists vector")
    return failed(
        "azure.extensions does not list vector: CREATE EXTENSION is refused",
        "az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER "
        f"--name azure.extensions --value {','.join(filter(None, [listed, 'vector']))}",
    )


def speaks_its_words() -> Finding:
    """trap.23: which of PostgreSQL's three words would be met here."""
    if rows(INSTALLED):
        return passed(
            f"none of the three is met: the type is {extension.schema(connection)}.vector; no restart needed"
        )
    if not rows(AVAILABLE):
        return failed(
            'extension "vector" is not available: pgvector is not installed on the server', ENABLE
        )
    return failed(
        'type "vector" does not exist: the extension is not made in this database', ENABLE
    )


def name_and_version() -> Finding:
    """trap.25."""
    found = rows(INSTALLED)
    if not found:
        return failed(extension.MISSING, ENABLE)
    return passed(f"vector {found[0][0]}; the other columns of \\dx say nothing")


CHECKS = [
    Check("checklist.1", is_made),
    Check("checklist.2", is_sound),
    Check("trap.6", is_not_preloaded),
    Check("trap.7", may_be_made),
    Check("trap.21", is_listed_by_azure),
    Check("trap.23", speaks_its_words),
    Check("trap.25", name_and_version),
]
