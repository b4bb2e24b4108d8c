"""The MCP inspector, by its command line: lists the tools, and calls each one.

It is installed by npm, with a Node of its own: it needs a newer one than Debian has.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.auth.api_tokens import create_token
from chat.models import StandaloneChatMessage
from tests.clients.test_clients import CACHE
from tests.mcp_support import NOT_THERE
from tests.support import PATIENCE_S, ROOT, Server, clean_environment, database_url

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.newest_schema,
    pytest.mark.soak,
    pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed"),
]
PACKAGES = ("@modelcontextprotocol/inspector@2.12.0", "node@22.23.3")
FACT = "Anna's dog is called Biscuit."


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of the installed programs."""
    folder = CACHE / "inspector"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / ".bin" / "inspector").exists():
        subprocess.run(["npm", "install", "--silent", *PACKAGES], cwd=folder, check=True)
    return folder / "node_modules" / ".bin"


class Inspector:
    """Runs it for one server: ``target`` are the options that name the server."""

    def __init__(self, programs: Path, home: Path, *target: str) -> None:
        self.programs, self.target = programs, target
        path = f"{programs}:{os.environ['PATH']}"
        self.environment = clean_environment(HOME=str(home), PATH=path)

    def run(self, method: str, *options: str) -> "subprocess.CompletedProcess[str]":
        usual = ("--format", "json", "--quiet", "--connect-timeout", f"{PATIENCE_S * 1000}")
        command = [str(self.programs / "inspector"), "--cli", *self.target, "--method", method]
        return subprocess.run(
            [*command, *usual, *options],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 2,
        )

    def result(self, method: str, *options: str) -> dict[str, Any]:
        run = self.run(method, *options)
        assert run.stdout, run.stderr
        return dict(json.loads(run.stdout)["result"])

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        options = ("--tool-name", tool, "--tool-args-json", json.dumps(arguments))
        return self.result("tools/call", *options)


def call_each_tool(inspector: Inspector) -> None:
    """Remember, search, fetch, forget."""
    strict = inspector.run("tools/list", "--strict")
    assert strict.returncode == 0, strict.stderr
    listed = json.loads(strict.stdout)["result"]
    assert [tool["name"] for tool in listed["tools"]] == ["search", "fetch", "remember", "forget"]
    fact = inspector.call("remember", text=FACT)["structuredContent"]
    assert fact["text"] == FACT
    query = "What is Anna's dog called?"
    assert inspector.call("search", query=query)["structuredContent"]["results"] == [fact]
    read = inspector.call("fetch", id=fact["id"])["structuredContent"]
    assert read == fact | {"before": [], "after": []}
    forgotten = inspector.call("forget", id=fact["id"])["structuredContent"]
    assert forgotten == {"forgotten": fact["id"]}
    missing = inspector.call("fetch", id=fact["id"])
    assert (missing["isError"], missing["content"][0]["text"]) == (True, NOT_THERE)
    assert not StandaloneChatMessage.objects.exists()


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_calls_each_tool_over_http(
    era: str, alice: User, server: Callable[..., Server], programs: Path, tmp_path: Path
) -> None:
    url = f"{server(EMBEDDINGS='none').url}/mcp"
    common = ("--server-url", url, "--transport", "http", "--protocol-era", era)
    key = create_token(alice)[1]
    call_each_tool(
        Inspector(programs, tmp_path, *common, "--header", f"Authorization: Bearer {key}")
    )
    stranger = Inspector(programs, tmp_path, *common, "--stored-auth-only")
    assert stranger.run("tools/list").returncode != 0


def test_the_inspector_calls_each_tool_over_stdio(
    alice: User, programs: Path, tmp_path: Path
) -> None:
    settings = {
        "DATABASE_URL": database_url(connection),
        "SECRET_KEY": "test",
        "EMBEDDINGS": "none",
        "PATH": os.environ["PATH"],
    }
    variables = [part for name, value in settings.items() for part in ("-e", f"{name}={value}")]
    command = (sys.executable, str(ROOT / "manage.py"), "mcp", "--user", "alice")
    call_each_tool(Inspector(programs, tmp_path, *variables, "--cwd", str(ROOT), *command))
