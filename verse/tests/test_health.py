"""The two probes, asked of a real server whose database comes and goes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from embedded_postgres.create import SUPERUSER
from tests.support import Server
from verse.tests.test_startup import AWAY, copy_project


class Place:
    """A copy of the project, and a link that leads to the tests' database server or to nowhere."""

    def __init__(self, folder: Path) -> None:
        self.tree = copy_project(folder / "verse")
        self.way = folder / "way"

    def lead_to_the_database(self) -> None:
        """From now on it can be reached."""
        self.way.symlink_to(connection.get_connection_params()["host"])

    def start(self, database: str) -> Server:
        """A server on a database that is reached by the link."""
        url = f"postgresql:///{quote(database)}?host={quote(str(self.way))}&user={SUPERUSER}"
        return Server({"DATABASE_URL": url, "OPENAI_API_KEY": "sk-canary"}, root=self.tree)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place without a database yet."""
    return Place(tmp_path)


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Server]:
    """A server whose database is away."""
    server = Server({"DATABASE_URL": AWAY}, root=copy_project(tmp_path / "verse"))
    yield server
    server.end()


def ask(server: Server, address: str) -> tuple[int, Any]:
    """The status and the JSON of an address."""
    with server.client() as client:
        answer = client.get(address)
    return answer.status_code, answer.json()


@pytest.fixture
def ready(request: pytest.FixtureRequest) -> dict[str, str]:
    """What /readyz says where all is well; on the oldest schema there is something to migrate."""
    pending = {"migrations": "pending"} if request.config.getoption("oldest_schema") else {}
    return {"status": "ok"} | pending


@pytest.mark.usefixtures("transactional_db")
def test_a_server_starts_before_its_database_and_is_ready_as_soon_as_that_is_there(
    ready: dict[str, str], place: Place
) -> None:
    server = place.start(connection.settings_dict["NAME"])
    try:
        away = (503, {"status": "failing", "failing": {"database": "cannot be reached"}})
        assert ask(server, "/healthz") == (200, {"status": "ok"})
        assert ask(server, "/readyz") == away
        assert "WARNING: The database cannot be reached yet: " in server.log
        assert "INFO: Not ready: database\n" in server.log
        place.lead_to_the_database()
        assert ask(server, "/readyz") == (200, ready)
        place.way.unlink()
        assert ask(server, "/readyz") == away
        assert ask(server, "/healthz") == (200, {"status": "ok"})
        assert "canary" not in server.log
    finally:
        server.end()


@pytest.mark.usefixtures("transactional_db")
def test_a_server_that_is_about_to_stop_is_not_ready_and_healthy(
    ready: dict[str, str], place: Place
) -> None:
    place.lead_to_the_database()
    server = place.start(connection.settings_dict["NAME"])
    draining = place.tree / ".verse/draining"
    draining.parent.mkdir(exist_ok=True)
    try:
        draining.touch()
        assert ask(server, "/readyz") == (
            503,
            {"status": "failing", "failing": {"draining": "stop is announced"}},
        )
        assert ask(server, "/healthz") == (200, {"status": "ok"})
        draining.unlink()
        assert ask(server, "/readyz") == (200, ready)
        assert server.log.splitlines()[-1] == "INFO: Not ready: draining"
        assert "ERROR" not in server.log
    finally:
        server.end()


@pytest.mark.usefixtures("transactional_db")
def test_a_database_without_our_tables_is_not_ready_and_one_that_misses_a_later_migration_is(
    ready: dict[str, str], place: Place
) -> None:
    place.lead_to_the_database()
    bare = place.start("postgres")
    ours = place.start(connection.settings_dict["NAME"])
    try:
        failing = {"migrations": "run manage.py migrate"}
        assert ask(bare, "/readyz") == (503, {"status": "failing", "failing": failing})
        recorder = MigrationRecorder(connection)
        recorder.record_unapplied("sessions", "0001_initial")
        try:
            assert ask(ours, "/readyz") == (200, {"status": "ok", "migrations": "pending"})
        finally:
            recorder.record_applied("sessions", "0001_initial")
        assert ask(ours, "/readyz") == (200, ready)
    finally:
        bare.end()
        ours.end()


def test_probes_answer_within_a_second_while_the_database_is_away(away: Server) -> None:
    with away.client() as client:
        for address in ("/readyz", "/healthz") * 3:
            assert client.get(address).elapsed.total_seconds() < 1, address


def test_probes_keep_their_form_for_an_unknown_host_and_for_head(away: Server) -> None:
    with away.client(Host="10.0.0.7:8000") as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.head("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
