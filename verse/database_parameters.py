"""Finds the parameter of a database URL that libpq does not know, or whose value it refuses."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, PGconn

PARAMETER = re.compile(r"[A-Za-z_]{1,40}")
# libpq reads these only when it has an address; psycopg reads the first one itself.
WHOLE_NUMBERS = {
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
}
ADDRESS = {"host", "hostaddr", "port", "dbname", "user", "password"}  # as in the rest of the URL
SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}  # libpq's
NOWHERE = "/nonexistent"  # a folder for sockets: libpq checks all parameters before it looks there


def find_refused_parameter(url: str) -> str:
    """What is wrong with a parameter of the URL's query, without its value; '' if nothing is.

    Connects to nothing.
    """
    _, _, query = url.rpartition("@")[2].partition("?")
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in ADDRESS or not PARAMETER.fullmatch(name):
            continue
        try:
            conninfo_to_dict(make_conninfo(**{name: value}))
        except psycopg.Error:
            return f"only parameters that libpq knows, not {name}"
        if not _takes(name, value):
            return f"another value of its parameter {name}"
    return ""


def _takes(name: str, value: str) -> bool:
    if name in WHOLE_NUMBERS:
        return re.fullmatch(r"-?[0-9]{1,9}", value) is not None
    conninfo = make_conninfo(**{"host": NOWHERE, name: value})
    refused = PGconn.connect_start(conninfo.encode())
    is_bad = refused.status == ConnStatus.BAD
    return not (is_bad and b"connection to server" not in refused.error_message)


def is_usable(options: Mapping[str, Any]) -> bool:
    """Whether port and sslmode are valid: libpq would notice only when it connects."""
    ports = str(options.get("port") or "5432").split(",")  # one per host
    are_numbers = all(
        re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65_536 for port in ports if port
    )
    return are_numbers and options.get("sslmode", "prefer") in SSL_MODES
