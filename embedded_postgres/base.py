"""Django's database backend that starts the embedded server before its first connection.

``DATABASES["default"]`` has ``EMBEDDED``: ``{"home": Path, "version": 16}``. A command that does
not connect, such as ``manage.py --help``, starts no server.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management import CommandError
from django.db import OperationalError
from django.db.backends.postgresql import client

from embedded_postgres.create_data import SUPERUSER
from embedded_postgres.ensure_running import ensure_running
from embedded_postgres.files import EmbeddedServerError
from embedded_postgres.process import PORT
from embedded_postgres.programs import bin_folder
from pooled_postgres import base


class NoEmbeddedServerError(OperationalError, CommandError):
    """The server cannot run: a lost database for the web, a one-line error for a command."""


def running_server(settings: dict[str, Any]) -> Path:
    """The socket folder of the server of these settings. Raises NoEmbeddedServerError."""
    try:
        return ensure_running(settings["EMBEDDED"]["home"], settings["EMBEDDED"]["version"])
    except EmbeddedServerError as error:
        raise NoEmbeddedServerError(str(error)) from error


class DatabaseClient(client.DatabaseClient):
    """``manage.py dbshell``: the package's psql, connected to the embedded server."""

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        address = {"HOST": str(running_server(settings_dict)), "PORT": PORT, "USER": SUPERUSER}
        args, env = super().settings_to_cmd_args_env(settings_dict | address, parameters)
        return [str(bin_folder(settings_dict["EMBEDDED"]["version"]) / args[0]), *args[1:]], env


class DatabaseWrapper(base.DatabaseWrapper):
    """Connects to the embedded server, for test databases and their clones too."""

    client_class = DatabaseClient

    def get_connection_params(self) -> dict[str, Any]:
        """Adds the socket. Django calls this for each new connection, pooled or not."""
        params: dict[str, Any] = super().get_connection_params()
        # The port too, because otherwise PGPORT in the environment decides.
        return params | {
            "host": str(running_server(self.settings_dict)),
            "port": PORT,
            "user": SUPERUSER,
        }
