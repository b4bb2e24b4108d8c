"""Real processes in a copy of the project, with valid and invalid settings."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import PATIENCE_S, ROOT, Server, clean_environment

CHECK = ("python", "manage.py", "check")
GUNICORN = ("gunicorn", "verse.asgi:application")
AWAY = "postgresql://verse:password@127.0.0.1:1/verse"  # no server: the connection is refused
# What a fresh checkout would not have; .venv is linked instead.
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".verse", ".env", ".hypothesis", ".*_cache", "__pycache__"
)
NO_KEY = "WARNING: No OpenAI API key configured - RAG functionality will be disabled"
STARTED = "INFO: Application startup complete."
# None of these may ever be printed; only the first looks like a key.
SECRETS = {
    "OPENAI_API_KEY": "sk-canary-1",
    "LLM_API_KEY": "canary-2",
    "SECRET_KEY": "canary-3",
    "DATABASE_URL": "postgresql://verse:canary-4@127.0.0.1:1/verse",
    "DATABASE_DIRECT_URL": "postgresql://verse:canary-5@127.0.0.1:1/verse",
}
BAD_SETTINGS = [
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "a URL such as http://127.0.0.1:4318"),
    ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_always_on or"),
    ("DEBUG", "maybe", "true or false"),
    ("ALLOWED_HOSTS", "https://chat.example.com", "host names without scheme or port"),
    ("CSRF_TRUSTED_ORIGINS", "chat.example.com", "origins with their scheme"),
    ("PORT", "http", "a whole number from 1 to 65535"),
    ("WEB_CONCURRENCY", "many", "a whole number from 1 to 256"),
    ("SHUTDOWN_GRACE", "long", "seconds, above 0"),
    ("LOG_FORMAT", "xml", "text or json"),
    ("DATABASE_POOL_SIZE", "0", "a whole number from 1 to 1000"),
    ("EMBEDDED_POSTGRES_VERSION", "17", "16 or 18"),
    ("LLM", "claude", "openai or local"),
    ("LLM_BASE_URL", "localhost:8080/v1", "a URL such as https://"),
    ("LLM_TIMEOUT", "-1", "seconds, above 0"),
    ("LLM_EXTRA_BODY", "temperature=0.2", "a JSON object such as"),
    ("LLM_EXTRA_BODY", "[1]", "a JSON object such as"),
    ("LLM_CONTEXT_TOKENS", "8k", "a whole number from 512"),
    ("LLM_MAX_TOKENS", "5000", "at most half of LLM_CONTEXT_TOKENS, here 4096"),
    ("THROTTLE_MESSAGES", "60", "off, or a rate such as 60/min"),
    ("EMBEDDINGS", "opnai", "openai or local or none"),
    ("EMBEDDING_PRICE_PER_1K", "cheap", "US dollars, 0 or more"),
    ("RAG_ENABLED", "2", "true or false"),
    ("RAG_CONTEXT_LIMIT", "-1", "a whole number from 0 to 50"),
    ("RAG_MIN_SIMILARITY", "2", "a cosine similarity from -1 to 1"),
]
HIDDEN_SETTINGS = [
    ("OPENAI_API_KEY", "sk-canary and more", "printable ASCII characters without spaces"),
    ("DATABASE_URL", "mysql://verse:canary@host/verse", "a PostgreSQL URL such as"),
    ("DATABASE_URL", "postgresql://verse:canary@host:port/verse", "a PostgreSQL URL such as"),
]


def copy_project(to: Path) -> Path:
    """Copy the project to a new folder, with a link to this virtual environment."""
    shutil.copytree(ROOT, to, ignore=LEFT_OUT)
    (to / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return to


def run(tree: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the virtual environment with only these settings; stderr is in stdout."""
    return subprocess.run(
        [str(tree / ".venv/bin" / command[0]), *command[1:]],
        cwd=tree,
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )


StartServer = Callable[..., Server]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project for this module's tests, which do not change it."""
    return copy_project(tmp_path_factory.mktemp("startup") / "verse")


@pytest.fixture
def start(tree: Path) -> Iterator[StartServer]:
    """Starts servers without a database, and ends them after the test."""
    started: list[Server] = []

    def server(**environment: str) -> Server:
        started.append(Server({"DATABASE_URL": AWAY} | environment, root=tree))
        return started[-1]

    yield server
    for running in started:
        running.end()


def the_line_of(refused: subprocess.CompletedProcess[str]) -> str:
    """The only line of a start that was refused."""
    assert refused.returncode == 1, refused.stdout
    lines = [line for line in refused.stdout.splitlines() if line.strip()]
    assert len(lines) == 1, refused.stdout
    assert "canary" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD_SETTINGS)
