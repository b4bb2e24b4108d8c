"""Calls of tools as model servers send them, and the turn that their results complete."""

from typing import Any

import pytest

from chat.memory.embed import finish_embedding_jobs
from chat.models import StandaloneChatMessage
from chat.openai_api.tests.support import Bearer, Message, assistant, texts, user
from fake_openai import Answer, Deltas, FakeOpenAI
from retrieval.forgetting import tainted_on_older_schema

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


def test_calls_of_one_id_in_one_chunk_stay_apart(bearer: Bearer, fake_openai: FakeOpenAI) -> None:
    same = [delta("clock", text, id="clock") for text in ('{"of": "Rome"}', '{"of": "Oslo"}')]
    fake_openai.chat.script(Deltas(({"tool_calls": same},), "tool_calls"))
    whole = bearer.ask(user("What time is it?"), tools=TOOLS).body["choices"][0]["message"]
    assert [each["function"] for each in whole["tool_calls"]] == [each["function"] for each in same]


@pytest.mark.parametrize("deltas", [NULLS, EMPTY, LATE, REPEATED])
def test_deltas_of_one_index_in_one_chunk_stay_one_call(
    deltas: tuple[dict[str, Any], ...], bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    script = Deltas(({"tool_calls": list(deltas)},), "tool_calls")
    fake_openai.chat.script(script, script)
    whole = bearer.ask(user("What time is it?"), tools=TOOLS).body["choices"][0]["message"]
    assert whole["tool_calls"] == [CLOCK]
    assert calls_sent(bearer.events(user("What time is it?"), tools=TOOLS), deltas) == [CLOCK]


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


@pytest.fixture
def looking(bearer: Bearer, remembering: FakeOpenAI) -> dict[str, str]:
    """The header of a chat with a turn, and a question whose answer so far is text and a call."""
    remembering.chat.script(
        Answer("I see."),
        Deltas(({"content": "Let me look."}, {"tool_calls": [CLOCK | {"index": 0}]}), "tool_calls"),
        Answer("It is noon."),
    )
    chat = bearer.ask(user("My clock is in Trieste")).chat
    header = {"X-Verse-Chat": str(chat)}
    bearer.ask(user("What does my clock show?"), tools=TOOLS, headers=header)
    finish_embedding_jobs()
    assert texts(chat)[2:] == ["What does my clock show?", "Let me look."]
    return header


BEFORE = [user("My clock is in Trieste"), assistant("I see.")]


def results(text: str | None) -> list[Message]:
    """The question again, with what its tool has given."""
    return [
        user("What does my clock show?"),
        assistant(text, tool_calls=[CLOCK]),
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
    ]


@pytest.mark.parametrize("text", ["Let me look.", None])
def test_the_result_of_a_tool_is_sent_after_the_turns_before(
    text: str | None, looking: dict[str, str], bearer: Bearer, remembering: FakeOpenAI
) -> None:
    bearer.ask(*results(text), tools=TOOLS, headers=looking)
    assert remembering.chat.requests[-1].messages[1:] == [*BEFORE, *results(text)]


@pytest.mark.parametrize("text", ["Let me look.", None])
def test_the_answer_after_a_tool_replaces_the_text_before(
    text: str | None, looking: dict[str, str], bearer: Bearer
) -> None:
    bearer.ask(*results(text), tools=TOOLS, headers=looking)
    *before, question, answer = StandaloneChatMessage.objects.in_order()
    assert (answer.content, answer.reply_to) == ("It is noon.", question.pk)
    ref = answer.memory_table.pack_ref(answer.pk)
    assert tainted_on_older_schema(bearer.user.pk, [ref]) == set()
    assert answer.context[0] == {"history": [message.pk for message in before]}


def test_an_answer_that_is_to_be_continued_is_sent_once(
    looking: dict[str, str], bearer: Bearer, remembering: FakeOpenAI
) -> None:
    begun = [user("What does my clock show?"), assistant("It shows")]
    bearer.ask(*begun, headers=looking)
    assert remembering.chat.requests[-1].messages[1:] == [*BEFORE, *begun]
