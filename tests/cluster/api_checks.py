"""Checks of the API over HTTP, through a balancer, of a deployment with several servers.

Each check is a function of a ``Site``. What must work on every server is asked of each by its own
address, so one of them is not the one that gave the answer.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.cluster.site import Site, SlowTurn, contents, events_of, new_chat, say
from tests.support import PATIENCE_S, wait_for

FACT = "The spare key is in the blue teapot."
QUESTION = "Where is the spare key?"


def a_turn_as_json(site: Site) -> None:
    turn = say(site.alice, new_chat(site.alice), "Hello")
    assert turn["assistant_message"]["content"] == "You said: Hello"
    assert turn["assistant_message"]["status"] == "complete"


def a_turn_as_events_comes_word_by_word(site: Site) -> None:
    messages, headers = new_chat(site.alice), {"Accept": "text/event-stream"}
    content = {"content": "One two three"}
    with site.alice.stream("POST", messages, json=content, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = list(events_of(response))
    names = [name for name, _ in events]
    assert (names[0], names[-1]) == ("context", "done")
    assert names.count("delta") >= 3  # the balancer holds nothing back
    assert events[-1][1]["assistant_message"]["content"] == "You said: One two three"


def a_running_answer_is_rejoined_on_every_server(site: Site) -> None:
    with SlowTurn(site.alice, new_chat(site.alice)) as turn:
        pk = turn.answer(site.alice)["id"]
        for server in site.each_server:
            with server.stream("GET", f"{turn.messages}{pk}/events/") as response:
                name, data = next(events_of(response))
            assert name == "delta"
            assert data["text"].startswith("word0")
        site.alice.post(f"{turn.messages}{pk}/stop/").raise_for_status()


def a_running_answer_is_stopped_by_every_server(site: Site) -> None:
    for server in site.each_server:
        with SlowTurn(site.alice, new_chat(site.alice)) as turn:
            pk = turn.answer(site.alice)["id"]
            stopped = server.post(f"{turn.messages}{pk}/stop/").raise_for_status().json()
            assert stopped["status"] == "interrupted"
            *_, (name, data) = turn.events
            assert (name, data["assistant_message"]["status"]) == ("done", "interrupted")


def a_key_is_replayed_on_every_server(site: Site) -> None:
    messages, key = new_chat(site.alice), {"Idempotency-Key": "only once"}
    first = say(site.alice, messages, "Once", **key)
    for server in site.each_server:
        again = server.post(messages, json={"content": "Once"}, headers=key)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.json()["assistant_message"] == first["assistant_message"]
    other = site.alice.post(messages, json={"content": "Twice"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert contents(site.alice, messages) == ["Once", "You said: Once"]


def an_edit_is_seen_on_every_server(site: Site) -> None:
    messages = new_chat(site.alice)
    turn = say(site.alice, messages, "I like tea")
    message = f"{messages}{turn['user_message']['id']}/"
    for number, server in enumerate(site.each_server):
        server.patch(message, json={"content": f"I like {number}"}).raise_for_status()
        for other in site.each_server:
            assert contents(other, messages)[0] == f"I like {number}"
    refused = site.alice.patch(f"{messages}{turn['assistant_message']['id']}/", json={})
    assert refused.status_code in (400, 403)


def a_deletion_is_seen_on_every_server(site: Site) -> None:
    messages = new_chat(site.alice, title="Short")
    turn = say(site.alice, messages, "Forget the zebra")
    site.alice.delete(f"{messages}{turn['user_message']['id']}/").raise_for_status()
    for server in site.each_server:
        assert contents(server, messages) == ["You said: Forget the zebra"]
        page = server.get("/api/memory/search/", params={"q": "zebra", "limit": 50}).json()
        assert "Forget the zebra" not in {memory["content"] for memory in page["results"]}
    chat = messages.removesuffix("messages/")
    assert site.alice.delete(chat).status_code == 204
    assert [server.get(chat).status_code for server in site.each_server] == [404, 404]


def the_last_answer_is_regenerated_on_every_server(site: Site) -> None:
    messages = new_chat(site.alice)
    turn = say(site.alice, messages, "Again")
    pk = turn["assistant_message"]["id"]
    for server in site.each_server:
        again = server.post(f"{messages}{pk}/regenerate/")
        assert again.status_code == 201, again.text
        assert again.json()["assistant_message"]["id"] == pk
    assert contents(site.alice, messages) == ["Again", "You said: Again"]


def a_fact_of_one_server_is_recalled_on_every_server(site: Site) -> None:
    say(site.alice, new_chat(site.alice, title="Kitchen"), FACT)
    for server in site.each_server:
        turn = say(server, new_chat(server), QUESTION)
        assert FACT in {memory["content"] for memory in turn["context"]}
        params: dict[str, str | int] = {"q": QUESTION, "limit": 50, "role": "user"}
        page = server.get("/api/memory/search/", params=params).raise_for_status().json()
        assert page["mode"] == "hybrid"
        assert FACT in {memory["content"] for memory in page["results"]}


def a_memory_switch_counts_on_every_server(site: Site) -> None:
    site.bob.patch("/api/memory/", json={"enabled": False}).raise_for_status()
    for server in site.cluster.servers:
        other = site.client(server.url, "bob")
        assert other.get("/api/memory/").json()["enabled"] is False
        assert other.get("/api/memory/search/", params={"q": "key"}).json()["mode"] == "off"
    site.bob.patch("/api/memory/", json={"enabled": True}).raise_for_status()


def workers_embed_the_answers(site: Site) -> None:
    def is_embedded() -> bool:
        memory = site.alice.get("/api/memory/").raise_for_status().json()
        return bool(memory["embedded"]) and not memory["pending"]

    say(site.alice, new_chat(site.alice), "Bread")
    wait_for(is_embedded)


def lists_go_on_through_the_balancer(site: Site) -> None:
    messages = new_chat(site.alice)
    for number in range(3):
        say(site.alice, messages, f"Page {number}")
    address, seen = f"{messages}?page_size=2", []
    while address:
        page = site.alice.get(address).raise_for_status().json()
        seen += [message["content"] for message in page["results"]]
        address = page["next"]
        assert not address or address.startswith(site.cluster.url), address
    assert seen[::2] == ["Page 0", "Page 1", "Page 2"]


def a_passage_is_a_conversation_too(site: Site) -> None:
    fields = {"reference": "John 3:16", "text": "For God so loved the world"}
    passage = site.alice.post("/api/passages/", json=fields).raise_for_status().json()
    messages = f"/api/passages/{passage['id']}/messages/"
    turn = say(site.alice, messages, "What does it say?")
    assert turn["assistant_message"]["status"] == "complete"


def another_users_chat_is_not_found(site: Site) -> None:
    messages = new_chat(site.alice)
    say(site.alice, messages, "Mine alone")
    assert site.bob.get(messages).status_code == 404
    page = site.bob.get("/api/memory/search/", params={"q": "mine alone", "limit": 50}).json()
    assert "Mine alone" not in {memory["content"] for memory in page["results"]}


def an_export_has_all_and_an_erasure_leaves_nothing(site: Site) -> None:
    say(site.bob, new_chat(site.bob), "To be erased")
    lines = site.bob.get("/api/memory/export/").raise_for_status().text.splitlines()
    assert any(json.loads(line).get("content") == "To be erased" for line in lines)
    erased = site.bob.request("DELETE", "/api/memory/", json={"confirm": "bob"})
    assert erased.raise_for_status().json()["deleted"]["standalone_chats"] >= 1
    for server in site.cluster.servers:
        assert site.client(server.url, "bob").get("/api/chats/").json()["results"] == []


def a_token_is_good_and_revoked_on_every_server(site: Site) -> None:
    login = {"username": "alice", "password": "a password of alice"}
    token = site.alice.post("/api/auth/token/", json=login).raise_for_status().json()
    headers = {"Authorization": f"Token {token['token']}"}
    for status in (200, 401):
        for server in site.each_server:
            assert server.get("/api/chats/", headers=headers).status_code == status
        site.alice.delete(f"/api/auth/tokens/{token['id']}/")


def clients_of_openai_are_answered(site: Site) -> None:
    site.alice.headers["X-Verse-Client-Chat"] = "cluster"
    headers = {"Authorization": f"Bearer {site.cluster.tokens['alice']}"}
    body: dict[str, Any] = {"model": "verse", "messages": [{"role": "user", "content": "Hi"}]}
    whole = site.alice.post("/v1/chat/completions", json=body, headers=headers)
    assert whole.raise_for_status().json()["choices"][0]["message"]["content"] == "You said: Hi"
    body |= {"stream": True}
    streamed = site.alice.post("/v1/chat/completions", json=body, headers=headers)
    assert streamed.raise_for_status().text.rstrip().endswith("data: [DONE]")
    del site.alice.headers["X-Verse-Client-Chat"]


def assistants_search_by_mcp(site: Site) -> None:
    """The SDK sends several requests; each may reach another server."""

    async def search() -> Any:
        headers = {"Authorization": f"Bearer {site.cluster.tokens['alice']}"}
        async with httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S) as http:
            transport = streamable_http_client(f"{site.cluster.url}/mcp", http_client=http)
            async with Client(transport) as client:
                await client.call_tool("remember", {"text": "Anna's dog is called Biscuit."})
                return await client.call_tool("search", {"query": "Anna's dog"})

    results = asyncio.run(search()).structured_content["results"]
    assert "Anna's dog is called Biscuit." in {item["text"] for item in results}


CHECKS: tuple[Callable[[Site], None], ...] = (
    a_turn_as_json,
    a_turn_as_events_comes_word_by_word,
    a_running_answer_is_rejoined_on_every_server,
    a_running_answer_is_stopped_by_every_server,
    a_key_is_replayed_on_every_server,
    an_edit_is_seen_on_every_server,
    a_deletion_is_seen_on_every_server,
    the_last_answer_is_regenerated_on_every_server,
    a_fact_of_one_server_is_recalled_on_every_server,
    a_memory_switch_counts_on_every_server,
    workers_embed_the_answers,
    lists_go_on_through_the_balancer,
    a_passage_is_a_conversation_too,
    another_users_chat_is_not_found,
    an_export_has_all_and_an_erasure_leaves_nothing,
    a_token_is_good_and_revoked_on_every_server,
    clients_of_openai_are_answered,
    assistants_search_by_mcp,
)
