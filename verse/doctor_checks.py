"""The site's checks of ``rag_doctor``: the server's start, settings by Django's own checks."""

from django.conf import settings
from django.core.checks import Tags, run_checks

from retrieval.doctor.check_log import last_start_logged_no_errors
from retrieval.doctor.check_migrations import migrations_are_applied
from retrieval.doctor.fixes import MIGRATE
from retrieval.doctor.report import (
    Check,
    Finding,
    all_of,
    failed,
    information,
    passed,
    skipped,
    warning,
)
from retrieval.queries import rows, value
from verse.health import DRAINING, OLDEST_SCHEMA, pending_migrations

RESERVED = 10  # connections for commands, migrate, a backup
# Prints a line for .env. An editor puts it there: >> would join it to a last line without an end.
NEW_KEY = "python -c \"import secrets; print('SECRET_KEY=' + secrets.token_urlsafe(50))\""
REPLACE_KEY = "replace the line SECRET_KEY=... of .env, in an editor, by the line that this prints:"
FREE_CONNECTIONS = """
    SELECT pg_catalog.current_setting('max_connections')::int
        - pg_catalog.current_setting('superuser_reserved_connections')::int
        - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int
"""
# Every role may see another session's name. A DATABASE_URL with its own application_name hides it.
SERVER_VERSIONS = """
    SELECT pg_catalog.split_part(application_name, ' ', 2), count(*)
    FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database()
        AND (application_name LIKE 'verse %' OR application_name = 'verse')
    GROUP BY 1 ORDER BY 1
"""
NO_VERSION = "code that does not tell its version, such as that before memory"
READY = f"curl --silent http://127.0.0.1:{settings.PORT}/readyz"
LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}


def pools_fit() -> Finding:
    """The connection pools of this server's workers, and max_connections of the database."""
    direct_host = settings.DATABASES["default"].get("HOST", "")
    if (settings.SERVER_DATABASE.get("HOST") or "") != direct_host:
        return skipped(
            "the servers connect through a pooler: compare DATABASE_POOL_SIZE x WEB_CONCURRENCY "
            "with its own limits",
            "psql --host=POOLER --port=6432 pgbouncer --command='SHOW CONFIG'",
        )
    free = value(FREE_CONNECTIONS)
    size, workers = settings.DATABASE_POOL_SIZE, settings.WEB_CONCURRENCY
    detail = f"{workers} workers x {size} connections, {free} on the server"
    if size * workers + RESERVED <= free:
        return passed(f"{detail}; multiply by your servers, twice during a deployment")
    usable = free - RESERVED
    fixes = [f"DATABASE_POOL_SIZE={max(usable // workers, 1)}"]
    if workers > usable:
        fixes.append(f"WEB_CONCURRENCY={max(usable, 1)}")
    return warning(
        f"{detail}, of which {RESERVED} are for commands: some requests will be refused",
        *fixes,
    )


def server_starts() -> Finding:
    """What /readyz looks at, pending migrations, and errors of the last start of a server."""
    return all_of(server_is_ready(), migrations_are_applied(), last_start_logged_no_errors())


def server_is_ready() -> Finding:
    """The oldest schema that serves, and the file that announces a stop on this machine."""
    if OLDEST_SCHEMA in pending_migrations():
        return failed("chat 0001_initial is not applied: /readyz is 503", MIGRATE)
    if DRAINING.exists():
        return warning(f"{DRAINING} exists: /readyz is 503", f"rm {DRAINING}")
    return passed("/readyz has no reason to be 503")


def servers_run_this_version() -> Finding:
    """The versions of the servers that are connected to the database, against this command's."""
    sessions = dict(rows(SERVER_VERSIONS))
    others = {version: count for version, count in sessions.items() if version != settings.VERSION}
    if others:
        names = ", ".join(
            f"{version or NO_VERSION} ({count} sessions)" for version, count in others.items()
        )
        return warning(
            f"this is version {settings.VERSION}, but servers run {names}: end them after the new "
            "ones have started",
            READY,
        )
    if not sessions:
        return information(f"this is version {settings.VERSION}; no server is connected now", READY)
    return passed(f"all connected servers run {settings.VERSION}, as this command does")


def debug_is_off() -> Finding:
    """DEBUG, by Django's check security.W018. Its error pages show code and values."""
    return _deployment_check("security.W018", fix="DEBUG=false") or passed("DEBUG is off")


def secret_key_is_long() -> Finding:
    """SECRET_KEY, by Django's check security.W009. Its value is never shown."""
    finding = _deployment_check("security.W009", fix=f"{REPLACE_KEY}\n{NEW_KEY}")
    return finding or passed(f"SECRET_KEY has {len(settings.SECRET_KEY)} characters")


def hosts_are_named() -> Finding:
    """ALLOWED_HOSTS: Django's check security.W020, a wildcard, and hosts of this machine only."""
    fix = "ALLOWED_HOSTS=chat.example.com"
    hosts = settings.ALLOWED_HOSTS
    if finding := _deployment_check("security.W020", fix=fix):
        return finding
    if "*" in hosts:
        return warning("ALLOWED_HOSTS takes any name", fix)
    if set(hosts) <= LOCAL_HOSTS and "EMBEDDED" not in settings.DATABASES["default"]:
        return warning("ALLOWED_HOSTS names this machine only: others get no answer", fix)
    return passed(f"ALLOWED_HOSTS: {', '.join(hosts)}")


def one_queue_is_set() -> Finding:
    """EMBED_QUEUE, and that no broker is set which it does not use."""
    queue = settings.EMBED_QUEUE
    if settings.CELERY_BROKER_URL and queue != "celery":
        return warning(
            f"CELERY_BROKER_URL is set, but EMBED_QUEUE={queue} does not use it",
            "CELERY_BROKER_URL=",
        )
    return passed(f"EMBED_QUEUE={queue}")


def _deployment_check(check_id: str, *, fix: str) -> Finding | None:
    """What Django's deployment check of this id reports; None if it is content."""
    for message in run_checks(tags=[Tags.security], include_deployment_checks=True):
        if message.id == check_id:
            return warning(" ".join(message.msg.split()), fix)
    return None


def checks() -> list[Check]:
    return [
        Check("criterion.1", server_starts),
        Check("server.pools", pools_fit),
        Check("checklist.4", servers_run_this_version),
        Check("settings.debug", debug_is_off),
        Check("settings.secret_key", secret_key_is_long),
        Check("settings.allowed_hosts", hosts_are_named),
        Check("settings.embed_queue", one_queue_is_set),
    ]
