"""The list of faults names tests that exist, and the page is made of it."""

from xml.etree import ElementTree

from tests.faults.report import PAGE, Outcome, Row, all_rows, line_of, outcomes
from tests.support import ROOT

NUMBER_OF_FAULTS = 58
CASES = """
<testsuite>
    <testcase classname="tests.test_a" name="test_b[1]">
        <properties><property name="figure" value="40 kept"/></properties>
    </testcase>
    <testcase classname="tests.test_a" name="test_b[2]"><failure/></testcase>
    <testcase classname="tests.test_a" name="test_c"><skipped/></testcase>
</testsuite>
"""


def test_each_fault_has_tests_or_says_why_not() -> None:
    rows = all_rows()
    assert [row.number for row in rows] == list(range(1, NUMBER_OF_FAULTS + 1))
    for row in rows:
        assert bool(row.tests) != bool(row.unseen), row
        for test in row.tests:
            path, _, name = test.partition("::")
            assert f"\ndef {name}(" in (ROOT / path).read_text(), test


def test_the_page_has_each_fault_and_none_failed() -> None:
    page = PAGE.read_text()
    for row in all_rows():
        assert f"| {row.number} | {row.fault} | {row.seen} |" in page, "run make faults"
    assert "**failed**" not in page


def test_a_failed_or_skipped_test_is_not_seen() -> None:
    ids = ["tests/test_a.py::test_b", "tests/test_a.py::test_c"]
    results = outcomes(ElementTree.fromstring(CASES).iter("testcase"), ids)
    assert results[ids[0]] == Outcome(passed=1, failed=1, figures=["40 kept"])
    for test in ids:
        assert "**failed**" in line_of(Row(1, "", "", "", [test]), results)
    passed = {ids[0]: Outcome(passed=2, figures=["40 kept"])}
    assert "| seen, 2 tests; 40 kept |" in line_of(Row(1, "", "", "", [ids[0]]), passed)
