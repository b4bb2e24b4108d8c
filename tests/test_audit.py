"""``make audit``, with pip-audit itself and advisories from a server in the format of OSV."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.soak
PINNED = re.compile(r"^([\w.-]+)==", re.MULTILINE)
HOLE = {
    "id": "PYSEC-2026-1",
    "summary": "A hole",
    "details": "It is there for this test.",
    "affected": [
        {
            "package": {"name": "django", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}


@contextmanager
def advisories(holes: dict[str, dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """The address of a server that knows the holes by package, and the packages queried for."""
    queried: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = query["package"]["name"]
            queried.append(name)
            body = json.dumps({"vulns": [holes[name]]} if name in holes else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing to standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query", queried
        server.shutdown()


def audit(address: str) -> "subprocess.CompletedProcess[str]":
    options = f"--vulnerability-service osv --osv-url {address}"
    command = ["make", "audit", f"ARGS={options}"]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def test_a_known_hole_in_a_dependency_fails_the_audit() -> None:
    with advisories({"django": HOLE}) as (address, queried):
        done = audit(address)
    assert done.returncode != 0
    assert "PYSEC-2026-1" in done.stdout
    assert "99.0" in done.stdout  # the version to take
    locked = set(PINNED.findall((ROOT / "requirements.lock").read_text()))
    assert set(queried) <= locked
    assert len(set(queried)) > 0.9 * len(locked)  # some are for other systems only


def test_without_a_known_hole_the_audit_passes() -> None:
    with advisories({}) as (address, queried):
        done = audit(address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "django" in queried
