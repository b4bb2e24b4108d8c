"""The version that is served: /readyz tells it, and rag_doctor compares servers with itself."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from retrieval.doctor.examine import examine
from retrieval.doctor.registry import all_checks
from retrieval.doctor.report import Finding, Status
from tests.support import PATIENCE_S, Server, database_url
from verse.tests.test_startup import copy_project

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
StartServer = Callable[..., Server]


def version_check() -> Finding:
    (check,) = [check for check in all_checks() if check.name == "checklist.4"]
    return examine(check, set())


def wait_for(status: Status) -> Finding:
    """The finding, once a server's periodic tasks have opened a session, or its last is closed."""
    until = time.monotonic() + PATIENCE_S
    while (finding := version_check()).status is not status:
        assert time.monotonic() < until, finding
        time.sleep(0.1)
    return finding


def test_servers_of_this_version_pass(server: StartServer) -> None:
    assert wait_for(Status.SKIP).detail.startswith("info: this is version ")
    with server().client() as client:
        assert client.get("/readyz").json()["version"] == settings.VERSION
    assert settings.VERSION in wait_for(Status.PASS).detail


def test_a_server_from_before_memory_is_named() -> None:
    with psycopg.connect(database_url(connection), application_name="verse"):
        assert "servers run code that does not tell its version" in wait_for(Status.WARN).detail


@pytest.mark.soak
def test_a_server_of_another_version_is_named(server: StartServer, tmp_path: Path) -> None:
    server()
    old_tree = copy_project(tmp_path / "verse")
    pyproject = old_tree / "pyproject.toml"
    text = re.sub('(?m)^version = ".*"', 'version = "0.0.7"', pyproject.read_text(), count=1)
    pyproject.write_text(text)
    old = Server({"DATABASE_URL": database_url(connection)}, root=old_tree)
    try:
        with old.client() as client:
            assert client.get("/readyz").json()["version"] == "0.0.7"
        finding = wait_for(Status.WARN)
        assert f"this is version {settings.VERSION}, but servers run 0.0.7 (" in finding.detail
        assert finding.fix.startswith("curl ")
    finally:
        old.end()
    wait_for(Status.PASS)
