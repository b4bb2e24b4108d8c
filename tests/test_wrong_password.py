"""A wrong database password: one line that names the setting, without its value."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.guide import Place
from tests.support import ROOT, clean_environment

WRONG = "canary-of-a-wrong-password"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A PostgreSQL that requires passwords."""
    place = Place(16)
    yield place
    place.remove()


@pytest.mark.parametrize("setting", ["DATABASE_URL", "DATABASE_DIRECT_URL"])
@pytest.mark.parametrize("command", ["rag_doctor", "migrate"])
def test_one_line_names_the_setting_without_its_value(
    command: str, setting: str, place: Place
) -> None:
    url = f"postgresql://verse:{WRONG}@/verse?host={place.sockets}&port=5432"
    urls = {"DATABASE_URL": "postgresql://verse@127.0.0.1:1/verse"} | {setting: url}
    done = subprocess.run(
        [sys.executable, "manage.py", command],
        cwd=ROOT,
        env=clean_environment(**urls, SECRET_KEY="test"),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.strip().splitlines()
    assert "password authentication failed" in line
    assert line.endswith(f"; correct {setting}")
    assert WRONG not in line
