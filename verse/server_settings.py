"""Settings of the server process: requests take database connections from a pool."""

from verse.settings import *  # noqa: F403 # Django reads settings from one module
from verse.settings import REPLICA_DATABASE, SERVER_DATABASE

DATABASES = {"default": SERVER_DATABASE}
if REPLICA_DATABASE:
    DATABASES["replica"] = REPLICA_DATABASE
