"""Access lines: by default none is built, since no handler receives it."""

import logging
import time

from gunicorn.config import Config

from tests.support import PATIENCE_S, Server
from verse.access_log import Logger
from verse.settings import LOGGING
from verse.tests.test_startup import AWAY


def test_an_access_line_is_built_only_for_a_handler() -> None:
    logger = object.__new__(Logger)  # its __init__ would configure this process
    logger.cfg = Config()
    logger.cfg.set("logconfig_dict", LOGGING)
    logger.access_log = logging.Logger("access")  # noqa: LOG001 - without handlers of pytest
    assert not logger.access_log_enabled
    logger.access_log.addHandler(logging.NullHandler())
    assert logger.access_log_enabled


def test_access_lines_can_be_turned_on() -> None:
    server = Server({"DATABASE_URL": AWAY, "GUNICORN_CMD_ARGS": "--access-logfile -"})
    try:
        with server.client() as client:
            assert client.get("/healthz").status_code == 200
        until = time.monotonic() + PATIENCE_S
        while "GET /healthz" not in server.log and time.monotonic() < until:
            time.sleep(0.02)  # the line is written after the response
        assert '"GET /healthz HTTP/1.1" 200 16' in server.log
    finally:
        server.end()
