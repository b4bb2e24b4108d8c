"""Clients of OpenAI's API from other packages: a fact of one conversation reaches another.

Each Python client has an environment of its own in the user's cache folder, from its pinned list;
the JavaScript library is installed by npm.
"""

import hashlib
import os
import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import FakeOpenAI
from tests.support import PATIENCE_S, Server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.newest_schema,
    pytest.mark.soak,
]
HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "verse-clients"
JAVASCRIPT = "openai@6.49.0"
FACT = "My zebra Kornblume lives in Trieste"
QUESTION = "Where does my zebra live?"


def python_of(script: str) -> Path:
    """The Python of the client's environment. Making it takes some minutes the first time."""
    requirements = HERE / f"{script}.txt"
    folder = CACHE / f"{script}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]}"
    if not (folder / "made").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--requirement", str(requirements)], check=True)
        (folder / "made").touch()
    return folder / "bin" / "python"


def node_command(script: str) -> list[str]:
    """The script in the folder of the library, where Node looks for it."""
    folder = CACHE / "javascript"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "openai").exists():
        subprocess.run(["npm", "install", "--silent", JAVASCRIPT], cwd=folder, check=True)
    shutil.copy(HERE / f"{script}.mjs", folder)
    return ["node", str(folder / f"{script}.mjs")]


@pytest.mark.parametrize(
    "script", ["with_litellm", "with_langchain_openai", "with_llama_index_llm", "with_openai"]
)
def test_a_client_gives_an_answer_the_fact_of_another_conversation(
    script: str, server: Callable[..., Server], alice: User, openai_server: FakeOpenAI
) -> None:
    is_python = (HERE / f"{script}.py").exists()
    if not is_python and not shutil.which("npm"):
        pytest.skip("npm is not installed")
    command = [str(python_of(script)), str(HERE / f"{script}.py")] if is_python else None
    running = server(
        OPENAI_BASE_URL=openai_server.base_url,
        OPENAI_API_KEY="sk-test-0123456789",
        RAG_TIMEOUT="30",
    )
    program = command or node_command(script)
    result = subprocess.run(
        [*program, f"{running.url}/v1", create_token(alice)[1], FACT, QUESTION],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE_S * 5,
    )
    assert result.stdout.splitlines() == [
        f"You said: {text}" for text in (FACT, QUESTION, "Good bye")
    ]
    requests = [
        request for request in openai_server.chat.requests if QUESTION in request.prompt_text
    ]
    assert FACT in requests[0].messages[-1]["content"]
    assert StandaloneChat.objects.count() == 3
    assert StandaloneChatMessage.objects.count() == 6
