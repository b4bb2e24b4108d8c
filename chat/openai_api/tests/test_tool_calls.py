"""Calls of tools as model servers send them: with nulls, empty texts, and without an index."""

from typing import Any

import pytest

from chat.openai_api.tests.support import Bearer, user
from fake_openai import Deltas, FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}]


def delta(name: str | None, arguments: str | None, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}} | more


def call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


NULLS = (  # SGLang
    delta("clock", "", index=0, id="c1", type="function"),
    delta(None, "{}", index=0, id=None, type=None),
    delta(None, None, index=0, id=None, type=None),
)
EMPTY = (  # DashScope
    delta("clock", "", index=0, id="c1", type="function"),
    delta("", "{}", index=0, id="", type=""),
)
LATE = (delta(None, "", index=0, id="", type=None), delta("clock", "{}", index=0, id="c1"))
REPEATED = (delta("clock", "{", index=0, id="c1"), delta("clock", "}", index=0, id="c1"))
APART = (  # each call in chunks of its own, without an index
    delta("clock", "{", id="c1"),
    delta(None, "}"),
    delta("date", "", id="c2"),
    delta("date", "[]", id="c2"),
)
CLOCK, DATE = call("c1", "clock", "{}"), call("c2", "date", "[]")


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        (NULLS, [CLOCK]),
        (EMPTY, [CLOCK]),
        (LATE, [CLOCK]),
        (REPEATED, [CLOCK]),
        (APART, [CLOCK, DATE]),
    ],
)
def test_a_call_has_the_first_id_and_name_of_its_deltas(
    deltas: tuple[dict[str, Any], ...],
    calls: list[dict[str, Any]],
    bearer: Bearer,
    fake_openai: FakeOpenAI,
) -> None:
    script = Deltas(tuple({"tool_calls": [each]} for each in deltas), "tool_calls")
    fake_openai.chat.script(script, script)
    whole = bearer.ask(user("What time is it?"), tools=TOOLS).body["choices"][0]["message"]
    assert whole["tool_calls"] == calls
    assert calls_sent(bearer.events(user("What time is it?"), tools=TOOLS), deltas) == calls


def test_calls_in_one_chunk_without_an_index_stay_apart(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    begun = [delta("clock", "{", id="c1"), delta("date", "[", id="c2")]
    more = [delta(None, "}"), delta(None, "]")]
    fake_openai.chat.script(Deltas(({"tool_calls": begun}, {"tool_calls": more}), "tool_calls"))
    whole = bearer.ask(user("What time is it?"), tools=TOOLS).body["choices"][0]["message"]
    assert whole["tool_calls"] == [CLOCK, DATE]


def calls_sent(events: list[Any], deltas: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """The calls of a stream, by the indexes in it. It passes the server's deltas on unchanged."""
    chunks = [event["choices"][0]["delta"] for event in events[:-1]]
    sent = [each for chunk in chunks for each in chunk.get("tool_calls", [])]
    assert [each | {"index": None} for each in sent] == [each | {"index": None} for each in deltas]
    calls: dict[int, dict[str, Any]] = {}
    for each in sent:
        known = calls.setdefault(each["index"], call("", "", ""))
        known["id"] = known["id"] or each.get("id")
        function = known["function"]
        function["name"] = function["name"] or each["function"]["name"]
        function["arguments"] += each["function"]["arguments"] or ""
    return list(calls.values())
