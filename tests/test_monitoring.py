"""deploy/monitoring: rules and dashboard use metrics that a server has, and can be loaded."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from retrieval.telemetry import metrics
from tests.support import ROOT
from verse.tests.metrics_support import counted, scrape

MONITORING = ROOT / "deploy/monitoring"
PAGE = ROOT / "docs/howto/set-alerts.md"
METRICS_PAGE = ROOT / "docs/observability.md"
VALUES = {"outcome": metrics.OUTCOMES, "reason": metrics.REASONS, "mode": metrics.MODES}
pytestmark = [pytest.mark.newest_schema, pytest.mark.django_db(transaction=True)]


def rules() -> list[dict[str, Any]]:
    """Every alert of rules.yaml."""
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    dashboard: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return list(dashboard["panels"])


def expressions() -> list[str]:
    in_panels = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + in_panels


def test_rules_and_panels_use_only_metrics_that_a_server_has() -> None:
    with counted():
        served = {name.split(" ")[0] for name in scrape()}
    used = {name for text in expressions() for name in re.findall(r"\bverse_\w+", text)}
    assert used
    assert used <= served
    shown = {re.sub("_(bucket|count|sum)$", "", name) for name in served}
    described = set(re.findall(r"^\| `(verse_\w+)", METRICS_PAGE.read_text(), re.MULTILINE))
    assert described == {name for name in shown if name.startswith("verse_")}


def test_rules_and_panels_name_only_labels_with_such_values() -> None:
    for text in expressions():
        for label, value in re.findall(r'(outcome|reason|mode)!?="(\w+)"', text):
            assert value in VALUES[label], text


def test_the_page_lists_exactly_the_alerts() -> None:
    rows = re.findall(r"^\| `(Verse\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [rule["alert"] for rule in rules()]
    assert all(rule["annotations"]["action"] for rule in rules())


def test_panels_lie_side_by_side() -> None:
    places = [tuple(panel["gridPos"][name] for name in "xy") for panel in panels()]
    assert len({panel["id"] for panel in panels()}) == len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())


def test_each_scrape_sends_the_token_to_the_job_of_the_rules() -> None:
    for name in ("prometheus.yaml", "prometheus-kubernetes.yaml"):
        config = yaml.safe_load((MONITORING / name).read_text())
        (job,) = config["scrape_configs"]
        assert job["job_name"] == "verse"
        assert job["authorization"]["credentials_file"].endswith("verse-token")
        assert config["rule_files"] == ["rules.yaml"]


@pytest.mark.soak
@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_the_rules_and_they_fire(tmp_path: Any) -> None:
    for source in (*MONITORING.iterdir(), ROOT / "tests/data/alerts.yaml"):
        shutil.copy(source, tmp_path)
    (tmp_path / "verse-token").write_text("token")
    for arguments in (["check", "config", "prometheus.yaml"], ["test", "rules", "alerts.yaml"]):
        command = ["promtool", *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
