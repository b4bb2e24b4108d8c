"""The API is as its OpenAPI description says: a fuzzer reads it and asks a real server."""

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
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def fuzz(server: Server, token: str, *, examples: int, folder: Path) -> str:
    """What schemathesis prints. Fails where an answer is not as described."""
    command = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [command, "run", f"{server.url}/api/schema/", "-H", f"Authorization: Token {token}", "--checks", CHECKS,
         "--max-examples", str(examples), "--seed", "1", "--phases", "coverage,fuzzing", "--no-color",
         "--request-timeout", "20", "--suppress-health-check", "all", "--workers", "1"],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def test_the_schema_is_made_without_a_warning_and_names_the_token_wherever_one_is_needed() -> None:
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
    without = {
        name
        for name, operation in operations.items()
        if {"tokenAuth": []} not in operation["security"]
    }
    assert without == {"post /api/auth/token/"}


def test_answers_are_as_the_schema_says(
    alice: User, server: Callable[..., Server], tmp_path: Path
) -> None:
    for number in range(3):
        StandaloneChat.objects.create(user=alice, title=f"Chat {number}")
        Passage.objects.create(user=alice, reference=f"John {number}", text="In the beginning")
    token = create_token(alice)[1]
    one = server(THROTTLE_MESSAGES="off", STREAMS_PER_USER="1000")
    told = fuzz(one, token, examples=20, folder=tmp_path)
    found = re.search(r"(\d+) generated", told)
    assert found, told
    assert int(found[1]) >= 1000, found[0]
