"""The comparison of two versions notices what changes for operators and clients."""

from pathlib import Path

from tests.compare_versions import differences, leaves, log_lines


def test_a_key_that_is_renamed_is_a_difference() -> None:
    old = {place for place, _ in leaves({"checks": [{"name": "a", "fix": ""}, {"name": "b"}]})}
    new = {place for place, _ in leaves({"checks": [{"name": "a", "repair": ""}]})}
    assert differences(old, new) == ["- .checks[].fix", "+ .checks[].repair"]


def test_empty_lists_and_objects_are_values() -> None:
    assert list(leaves({"usage": [], "sizes": {}})) == [(".usage", []), (".sizes", {})]


def test_log_lines_of_product_code_are_read(tmp_path: Path) -> None:
    for name in ("chat/answers/runner.py", "chat/tests/test_x.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text('logger.error("No answer: %s", error)\nlogger.info("%s", line)\n')
    assert list(log_lines(tmp_path)) == ["log: No answer: %s"]
