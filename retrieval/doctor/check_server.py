"""The PostgreSQL server, and the settings of this role on it."""

from psycopg import sql

from retrieval.doctor.fixes import reset_setting, statement
from retrieval.doctor.queries import row, setting, value
from retrieval.doctor.report import Check, Finding, failed, passed, warning


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
    ]
