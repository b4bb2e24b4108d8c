"""deploy/alerts: the rules use only metrics that the real rag_status yields, and can be loaded."""

import json
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
import yaml
from django.core.management import call_command

from tests.support import ROOT

ALERTS = ROOT / "deploy/alerts"
PAGE = ROOT / "docs/howto/set-alerts.md"
pytestmark = [pytest.mark.newest_schema, pytest.mark.django_db]


def metrics_of(report: str) -> str:
    """What metrics.py prints for this output of rag_status --json."""
    command = [sys.executable, str(ALERTS / "metrics.py")]
    return subprocess.run(command, input=report, capture_output=True, text=True, check=True).stdout


def status(capsys: pytest.CaptureFixture[str]) -> str:
    """The output of rag_status --json."""
    call_command("rag_status", "--json")
    return capsys.readouterr().out


def rules() -> list[dict[str, Any]]:
    """Every alert of rules.yaml."""
    groups = yaml.safe_load((ALERTS / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_rules_use_only_metrics_that_rag_status_yields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = metrics_of(status(capsys)).splitlines()
    yielded = {re.split("[{ ]", line)[0] for line in lines if not line.startswith("#")}
    used = {name for rule in rules() for name in re.findall(r"\bverse_memory_\w+", rule["expr"])}
    assert used
    assert used <= yielded


def test_metrics_have_the_figures_of_rag_status(capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(status(capsys))
    report["tables"]["chat_messages"] |= {"with": 7, "without": 3, "failed": 1}
    report |= {"model": "text-embedding-3-small", "configured_model": "another"}
    report["indexes"][0]["valid"] = False
    report["log"]["hour"] = {"django.request": 2, "An answer failed": 1}
    text = metrics_of(json.dumps(report))
    index = report["indexes"][0]
    for line in (
        'verse_memory_messages{table="chat_messages",state="without"} 3',
        'verse_memory_messages{table="chat_messages",state="failed"} 1',
        "verse_memory_model_matches 0",
        "verse_memory_logged_errors 3",
        f'verse_memory_index_valid{{table="{index["table"]}",index="{index["name"]}"}} 0',
    ):
        assert line in text.splitlines()


def test_each_metric_has_one_help_line_before_its_samples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = metrics_of(status(capsys)).splitlines()
    helped = [line.split()[2] for line in lines if line.startswith("# HELP")]
    named = [re.split("[{ ]", line)[0] for line in lines if not line.startswith("#")]
    assert helped == list(dict.fromkeys(named))


def test_the_page_lists_exactly_the_alerts() -> None:
    rows = re.findall(r"^\| `(Verse\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [rule["alert"] for rule in rules()]
    assert all(rule["annotations"]["action"] for rule in rules())


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_the_rules() -> None:
    command = ["promtool", "check", "rules", str(ALERTS / "rules.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
