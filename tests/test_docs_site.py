"""The documentation site: ``make docs``."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT, clean_environment

SPEC = importlib.util.spec_from_file_location("build", ROOT / "docs" / "site" / "build.py")
assert SPEC
assert SPEC.loader
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)


def test_the_site_has_each_page_once() -> None:
    docs = ROOT / "docs"
    names = {str(path.relative_to(docs))[:-3] for path in docs.rglob("*.md")}
    listed = [name for section in build.pages().values() for name in section]
    assert sorted(listed) == sorted(names | {"changelog"})


@pytest.mark.parametrize(
    "loading",
    [
        '<script async src="https://example.com/x.js">',
        '<link rel="stylesheet" href="//example.com/x.css">',
        '<img alt="" src="http://example.com/x.png">',
        "<style>@import 'https://example.com/x.css'</style>",
    ],
)
def test_what_a_page_loads_from_others_is_noticed(loading: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<a href="https://example.com">a link</a><script src="own.js"></script>')
    assert list(build.loads_from_others(tmp_path)) == []
    page.write_text(loading)
    assert len(list(build.loads_from_others(tmp_path))) == 1


@pytest.mark.soak
def test_the_site_is_built_without_a_warning() -> None:
    """Installs the generator, which needs a network."""
    run = subprocess.run(
        ["make", "docs"], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert (ROOT / "build" / "docs" / "search.html").exists()
