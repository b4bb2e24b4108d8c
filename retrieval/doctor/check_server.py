"""The PostgreSQL server, and the settings of this role on it."""

from psycopg import sql

from retrieval.doctor.database import setting
from retrieval.doctor.fixes import reset_setting, statement
from retrieval.doctor.report import Check, Finding, failed, passed, warning
from retrieval.queries import row, value

OLDEST_POSTGRES = 160000  # server_version_num
LONG_BUILD_S = 3600  # 1,000,000 messages: docs/benchmarks.md
# reset_val is what a new session gets; the doctor's own transactions have another limit.
TIMEOUT_OF_NEW_SESSIONS = """
    SELECT reset_val, unit, current_user, pg_catalog.current_database()
    FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'
"""


def version_is_supported() -> Finding:
    """The version of PostgreSQL: 16 or later."""
    if int(value("SELECT pg_catalog.current_setting('server_version_num')")) >= OLDEST_POSTGRES:
        return passed(f"PostgreSQL {setting('server_version')}")
    return failed(
        f"PostgreSQL {setting('server_version')}: Verse needs 16 or later. Upgrade the server, or "
        "copy the database to a newer one (here the service verse_new of ~/.pg_service.conf)",
        "pg_dump -Fc --file=verse.dump service=verse",
        "createdb --maintenance-db=service=verse_new verse",
        'pg_restore --no-owner --dbname="service=verse_new dbname=verse" verse.dump',
    )


def statements_may_take_long() -> Finding:
    """The setting statement_timeout of this role in this database: it ends index builds."""
    timeout_ms, unit, role, database = row(TIMEOUT_OF_NEW_SESSIONS)
    if not int(timeout_ms) or int(timeout_ms) >= LONG_BUILD_S * 1000:
        return passed(f"statement_timeout is {timeout_ms} {unit}")
    unlimited = sql.SQL("ALTER ROLE {role} IN DATABASE {database} SET statement_timeout = 0")
    return warning(
        f"statement_timeout is {int(timeout_ms) / 1000:g} s for the role {role}: a build of an "
        "index by hand ends then, and leaves an INVALID one",
        statement(unlimited.format(role=sql.Identifier(role), database=sql.Identifier(database))),
    )


def encoding_is_utf8() -> Finding:
    """The encoding of the database: words are cut and hashed as UTF8."""
    encoding = setting("server_encoding")
    if encoding == "UTF8":
        return passed("the database's encoding is UTF8")
    name = value("SELECT pg_catalog.current_database()")
    return failed(
        f"the database's encoding is {encoding}: copy it into a new one with UTF8",
        f"pg_dump -Fc --file={name}.dump {name}\n"
        f"createdb --template=template0 --encoding=UTF8 --locale=C {name}_utf8\n"
        f"pg_restore --no-owner --dbname={name}_utf8 {name}.dump",
    )


def database_is_writable() -> Finding:
    """Whether the server is a replica, or the role or the database is set to read only."""
    if value("SELECT pg_catalog.pg_is_in_recovery()"):
        return failed(
            "this server is a replica: nothing can be saved",
            "DATABASE_URL=the address of the primary",
        )
    if setting("default_transaction_read_only") == "on":
        return failed(
            "transactions are read-only by default: nothing can be saved",
            "SET default_transaction_read_only = off;\n"
            + reset_setting("default_transaction_read_only"),
        )
    return passed("a primary, with transactions that may write")


def jit_is_off() -> Finding:
    """The setting jit: compiling the recall statement can take longer than running it."""
    if setting("jit") == "off":
        return passed("jit is off")
    role, available = row("SELECT current_user, pg_catalog.pg_jit_available()")
    note = "" if available else "; this server has no compiler at present"
    turn_off = sql.SQL("ALTER ROLE {} SET jit = off").format(sql.Identifier(role))
    return warning(f"jit is on: large tables make recall slow{note}", statement(turn_off))


def checks() -> list[Check]:
    return [
        Check("database.encoding", encoding_is_utf8),
        Check("database.writable", database_is_writable),
        Check("database.jit", jit_is_off),
        Check("database.timeout", statements_may_take_long),
        Check("database.version", version_is_supported),
    ]
