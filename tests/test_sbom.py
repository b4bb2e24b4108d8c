"""The bill of materials names each package of a server."""

import json
import re
import subprocess

import pytest

from tests.support import ROOT

PINNED = re.compile(r"^([\w.-]+)==([^ \\]+)", re.MULTILINE)


@pytest.mark.soak  # downloads the tool that writes it
def test_the_bill_has_each_pinned_package_with_its_hash() -> None:
    subprocess.run(["make", "sbom"], cwd=ROOT, check=True)
    bill = json.loads((ROOT / "build/sbom.json").read_text())
    named = {(part["name"], part["version"]): part for part in bill["components"]}
    assert set(named) == set(PINNED.findall((ROOT / "requirements-production.lock").read_text()))
    assert all(part["purl"].startswith("pkg:pypi/") for part in named.values())
    project = bill["metadata"]["component"]
    assert f'version = "{project["version"]}"' in (ROOT / "pyproject.toml").read_text()
