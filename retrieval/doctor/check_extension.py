"""The extension vector: created, recent enough, configured as it should be."""

from django.db import connection
from psycopg import sql

from retrieval.doctor.database import setting
from retrieval.doctor.fixes import ENABLE_VECTOR, rebuild_index, statement
from retrieval.doctor.report import Check, Finding, failed, passed, skipped, warning
from retrieval.queries import rows, value
from retrieval.reindex.index_state import declared_indexes
from retrieval.schema import extension

# Earlier versions have bugs: a buffer overflow, index corruption, insert errors.
SAFE_VERSION = (0, 8, 4)
INSTALLED = """
    SELECT extversion, (
        SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'vector')
    FROM pg_catalog.pg_extension WHERE extname = 'vector'
"""
PRELOADED = """
    SELECT setting FROM pg_catalog.pg_settings WHERE name = 'shared_preload_libraries'
"""
PRELOADED_IN_FILES = """
    SELECT setting FROM pg_catalog.pg_file_settings WHERE name = 'shared_preload_libraries'
"""
MAY_READ_SETTINGS = "SELECT pg_catalog.pg_has_role(current_user, 'pg_read_all_settings', 'MEMBER')"
MAY_READ_FILES = """
    SELECT pg_catalog.has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'EXECUTE')
"""
AZURE_COMMAND = (
    "az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER "
    "--name azure.extensions --value"
)


def extension_exists() -> Finding:
    """The extension in this database, in any schema, and its version."""
    version = extension.check(connection)
    return passed(f"pgvector {version} in the schema {extension.schema(connection).as_string()}")


def version_is_safe() -> Finding:
    """Compares the version in this database with 0.8.4 and with the version on the server."""
    installed = rows(INSTALLED)
    if not installed:
        return failed(extension.MISSING, ENABLE_VECTOR)
    version, on_server = installed[0]
    newest = max(_parts(version), _parts(on_server or version))
    if newest < SAFE_VERSION:
        return warning(
            f"pgvector {version} has bugs that are fixed in 0.8.4, and the server offers no later "
            "version: install 0.8.4 or later on the server first",
            _update(),
        )
    if _parts(version) < newest:
        return warning(f"pgvector {version} in this database, {on_server} on the server", _update())
    return passed(f"pgvector {version}, the server's own")


def _update() -> str:
    """The update, and a rebuild of the indexes: an older version may have written them wrongly."""
    rebuilds = (rebuild_index(index.name) for _, index in declared_indexes())
    return "\n".join(["ALTER EXTENSION vector UPDATE;", *rebuilds])


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def extension_is_not_preloaded() -> Finding:
    """Reads shared_preload_libraries as in force now, and as in the files for the next start."""
    if not value(MAY_READ_SETTINGS):
        return skipped(
            "this role may not read shared_preload_libraries: ask as a superuser",
            "SHOW shared_preload_libraries;",
        )
    settings = rows(PRELOADED)
    if value(MAY_READ_FILES):
        settings += rows(PRELOADED_IN_FILES)
    for (names,) in settings:
        libraries = [name.strip() for name in names.split(",") if name.strip()]
        others = [name for name in libraries if name not in ("vector", "pgvector")]
        if others != libraries:
            return warning(
                f"shared_preload_libraries = '{names}': pgvector needs no entry there, and the "
                "server does not start if it cannot find a library named there",
                _preload(others),
            )
    return passed("shared_preload_libraries does not name it; the extension is called vector")


def _preload(libraries: list[str]) -> str:
    if not libraries:
        return "ALTER SYSTEM RESET shared_preload_libraries;"
    names = sql.SQL(", ").join(map(sql.Literal, libraries))
    return statement(sql.SQL("ALTER SYSTEM SET shared_preload_libraries = {}").format(names))


def azure_lists_extension() -> Finding:
    """The setting azure.extensions, if the server has it."""
    names = setting("azure.extensions")
    if names is None:
        return skipped("not an Azure server", f"{ENABLE_VECTOR} --check")
    if "vector" in [name.strip().lower() for name in names.split(",")]:
        return passed("azure.extensions lists vector")
    return failed(
        "azure.extensions does not list vector: CREATE EXTENSION is refused",
        f"{AZURE_COMMAND} {','.join(filter(None, [names, 'vector']))}",
    )


def checks() -> list[Check]:
    return [
        Check("criterion.2", extension_exists),
        Check("checklist.2", version_is_safe),
        Check("trap.6", extension_is_not_preloaded),
        Check("trap.7", extension_exists),
        Check("trap.21", azure_lists_extension),
        Check("trap.23", extension_exists),
        Check("trap.25", extension_exists),
    ]
