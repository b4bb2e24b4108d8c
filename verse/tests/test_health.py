"""The health probes of a real server whose database can disappear."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from embedded_postgres.create_data import SUPERUSER
from tests.support import Server
from verse.tests.test_startup import AWAY, copy_project


class ProjectCopy:
    """A copy of the project that reaches the database server by a link, missing at first."""

    def __init__(self, folder: Path) -> None:
        self.tree = copy_project(folder / "verse")
        self.link = folder / "link"

    def connect_database(self) -> None:
        """Make the database reachable."""
        self.link.symlink_to(connection.get_connection_params()["host"])

    def start(self, database: str) -> Server:
        """Start a server that reaches the database by the link."""
        url = f"postgresql:///{quote(database)}?host={quote(str(self.link))}&user={SUPERUSER}"
        return Server({"DATABASE_URL": url, "OPENAI_API_KEY": "sk-canary"}, root=self.tree)


@pytest.fixture
def project(tmp_path: Path) -> ProjectCopy:
    """A copy of the project that does not reach the database yet."""
    return ProjectCopy(tmp_path)


@pytest.fixture
def server_without_database(tmp_path: Path) -> Iterator[Server]:
    """A server without a reachable database."""
    server = Server({"DATABASE_URL": AWAY}, root=copy_project(tmp_path / "verse"))
    yield server
    server.end()


def get(server: Server, path: str) -> tuple[int, Any]:
    """The status and the JSON of a GET request."""
    with server.client() as client:
        response = client.get(path)
    return response.status_code, response.json()


@pytest.fixture
def ready(request: pytest.FixtureRequest) -> dict[str, str]:
    """The answer of /readyz if all is well; on the oldest schema migrations are pending."""
    pending = {"migrations": "pending"} if request.config.getoption("oldest_schema") else {}
    return {"status": "ok", "version": settings.VERSION} | pending


@pytest.mark.usefixtures("transactional_db")
def test_a_server_starts_without_database_and_is_ready_when_it_appears(
    ready: dict[str, str], project: ProjectCopy
) -> None:
    server = project.start(connection.settings_dict["NAME"])
    try:
        not_ready = (503, {"status": "failing", "failing": {"database": "cannot be reached"}})
        assert get(server, "/healthz") == (200, {"status": "ok"})
        assert get(server, "/readyz") == not_ready
        assert "WARNING: The database cannot be reached yet: " in server.log
        assert "INFO: Not ready: database\n" in server.log
        project.connect_database()
        assert get(server, "/readyz") == (200, ready)
        project.link.unlink()
        assert get(server, "/readyz") == not_ready
        assert get(server, "/healthz") == (200, {"status": "ok"})
        assert "canary" not in server.log
    finally:
        server.end()


@pytest.mark.usefixtures("transactional_db")
def test_a_draining_server_is_healthy_but_not_ready(
    ready: dict[str, str], project: ProjectCopy
) -> None:
    project.connect_database()
    server = project.start(connection.settings_dict["NAME"])
    draining = project.tree / ".verse/draining"
    draining.parent.mkdir(exist_ok=True)
    try:
        draining.touch()
        failing = {"draining": "stop is announced"}
        assert get(server, "/readyz") == (503, {"status": "failing", "failing": failing})
        assert get(server, "/healthz") == (200, {"status": "ok"})
        draining.unlink()
        assert get(server, "/readyz") == (200, ready)
        assert server.log.splitlines()[-1] == "INFO: Not ready: draining"
        assert "ERROR" not in server.log
    finally:
        server.end()


@pytest.mark.soak
@pytest.mark.usefixtures("transactional_db")
def test_missing_tables_mean_not_ready_but_a_pending_migration_does_not(
    ready: dict[str, str], project: ProjectCopy
) -> None:
    project.connect_database()
    without_tables = project.start("postgres")
    with_tables = project.start(connection.settings_dict["NAME"])
    try:
        failing = {"migrations": "run manage.py migrate"}
        assert get(without_tables, "/readyz") == (503, {"status": "failing", "failing": failing})
        recorder = MigrationRecorder(connection)
        recorder.record_unapplied("sessions", "0001_initial")
        try:
            pending = {"migrations": "pending"}
            assert get(with_tables, "/readyz") == (200, ready | pending)
        finally:
            recorder.record_applied("sessions", "0001_initial")
        assert get(with_tables, "/readyz") == (200, ready)
    finally:
        without_tables.end()
        with_tables.end()


def test_probes_answer_within_a_second_without_a_database(server_without_database: Server) -> None:
    with server_without_database.client() as client:
        for path in ("/readyz", "/healthz") * 3:
            assert client.get(path).elapsed.total_seconds() < 1, path


def test_probes_answer_unknown_hosts_and_head_requests(server_without_database: Server) -> None:
    with server_without_database.client(Host="10.0.0.7:8000") as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.head("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503


def test_without_a_database_pages_and_the_admin_are_a_503(
    server_without_database: Server,
) -> None:
    with server_without_database.client(Cookie=f"sessionid={'a' * 32}") as client:
        pages = ("/", "/memory/", "/memory/import/", "/accounts/login/")
        for path in (*pages, "/admin/", "/admin/memory/"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert answer.json() == {
                "detail": "The database cannot be reached at the moment; try again.",
                "code": "database_unavailable",
            }
    assert "ERROR: Database unavailable: " in server_without_database.log
    assert "Traceback" not in server_without_database.log


def test_without_a_database_mcp_is_a_503_with_the_line_of_others(
    server_without_database: Server,
) -> None:
    with server_without_database.client(Authorization="Bearer x") as client:
        answer = client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "ERROR: Database unavailable: " in server_without_database.log
