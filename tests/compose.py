"""Does without containers what `docker compose up` does with deploy/compose.yaml."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from tests.databases import Database
from tests.support import ROOT

ROLES = ("verse_owner", "verse_web", "verse_backfill")
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<kind>:[-?])?(?P<rest>[^}]*)\}")
PASSWORDS = {"OWNER_PASSWORD": "o'wner", "WEB_PASSWORD": "w", "BACKFILL_PASSWORD": "b"}


def services() -> dict[str, Any]:
    """The services of compose.yaml by name."""
    services: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())[
        "services"
    ]
    return services


def command(service: str, **env_file: str) -> list[str]:
    """The service's command with the values of deploy/.env."""
    return [interpolated(str(word), env_file) for word in services()[service]["command"]]


def environment(service: str, **env_file: str) -> dict[str, str]:
    """The service's variables: those of deploy/.env, then those of the file itself."""
    own = services()[service]["environment"]
    return env_file | {name: interpolated(str(value), env_file) for name, value in own.items()}


def interpolated(text: str, values: dict[str, str]) -> str:
    """The text with ${NAME}, ${NAME:-default} and ${NAME:?error} replaced.

    ValueError: the error's text.
    """

    def replace(match: re.Match[str]) -> str:
        if match["kind"] == ":?" and not values.get(match["name"]):
            raise ValueError(f"{match['name']} {match['rest']}")
        return values.get(match["name"]) or match["rest"]

    return VARIABLE.sub(replace, text)


def run_roles_sql(database: Database) -> "subprocess.CompletedProcess[str]":
    """Run deploy/roles.sql as PostgreSQL's image does, as a superuser."""
    psql = ["psql", "--set=ON_ERROR_STOP=1", "--no-psqlrc", f"--dbname={database.url}"]
    return subprocess.run(
        [*psql, f"--file={ROOT / 'deploy/roles.sql'}"],
        env=os.environ | PASSWORDS,
        capture_output=True,
        text=True,
    )


@contextmanager
def roles(database: Database) -> Iterator[None]:
    """The roles of deploy/roles.sql; dropped at the end with what they own."""
    done = run_roles_sql(database)
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        database.run(f"ALTER DATABASE {database.name} OWNER TO verse")
        for role in reversed(ROLES):
            database.run(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
