"""Django's PostgreSQL backend, which first sees to it that the embedded server runs.

``DATABASES["default"]`` has ``EMBEDDED``: ``{"home": Path, "version": 16}``. Nothing starts before the first
connection, so ``manage.py --help`` and mypy start no server.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management import CommandError
from django.db import OperationalError
from django.db.backends.postgresql import client

from embedded_postgres.server import (
    PORT,
    SUPERUSER,
    EmbeddedServerError,
    bin_folder,
    ensure_running,
)
from verse.database import base


class NoEmbeddedServerError(OperationalError, CommandError):
    """No embedded server: the web treats it as any lost database, a command shows it as one line."""


def running_server(settings: dict[str, Any]) -> Path:
    """The socket folder of the server these database settings name. NoEmbeddedServerError: there is none."""
    try:
        return ensure_running(settings["EMBEDDED"]["home"], settings["EMBEDDED"]["version"])
    except EmbeddedServerError as error:
        raise NoEmbeddedServerError(str(error)) from error


class DatabaseClient(client.DatabaseClient):
    """``manage.py dbshell``: the psql of the package, on the embedded server."""

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        """Django's arguments, with our server in them. NoEmbeddedServerError: there is none."""
        place = {"HOST": str(running_server(settings_dict)), "PORT": PORT, "USER": SUPERUSER}
        args, env = super().settings_to_cmd_args_env(settings_dict | place, parameters)
        return [str(bin_folder(settings_dict["EMBEDDED"]["version"]) / args[0]), *args[1:]], env


class DatabaseWrapper(base.DatabaseWrapper):
    """Connects to the embedded server; also for test databases and their clones."""

    client_class = DatabaseClient

    def get_connection_params(self) -> dict[str, Any]:
        """Django's parameters and the socket; called for each new connection, pooled ones included."""
        params: dict[str, Any] = super().get_connection_params()
        # The port too, or PGPORT in the environment would win.
        return params | {
            "host": str(running_server(self.settings_dict)),
            "port": PORT,
            "user": SUPERUSER,
        }
