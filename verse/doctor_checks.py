"""What ``rag_doctor`` looks at in the site's settings."""

from django.conf import settings

from retrieval.doctor.queries import row
from retrieval.doctor.report import Check, Finding, passed, skipped, warning

OTHERS = 10  # connections for commands, migrate, a backup
KEY_CHARS, KEY_KINDS = 50, 5  # of SECRET_KEY; as Django's own check security.W009 has it
NEW_KEY = "python -c \"import secrets; print('SECRET_KEY=' + secrets.token_urlsafe(50))\" >> .env"
CONNECTIONS = """
    SELECT pg_catalog.current_setting('max_connections')::int
        - pg_catalog.current_setting('superuser_reserved_connections')::int
        - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int
"""


def pools_fit() -> Finding:
    """checklist.11: of one server's processes; more servers than one are not seen from here."""
    if (settings.SERVER_DATABASE.get("HOST") or "") != settings.DATABASES["default"].get(
        "HOST", ""
    ):
        return skipped(
            "a pooler stands between: compare DATABASE_POOL_SIZE x WEB_CONCURRENCY with its own limits"
        )
    (free,) = row(CONNECTIONS)
    size, workers = settings.DATABASE_POOL_SIZE, settings.WEB_CONCURRENCY
    said = f"{workers} workers x {size} connections, {free} on the server"
    if size * workers + OTHERS <= free:
        return passed(f"{said}; multiply by your servers, twice during a deployment")
    most = max((free - OTHERS) // workers, 1)
    fix = f"DATABASE_POOL_SIZE={most}" + (
        f"\nWEB_CONCURRENCY={max(free - OTHERS, 1)}" if workers > free - OTHERS else ""
    )
    return warning(
        f"{said}, of which {OTHERS} are for commands: some requests will be refused", fix
    )


def debug_is_off() -> Finding:
    """Django's error pages show settings and texts."""
    if settings.DEBUG:
        return warning("DEBUG is on: error pages show code and values", "DEBUG=false")
    return passed("DEBUG is off")


def secret_is_long() -> Finding:
    """It signs sessions. The value is never shown."""
    key = str(settings.SECRET_KEY)
    if len(key) < KEY_CHARS or len(set(key)) < KEY_KINDS or key.startswith("django-insecure-"):
        return warning("SECRET_KEY is short or guessable: sessions can be forged", NEW_KEY)
    return passed(f"SECRET_KEY has {len(key)} characters")


def hosts_are_named() -> Finding:
    """``*`` lets anybody choose what links and checks of origin go by."""
    hosts = list(settings.ALLOWED_HOSTS)
    if "*" in hosts:
        return warning("ALLOWED_HOSTS takes any name", "ALLOWED_HOSTS=chat.example.com")
    if (
        set(hosts) <= {"localhost", "127.0.0.1", "[::1]"}
        and "EMBEDDED" not in settings.DATABASES["default"]
    ):
        return warning(
            "ALLOWED_HOSTS names this machine only: nobody else is answered",
            "ALLOWED_HOSTS=chat.example.com",
        )
    return passed(f"ALLOWED_HOSTS: {', '.join(hosts)}")


def checks() -> list[Check]:
    """The site's."""
    return [
        Check("checklist.11", pools_fit),
        Check("settings.debug", debug_is_off),
        Check("settings.secret_key", secret_is_long),
        Check("settings.allowed_hosts", hosts_are_named),
    ]
