"""The API keeps to its OpenAPI description: a fuzzer reads it and calls a real server."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

from chat.auth.api_tokens import create_token
from chat.models import Passage, StandaloneChat
from tests.support import ROOT, Server

pytestmark = pytest.mark.django_db(transaction=True)
COMMITTED = ROOT / "docs" / "openapi.yml"
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


def described_operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in schema["paths"].values() for operation in path.values()]


def test_the_committed_file_is_the_schema() -> None:
    out = StringIO()
    call_command("spectacular", stdout=out)
    assert out.getvalue().rstrip() == COMMITTED.read_text().rstrip(), (
        "run manage.py spectacular --file docs/openapi.yml, and look at the difference"
    )


def test_each_operation_has_a_summary_and_examples_that_are_valid() -> None:
    schema = json.loads(as_json())
    for operation in described_operations(schema):
        assert operation["summary"], operation
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        bodies.append(operation["responses"][min(operation["responses"])])
        for body in bodies:
            for kind, content in body.get("content", {}).items():
                if kind == "application/json":
                    assert_valid(content["example"], content["schema"], schema)
                else:
                    assert content["example"]


def assert_valid(example: Any, of: dict[str, Any], schema: dict[str, Any]) -> None:
    whole = as_json_schema(of | {"components": schema["components"]})
    validator = jsonschema_rs.Draft202012Validator(whole)
    assert [str(problem) for problem in validator.iter_errors(example)] == [], example


def as_json_schema(part: Any) -> Any:
    """JSON Schema has no ``nullable``, which OpenAPI 3.0 has."""
    if isinstance(part, list):
        return [as_json_schema(item) for item in part]
    if not isinstance(part, dict):
        return part
    fields = {name: as_json_schema(value) for name, value in part.items()}
    return {"anyOf": [fields, {"type": "null"}]} if part.get("nullable") is True else fields


def as_json() -> str:
    out = StringIO()
    call_command("spectacular", "--format", "openapi-json", stdout=out)
    return out.getvalue()


@pytest.mark.newest_schema
@pytest.mark.parametrize(
    ("examples", "at_least"), [(3, 300), pytest.param(20, 1000, marks=pytest.mark.soak)]
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
