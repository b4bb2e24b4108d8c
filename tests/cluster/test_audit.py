"""What `make cluster` counts as lost, as paid for twice, and as a failure without a cause."""

from collections import Counter
from pathlib import Path
from typing import Any

from fake_openai.record import RecordedRequest
from tests.cluster.audit import Line, explains, is_stored, unexplained_failures
from tests.cluster.balancer import configuration
from tests.cluster.outages import Outage
from tests.cluster.traffic import Operation

QUESTION, ANSWER = "user0 asks number 0 about bread", "You said: user0 asks number 0 about bread"


def acknowledged() -> Operation:
    turn: dict[str, Any] = {"user_message": {"id": 1}}
    turn["assistant_message"] = {"id": 2, "content": ANSWER}
    return Operation("json", QUESTION, turn=turn)


def test_a_turn_is_lost_if_it_is_missing_changed_or_twice() -> None:
    stored, once = {1: QUESTION, 2: ANSWER}, Counter([QUESTION, ANSWER])
    assert is_stored(acknowledged(), stored, once)
    assert not is_stored(acknowledged(), {1: QUESTION}, Counter([QUESTION]))
    assert not is_stored(acknowledged(), stored | {2: "You said:"}, once)
    assert not is_stored(acknowledged(), stored, once + Counter([QUESTION]))


def outage(**fields: Any) -> Outage:
    killed = Outage("server 1 killed", print, **fields)
    killed.began, killed.back = 10.0, 20.0
    return killed


def call(arrived_at: float, finished_at: float) -> RecordedRequest:
    return RecordedRequest("POST", "/v1/embeddings", {}, b"", arrived_at, finished_at)


def test_only_calls_during_an_outage_may_be_paid_for_again() -> None:
    killed = outage(holds_calls=True)
    assert explains(killed, call(9.0, 9.5))  # not committed yet, perhaps
    assert explains(killed, call(15.0, 30.0))
    assert not explains(killed, call(7.0, 8.0))
    assert not explains(killed, call(21.0, 22.0))
    assert not explains(outage(), call(15.0, 16.0))


def test_a_failure_needs_a_cause_in_its_own_outage() -> None:
    killed = outage(reasons={"502": "it was killed"})
    before, during = Line("all parts well"), Line(killed.name)
    during.failed["502"] = 1
    assert unexplained_failures([before, during], [killed]) == []
    before.failed["502"] = 1
    during.failed["500"] = 1
    during.given_up.append("search")
    assert len(unexplained_failures([before, during], [killed])) == 3


def test_the_balancer_runs_with_the_pages_configuration() -> None:
    text = configuration(8000, [8001, 8002], Path("/tmp/admin.sock"))
    for line in ("bind 127.0.0.1:8000", "server web1 127.0.0.1:8001", "server web2 127.0.0.1:8002"):
        assert f"  {line}\n" in text
    assert "stats socket /tmp/admin.sock " in text
    assert ".internal" not in text
