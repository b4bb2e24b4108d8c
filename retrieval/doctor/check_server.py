"""The PostgreSQL server and this role's settings on it."""

from retrieval.doctor.queries import reset_of, row, setting, value
from retrieval.doctor.report import Check, Finding, failed, passed, warning


def is_utf8() -> Finding:
    """Words are cut and hashed as UTF8."""
    encoding = setting("server_encoding")
    if encoding == "UTF8":
        return passed("the database's encoding is UTF8")
    name = value("SELECT pg_catalog.current_database()")
    return failed(
        f"the database's encoding is {encoding}; a new one has to be made and filled",
        f"pg_dump -Fc --file={name}.dump {name}\n"
        f"createdb --template=template0 --encoding=UTF8 --locale=C {name}_utf8\n"
        f"pg_restore --no-owner --dbname={name}_utf8 {name}.dump",
    )


def is_writable() -> Finding:
    """Not a replica, and no role or database that is set to read only."""
    if value("SELECT pg_catalog.pg_is_in_recovery()"):
        return failed(
            "this server is a replica: nothing can be kept",
            "DATABASE_URL=the address of the primary",
        )
    if setting("default_transaction_read_only") == "on":
        fix = "SET default_transaction_read_only = off;\n" + reset_of(
            "default_transaction_read_only"
        )
        return failed("transactions are read-only by default: nothing can be kept", fix)
    return passed("a primary, with transactions that may write")


def jit_is_off() -> Finding:
    """The recall statement's estimate grows with the table, until it is compiled for longer than it runs."""
    if setting("jit") == "off":
        return passed("jit is off")
    role, available = row(
        "SELECT pg_catalog.quote_ident(current_user), pg_catalog.pg_jit_available()"
    )
    said = "" if available else "; this server has no compiler as yet"
    return warning(
        f"jit is on: large tables make recall slow{said}", f"ALTER ROLE {role} SET jit = off;"
    )


CHECKS = [
    Check("database.encoding", is_utf8),
    Check("database.writable", is_writable),
    Check("database.jit", jit_is_off),
]
