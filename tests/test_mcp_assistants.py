"""Assistants that call the memory tools: a loop with a scripted model, and 1,000 calls of users."""

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth.models import User
from mcp import Client
from openai import AsyncOpenAI
from pytest_django import DjangoDbBlocker

from chat.auth.api_tokens import create_token
from chat.models import KINDS, Passage
from fake_openai import FakeOpenAI
from fake_openai.exchange import Exchange, as_json
from fake_openai.shapes import JSON, Shape
from tests.mcp_support import NOT_THERE, connected, error_of, result_of, talk
from tests.support import Server, memory_settings, serve_test_database

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.newest_schema,
    pytest.mark.soak,
]
QUESTION = "When does our ferry leave?"
FACT = "The ferry Hurtigruten leaves at 21:30."
NAMES = ("alice", "bob", "carol", "dan", "eve")
THINGS = ("boat", "dog", "tea", "hat", "car")
MODES = ("auto", "legacy", "auto", "legacy", "auto")  # the protocol of each
CALLS = 1_000


@pytest.fixture(scope="module")
def verse(openai_server: FakeOpenAI, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """Two processes with memory."""
    settings = memory_settings(openai_server) | {"WEB_CONCURRENCY": "2"}
    yield from serve_test_database(django_db_blocker, openai_server, **settings)


@dataclass(frozen=True)
class ScriptedModel:
    """Calls a tool after the other by what their results say, then answers."""

    async def play(self, exchange: Exchange, _shape: Shape) -> None:
        results = [m["content"] for m in exchange.request.messages if m["role"] == "tool"]
        message = self._next([json.loads(result) for result in results])
        choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "scripted"}
        await exchange.send_whole(as_json(body | {"choices": [choice]}), content_type=JSON)

    def _next(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        match results:
            case []:
                return self._call("search", query=QUESTION)
            case [search]:
                ids = [item["id"] for item in search["results"] if item["text"] == FACT]
                return self._call("fetch", id=ids[0])
            case [_, read]:
                return self._call("remember", text=f"Anna says: {read['text']}")
            case [_, read, _]:
                return self._call("forget", id=read["id"])
            case [*_, _]:
                return {"content": f"I know: {results[2]['text']}"}
        raise AssertionError

    def _call(self, name: str, **arguments: str) -> dict[str, Any]:
        function = {"name": name, "arguments": json.dumps(arguments)}
        return {"tool_calls": [{"id": name, "type": "function", "function": function}]}


async def assistant(memory: Client, model: AsyncOpenAI, question: str) -> list[dict[str, Any]]:
    """What an assistant does with a question: its messages, the last of them the answer."""
    tools: list[Any] = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
            },
        }
        for tool in (await memory.list_tools()).tools
    ]
    messages: list[Any] = [{"role": "user", "content": question}]
    while True:
        reply = await model.chat.completions.create(
            model="scripted", messages=messages, tools=tools
        )
        message = reply.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return messages
        for call in message.tool_calls:
            function = call.function  # type: ignore[union-attr] # no custom tools
            result = await memory.call_tool(function.name, json.loads(function.arguments))
            (content,) = result.content
            text = content.text  # type: ignore[union-attr] # a text
            messages.append({"role": "tool", "tool_call_id": call.id, "content": text})


def test_an_assistants_loop_finds_reads_remembers_and_forgets(
    alice: User, verse: Server, openai_server: FakeOpenAI
) -> None:
    openai_server.reset()
    openai_server.chat.when(QUESTION, ScriptedModel())
    ids = talk(alice, "Hello", "Hi!", "A ferry?", FACT)
    key = create_token(alice)[1]

    async def loop() -> list[dict[str, Any]]:
        async with (
            connected(verse, key) as memory,
            AsyncOpenAI(base_url=openai_server.base_url, api_key="sk-test-0123456789") as model,
        ):
            return await assistant(memory, model, QUESTION)

    *messages, answer = asyncio.run(loop())
    openai_server.reset()
    called = [message["tool_calls"][0]["id"] for message in messages if "tool_calls" in message]
    assert called == ["search", "fetch", "remember", "forget"]
    assert answer["content"] == f"I know: Anna says: {FACT}"
    assert json.loads(messages[-1]["content"]) == {"forgotten": f"chat-{ids[3]}"}
    stored = KINDS["chat"]._default_manager.of(alice).in_order()
    assert list(stored.values_list("content", flat=True)) == [
        "Hello",
        "Hi!",
        "A ferry?",
        f"Anna says: {FACT}",
    ]


@dataclass
class Person:
    """A user, and the ids of the messages that the user has."""

    user: User
    key: str
    ids: set[str] = field(default_factory=set)

    @property
    def canary(self) -> str:
        """A word in each of the user's texts, and in no other's."""
        return f"canary{self.user.username}"

    def check(self, items: list[dict[str, Any]]) -> None:
        """No item is another user's."""
        assert {item["id"] for item in items} <= self.ids
        assert all(self.canary in item["text"] for item in items)


def person(name: str) -> Person:
    """A user with a chat and a passage."""
    user, _ = User.objects.get_or_create(username=name)
    created = Person(user, create_token(user)[1])
    texts = [f"{created.canary} My {thing} is {thing}ish." for thing in THINGS]
    created.ids |= {f"chat-{pk}" for pk in talk(user, *texts)}
    passage = Passage.objects.create(user=user, reference="Tobit 6", text="A dog followed.")
    for text in texts:
        message = passage.messages.create(user=user, role="user", content=text)
        created.ids.add(f"passage-{message.pk}")
    return created


async def call_at_random(
    verse: Server, caller: Person, people: list[Person], rng: random.Random, *, mode: str
) -> int:
    """Calls of all tools with ids of all users; how many searches and readings had a result."""
    results = 0
    async with connected(verse, caller.key, mode=mode) as client:
        for number in range(CALLS // len(people)):
            tool = rng.choice(("search", "search", "fetch", "fetch", "remember", "forget"))
            thing, other = rng.choice(THINGS), rng.choice(people)
            item_id = rng.choice(sorted(other.ids))
            if tool == "search":
                query = f"What is my {thing}? {other.canary}"
                items = (await result_of(client, "search", query=query, limit=50))["results"]
                caller.check(items)
                results += bool(items)
            elif tool == "remember":
                text = f"{caller.canary} My {thing} has the number {number}."
                caller.ids.add((await result_of(client, "remember", text=text))["id"])
            elif other is not caller:
                assert await error_of(client, tool, id=item_id) == NOT_THERE
            elif tool == "fetch":
                read = await result_of(client, "fetch", id=item_id)
                caller.check([read, *read["before"], *read["after"]])
                results += 1
            else:
                await result_of(client, "forget", id=item_id)
                caller.ids.discard(item_id)
    return results


def test_a_thousand_calls_of_users_touch_no_row_of_others(
    transactional_db: None, verse: Server, openai_server: FakeOpenAI
) -> None:
    openai_server.reset()
    people = [person(name) for name in NAMES]

    async def all_at_once() -> list[int]:
        callers = [
            call_at_random(verse, caller, people, random.Random(number), mode=mode)
            for number, (caller, mode) in enumerate(zip(people, MODES, strict=True))
        ]
        return await asyncio.gather(*callers)

    assert min(asyncio.run(all_at_once())) > 50
    for owner in people:
        stored = {
            f"{kind}-{pk}"
            for kind, messages in KINDS.items()
            for pk in messages._default_manager.of(owner.user).values_list("pk", flat=True)
        }
        assert stored == owner.ids
