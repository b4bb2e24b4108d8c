"""rag_doctor on a server that is too old: PostgreSQL 15, Debian's package."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.doctor.report import Status
from retrieval.tests.doctor_support import FaultyDatabase
from tests.support import ROOT, free_port
from tests.support import clean_environment as environment

PROGRAMS = Path("/usr/lib/postgresql/15/bin")


def test_this_server_passes(faulty: FaultyDatabase) -> None:
    finding = faulty.check("database.version")
    assert finding.status is Status.PASS
    assert finding.detail.split()[1].split(".")[0] in ("16", "17", "18")


@pytest.fixture
def old_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a new PostgreSQL 15, which runs as the account postgres."""
    if not PROGRAMS.is_dir():
        if os.geteuid() or not shutil.which("apt-get"):
            pytest.skip("needs root on Debian, to install postgresql-15")
        install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "postgresql-15"]
        subprocess.run(install, check=True, capture_output=True)
    folder, port = tmp_path_factory.mktemp("old"), free_port()
    for path in (folder, *folder.parents[:3]):
        path.chmod(0o755)
    shutil.chown(folder, "postgres")
    _run(PROGRAMS / "initdb", "-A", "trust", "-E", "UTF8", "-D", folder / "data")
    control: list[str | Path] = [PROGRAMS / "pg_ctl", "-w", "-D", folder / "data"]
    listen = f"-p {port} -k {folder} -c fsync=off"
    _run(*control, "-l", folder / "log", "-o", listen, "start")
    yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    _run(*control, "-m", "immediate", "stop")


def _run(*command: str | Path) -> None:
    runuser = ["runuser", "-u", "postgres", "--", *map(str, command)]
    subprocess.run(runuser, check=True, capture_output=True, cwd="/")


@pytest.mark.soak
def test_postgresql_15_fails_and_is_named(old_server: str) -> None:
    doctor = subprocess.run(
        [ROOT / ".venv/bin/python", "manage.py", "rag_doctor", "--json"],
        cwd=ROOT,
        env=environment(DATABASE_URL=old_server, SECRET_KEY="test"),
        text=True,
        capture_output=True,
    )
    assert doctor.returncode == 1, doctor.stderr
    checks = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    finding = checks["database.version"]
    assert finding["status"] == "FAIL"
    assert finding["detail"].startswith("PostgreSQL 15.")
    assert "pg_restore" in finding["fix"]
