"""The folder in which the processes of a server count. With real servers: test_observability.py."""

from pathlib import Path

import pytest

from retrieval.telemetry import metrics_folder


def test_a_folder_that_cannot_be_created_stops_the_start(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(SystemExit) as refused:
        metrics_folder.create(str(missing))
    assert str(refused.value) == (
        "Verse cannot start: METRICS_TOKEN needs a folder to write; "
        f"{missing}: No such file or directory"
    )


def test_a_link_is_never_taken_for_an_abandoned_folder(tmp_path: Path) -> None:
    (kept_folder := tmp_path / "documents").mkdir()
    link = tmp_path / f"{metrics_folder.PREFIX}link"
    link.symlink_to(kept_folder)
    (tmp_path / f"{metrics_folder.PREFIX}abandoned").mkdir()
    metrics_folder._remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents", link.name]