def test_a_command_with_an_invalid_setting_prints_one_line(
    tree: Path, name: str, value: str, allowed: str
) -> None:
    line = the_line_of(run(tree, *CHECK, **SECRETS | {name: value}))
    assert line.startswith(
        f"Verse cannot start: {name}={value!r} cannot be used; allowed: {allowed}"
    )


@pytest.mark.parametrize(("name", "value", "allowed"), HIDDEN_SETTINGS)
def test_a_command_with_an_invalid_secret_prints_one_line_without_it(
    tree: Path, name: str, value: str, allowed: str
) -> None:
    line = the_line_of(run(tree, *CHECK, **SECRETS | {name: value}))
    assert line.startswith(f"Verse cannot start: {name} cannot be used; allowed: {allowed}")


def test_celery_without_its_broker_does_not_start(tree: Path) -> None:
    line = the_line_of(run(tree, *CHECK, **SECRETS | {"EMBED_QUEUE": "celery"}))
    assert line.startswith("Verse cannot start: CELERY_BROKER_URL cannot be used; allowed: a URL ")
    assert line.endswith("; it must be set with EMBED_QUEUE=celery")


# WEB_CONCURRENCY is not among them: gunicorn reads it itself, before our configuration file.
@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "99999"), ("EMBEDDINGS", "opnai"), ("LLM_TIMEOUT", "nan"), ("WEB_CONCURRENCY", "0")],
)
def test_a_server_with_an_invalid_setting_prints_one_line(
    tree: Path, name: str, value: str
) -> None:
    line = the_line_of(run(tree, *GUNICORN, **SECRETS | {name: value}))
    assert line.startswith(f"Verse cannot start: {name}={value!r} cannot be used; allowed: ")


@pytest.mark.parametrize("secret", ["sk-canary-1", "canary-2", "canary-3", "canary-4", "canary-5"])
def test_a_secret_in_the_first_variable_read_is_not_shown(tree: Path, secret: str) -> None:
    line = the_line_of(run(tree, *CHECK, **SECRETS | {"DEBUG": f"x{secret}x"}))
    assert line == "Verse cannot start: DEBUG cannot be used; allowed: true or false"


@pytest.mark.parametrize("command", [CHECK, GUNICORN], ids=["command", "server"])
def test_database_url_requires_a_secret_key(tree: Path, command: tuple[str, ...]) -> None:
    line = the_line_of(run(tree, *command, DATABASE_URL=SECRETS["DATABASE_URL"]))
    assert line.startswith(
        "Verse cannot start: SECRET_KEY cannot be used; allowed: a long random text; it must be set"
    )
    assert not (tree / ".verse").exists()


@pytest.mark.soak
@pytest.mark.parametrize(
    "values", [{}, {"DEBUG": "true", "DATABASE_URL": AWAY}], ids=["embedded", "debug"]
)
def test_otherwise_a_secret_key_is_generated_and_stored(
    tmp_path: Path, values: dict[str, str]
) -> None:
    tree = copy_project(tmp_path / "verse")
    assert run(tree, *CHECK, **values).returncode == 0
    generated = (tree / ".verse/secret_key").read_text()
    assert run(tree, *CHECK, **values).returncode == 0
    assert (tree / ".verse/secret_key").read_text() == generated
    assert [path.name for path in (tree / ".verse").iterdir()] == [
        "secret_key"
    ]  # no database was started


def test_the_env_file_is_read_and_the_environment_has_priority(tmp_path: Path) -> None:
    tree = copy_project(tmp_path / "verse")
    (tree / ".env").write_text("LLM_TIMEOUT=soon\nOPENAI_API_KEY=sk-canary\n")
    line = the_line_of(run(tree, *CHECK))
    assert line.startswith("Verse cannot start: LLM_TIMEOUT='soon' cannot be used")
    assert run(tree, *CHECK, LLM_TIMEOUT="5").returncode == 0
    (tree / ".env").write_bytes(b"SECRET_KEY=canary\xff\n")
    assert (
        the_line_of(run(tree, *GUNICORN))
        == f"Verse cannot start: {tree}/.env cannot be read (UnicodeDecodeError)"
    )


def settings_of(tree: Path) -> dict[str, str]:
    """The settings of a process with an empty environment."""
    show = (
        "from verse import settings as s; print({n: v for n, v in vars(s).items() if n.isupper()})"
    )
    shown = run(tree, "python", "-c", show)
    assert shown.returncode == 0, shown.stdout
    return dict(re.findall(r"'([A-Z_0-9]+)': ([^,]+)", shown.stdout))


