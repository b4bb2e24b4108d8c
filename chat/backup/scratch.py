"""A database of its own for a restored backup, dropped at the end."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection, connections
from psycopg import pq, sql

from retrieval import runtime

PREFIX = "verse_verify_"
CUSTOM_FORMAT = b"PGDMP"  # the first bytes of what pg_dump -Fc writes
# Marked by a run that had a session there, and no longer used: the run has died. Locks: none.
LEFT_BEHIND = """
    SELECT datname FROM pg_catalog.pg_database d
    WHERE pg_catalog.starts_with(datname, %s)
        AND pg_catalog.shobj_description(d.oid, 'pg_database') = %s
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datname = d.datname)
"""
MARK = "restored by manage.py verify_backup"
CREATE = sql.SQL("CREATE DATABASE {} TEMPLATE template0")
COMMENT = sql.SQL("COMMENT ON DATABASE {} IS {}")
DROP = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
ENVIRONMENT = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}
SETTINGS = {
    "NAME": "dbname",
    "USER": "user",
    "PASSWORD": "password",
    "HOST": "host",
    "PORT": "port",
}
Params = Mapping[str, Any]  # of a connection, by libpq's keywords


class BackupRefused(Exception):
    """The backup cannot be restored; the message says why and what to do."""


@contextmanager
def scratch_database(server: Params) -> Iterator[dict[str, Any]]:
    """Create an empty database on the server. Yields its connection's parameters.

    Also drops those that killed runs have left there. Raises psycopg.Error.
    """
    name = f"{PREFIX}{secrets.token_hex(6)}"
    with psycopg.connect(**server, autocommit=True) as session:
        for (left,) in session.execute(LEFT_BEHIND, [PREFIX, MARK]).fetchall():
            session.execute(DROP.format(sql.Identifier(left)))
        session.execute(CREATE.format(sql.Identifier(name)))
        try:
            scratch = {**server, "dbname": name}
            # Other runs see that this database is in use.
            with psycopg.connect(**scratch, autocommit=True) as user:
                user.execute(COMMENT.format(sql.Identifier(name), MARK))
                yield scratch
        finally:
            session.execute(DROP.format(sql.Identifier(name)))


def live_server() -> dict[str, Any]:
    """The parameters of Django's connection."""
    params = connection.get_connection_params()
    return {name: value for name, value in params.items() if name in ENVIRONMENT}


@contextmanager
def connected_to(scratch: Params) -> Iterator[None]:
    """Django's connection of this thread leads to the scratch database."""
    live, settings = connections["default"], connections.settings["default"]
    options = {name: value for name, value in scratch.items() if name not in SETTINGS.values()}
    connections.settings["default"] = {
        **settings,
        **{setting: scratch.get(name, "") for setting, name in SETTINGS.items()},
        "OPTIONS": options,
    }
    connections["default"] = connections.create_connection("default")
    runtime.reset()  # what was remembered of the live database
    try:
        yield
    finally:
        connections["default"].close()
        connections.settings["default"], connections["default"] = settings, live
        runtime.reset()


def restore(backup: Path, into: Params) -> None:
    """Restore the backup, with its indexes, without owners and rights. Raises BackupRefused."""
    check_format(backup)
    program = _pg_restore(into)
    arguments = ("--exit-on-error", "--no-owner", "--no-privileges", "--no-comments")
    result = subprocess.run(
        [program, *arguments, f"--dbname={into['dbname']}", str(backup)],
        env=_environment(into),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        # The other lines can hold rows.
        reason = result.stderr.strip().partition("\n")[0].removeprefix("pg_restore: error: ")
        raise BackupRefused(f"{backup} cannot be restored, it may be cut: {reason}")


def check_format(backup: Path) -> None:
    """Raises BackupRefused: there is no such file, or pg_dump -Fc has not written it."""
    try:
        with backup.open("rb") as file:
            beginning = file.read(len(CUSTOM_FORMAT))
    except OSError as error:
        raise BackupRefused(f"{backup}: {error.strerror}") from error
    if beginning != CUSTOM_FORMAT:
        raise BackupRefused(
            f"{backup} is not in the custom format, but plain SQL or something else:"
            " make it with pg_dump -Fc"
        )


def _pg_restore(into: Params) -> str:
    """The program's path. Raises BackupRefused: it is missing, or older than the server."""
    program = shutil.which("pg_restore")
    if program is None:
        raise BackupRefused("pg_restore is missing: install the package postgresql-client")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    major = int(version.stdout.split()[2].partition(".")[0])  # pg_restore (PostgreSQL) 16.4
    with psycopg.connect(**into) as session:
        of_server = session.info.server_version // 10_000
    if major < of_server:
        raise BackupRefused(
            f"pg_restore {major} is older than the server, {of_server}:"
            f" install the package postgresql-client-{of_server}"
        )
    return program


def _environment(params: Params) -> dict[str, str]:
    """The parameters as libpq's variables, so that no password is in the list of processes."""
    values = {ENVIRONMENT.get(name): value for name, value in params.items()}
    return os.environ | {name.decode(): str(value) for name, value in values.items() if name}
