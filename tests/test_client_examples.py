"""The clients of docs/api/clients.md print what the page shows."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from fake_openai import Answer, FakeOpenAI
from tests.pages import blocks_of
from tests.support import PATIENCE_S, ROOT, Server, clean_environment

pytestmark = pytest.mark.django_db(transaction=True)
CLIENTS = {block.kind: block for block in blocks_of(ROOT / "docs" / "api" / "clients.md")}
COMMANDS = {
    "python": [sys.executable, "-"],
    "js": [shutil.which("node") or "node", "--input-type=module"],
}
NO_NODE = "the JavaScript client is left out: it needs Node 18 (apt-get install nodejs)"


@pytest.mark.parametrize("kind", list(COMMANDS))
def test_a_client_prints_what_the_page_shows(
    kind: str, alice: User, server: Callable[..., Server], openai_server: FakeOpenAI
) -> None:
    if kind == "js" and not shutil.which("node") and "CI" not in os.environ:
        pytest.skip(NO_NODE)
    openai_server.chat.default = Answer("Flour, water, salt and yeast.")
    running = server(EMBEDDINGS="none")
    client = CLIENTS[kind]
    run = subprocess.run(
        COMMANDS[kind],
        input=client.text.replace("http://127.0.0.1:8000", running.url),
        env=clean_environment(TOKEN=create_token(alice)[1]),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert run.stderr == ""
    assert run.stdout == client.shown