def test_the_example_env_file_shows_the_defaults(tmp_path: Path) -> None:
    tree = copy_project(tmp_path / "verse")
    defaults = settings_of(tree)
    example = (ROOT / ".env.example").read_text()
    (tree / ".env").write_text(re.sub(r"^#(?=[A-Z][A-Z0-9_]*=)", "", example, flags=re.MULTILINE))
    assert settings_of(tree) == defaults
    promised = {
        "PORT": "8000",
        "LLM_TIMEOUT_S": "60.0",
        "RAG_CONTEXT_TOKENS": "1500",
        "LLM_MODEL": "'gpt-4o-mini'",
    }
    assert promised.items() <= defaults.items()
    assert defaults["WEB_CONCURRENCY"] == str(os.cpu_count())


def test_the_local_model_has_its_own_token_limits(tree: Path) -> None:
    show = "from verse import settings as s; print(s.LLM_CONTEXT_TOKENS, s.LLM_MAX_TOKENS)"
    assert run(tree, "python", "-c", show, LLM="local", **SECRETS).stdout == "2048 512\n"


def test_each_worker_without_a_key_warns_once_and_reports_its_start(
    start: StartServer,
) -> None:
    server = start(WEB_CONCURRENCY="2")
    assert server.log.splitlines().count(STARTED) == 2
    assert server.log.splitlines().count(NO_KEY) == 2


@pytest.mark.parametrize(
    "values", [{"OPENAI_API_KEY": "sk-canary"}, {"EMBEDDINGS": "none"}, {"EMBEDDINGS": "local"}]
)
def test_a_server_that_has_or_needs_no_key_does_not_warn(
    start: StartServer, values: dict[str, str]
) -> None:
    server = start(**values)
    assert server.log.splitlines().count(STARTED) == 1
    assert "API key" not in server.log
    assert "canary" not in server.log


def test_a_separate_llm_key_does_not_silence_the_warning(start: StartServer) -> None:
    assert NO_KEY in start(LLM_API_KEY="sk-canary").log


def test_a_command_does_not_warn_about_the_key(tree: Path) -> None:
    assert NO_KEY not in run(tree, *CHECK, DATABASE_URL=AWAY, SECRET_KEY="test").stdout


@pytest.mark.soak
def test_each_log_line_of_a_json_server_is_an_object(start: StartServer) -> None:
    server = start(LOG_FORMAT="json", WEB_CONCURRENCY="2")
    with server.client() as client:
        assert client.get("/readyz").status_code == 503
    children = (
        Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    )
    os.kill(int(children[0]), signal.SIGKILL)  # gunicorn has to say something itself
    server.wait_until_ready(3)
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert {"verse", "django.request", "gunicorn.error"} <= {line["logger"] for line in lines}
    assert [line["message"] for line in lines].count("Application startup complete.") == 3


@pytest.mark.soak
def test_a_port_in_use_is_logged_in_the_configured_format(tree: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(
            tree, *GUNICORN, PORT=port, LOG_FORMAT="json", DATABASE_URL=AWAY, SECRET_KEY="test"
        )
    assert ended.returncode == 1
    messages = [json.loads(line)["message"] for line in ended.stdout.splitlines()]
    assert f"Connection in use: ('0.0.0.0', {port})" in messages


def test_only_probes_are_answered_for_any_host(start: StartServer) -> None:
    with start().client(Host="10.1.2.3") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/api/docs/").json()["code"] == "invalid"  # ALLOWED_HOSTS


def test_an_unknown_address_is_a_404_as_json(start: StartServer) -> None:
    with start().client() as client:
        unknown = client.get("/nowhere")
    assert (unknown.status_code, unknown.json()) == (
        404,
        {"detail": "Not found.", "code": "not_found"},
    )


LIMIT = 1_000_000  # bytes, docs/api.md


def in_pieces(size: int) -> Iterator[bytes]:
    """A body without Content-Length, sent in chunks."""
    for at in range(0, size, 65_536):
        yield b"x" * min(65_536, size - at)


def test_a_body_over_1_mb_is_413_with_or_without_length(start: StartServer) -> None:
    server = start(OPENAI_API_KEY="sk-canary")
    with server.client() as client:
        for size in (LIMIT + 1, 5 * LIMIT):
            for body in (b"x" * size, in_pieces(size)):
                answer = client.post(
                    "/api/auth/token/", content=body, headers={"Content-Type": "application/json"}
                )
                assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        for body in (b"x" * LIMIT, in_pieces(LIMIT)):
            answer = client.post(
                "/api/auth/token/", content=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 400  # read, and no JSON
        assert client.get("/healthz").status_code == 200
    assert "ERROR" not in server.log


def test_a_command_works_in_any_working_directory(tree: Path, tmp_path: Path) -> None:
    values = clean_environment(DATABASE_URL=AWAY, SECRET_KEY="test", PORT="none")
    command = [sys.executable, str(tree / "manage.py"), "check"]
    refused = subprocess.run(command, cwd=tmp_path, env=values, capture_output=True, text=True)
    assert refused.stderr.startswith("Verse cannot start: PORT='none'")
