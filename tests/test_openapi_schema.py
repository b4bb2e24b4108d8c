"""The API keeps to its OpenAPI description: a fuzzer reads it and calls a real server."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

from chat.auth.api_tokens import create_token
from chat.models import Passage, StandaloneChat
from tests.support import Server

pytestmark = pytest.mark.django_db(transaction=True)
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
]
OPTIONS = """
    --seed 1 --phases coverage,fuzzing --no-color --request-timeout 20
    --suppress-health-check all --workers 1
"""


def fuzz(server: Server, token: str, *, examples: int, folder: Path) -> str:
    """The output of schemathesis, which must not find an answer that differs from the schema."""
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [program, "run", f"{server.url}/api/schema/", "-H", f"Authorization: Token {token}"]
    result = subprocess.run(
        [*command, "--max-examples", str(examples), "--checks", ",".join(CHECKS), *OPTIONS.split()],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=500,
    )
    assert result.returncode == 0, result.stdout[-6000:]
    return result.stdout


def test_the_schema_has_no_warnings_and_names_the_token() -> None:
    out = StringIO()
    call_command(
        "spectacular", "--format", "openapi-json", "--validate", "--fail-on-warn", stdout=out
    )
    schema = json.loads(out.getvalue())
    token = schema["components"]["securitySchemes"]["tokenAuth"]
    assert (token["type"], token["in"], token["name"]) == ("apiKey", "header", "Authorization")
    assert token["description"].startswith("`Token <key>`")
    operations = {
        f"{method} {path}": operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) > 30
    without_token = {
        name
        for name, operation in operations.items()
        if {"tokenAuth": []} not in operation["security"]
    }
    assert without_token == {"post /api/auth/token/"}


@pytest.mark.parametrize(
    ("examples", "at_least"), [(5, 500), pytest.param(20, 1000, marks=pytest.mark.soak)]
)
def test_answers_are_as_the_schema_says(
    examples: int, at_least: int, alice: User, server: Callable[..., Server], tmp_path: Path
) -> None:
    for number in range(3):
        StandaloneChat.objects.create(user=alice, title=f"Chat {number}")
        Passage.objects.create(user=alice, reference=f"John {number}", text="In the beginning")
    token = create_token(alice)[1]
    running = server(THROTTLE_MESSAGES="off", STREAMS_PER_USER="1000")
    output = fuzz(running, token, examples=examples, folder=tmp_path)
    generated = re.search(r"(\d+) generated", output)
    assert generated, output
    assert int(generated[1]) >= at_least, generated[0]
