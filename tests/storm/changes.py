"""What a user changes: messages, conversations, imports, switches; and what they search."""

import asyncio
import json
from typing import Any

from tests.storm.client import RETRY_PAUSE_S, Reply, until_answered
from tests.storm.expectations import Exchange, Expected, Presence, Talk
from tests.storm.person import Person, choose, now
from tests.storm.script import Action

IMPORTED_AT = "2026-01-02T03:04:{:02d}Z"
IMPORTED_TURNS = 2


async def edit(person: Person, action: Action) -> None:
    chosen = _message(person, action, roles={"user"})
    if chosen is None:
        return
    expected, path = chosen
    text = person.diary.new_text(action.words)
    reply, is_unknown = await _ask(person, action, "PATCH", path, json={"content": text})
    before = expected.texts or set()
    if reply and reply.status == 200:
        marks = expected.marks
        expected.acknowledge(reply.body)
        person.diary.forget(marks - expected.marks)
    elif reply and reply.status == 404:
        person.lost(expected, path)
    elif is_unknown:
        expected.texts = before | {text}


async def delete(person: Person, action: Action) -> None:
    chosen = _message(person, action, roles={"user", "assistant"})
    if chosen is None:
        return
    expected, path = chosen
    reply, is_unknown = await _ask(person, action, "DELETE", path)
    if _is_deleted(reply, is_unknown=is_unknown):
        person.diary.forget_message(expected)
    elif reply and reply.status == 404:
        person.lost(expected, path)
    elif is_unknown:
        expected.presence = Presence.MAYBE


def _message(person: Person, action: Action, *, roles: set[str]) -> tuple[Expected, str] | None:
    """A stored message of the user's conversations, and its address."""
    talk = person.talk_for(action)
    if talk is None:
        return None
    known = [
        expected for expected in talk.messages if expected.role in roles and expected.is_certain
    ]
    expected = choose(known[-8:], action.place)
    return (expected, f"/api/{talk.kind}/{talk.pk}/messages/{expected.pk}/") if expected else None


async def _ask(
    person: Person, action: Action, method: str, path: str, **request: Any
) -> tuple[Reply | None, bool]:
    return await until_answered(action, lambda web: person.client.ask(web, method, path, **request))


def _is_deleted(reply: Reply | None, *, is_unknown: bool) -> bool:
    """Whether the deletion is acknowledged; 404: an earlier attempt has deleted it."""
    return bool(reply and (reply.status in (200, 204) or (reply.status == 404 and is_unknown)))


async def new_conversation(person: Person, action: Action) -> None:
    kind = "passages" if action.place < 0.3 else "chats"
    talk = Talk(kind, person.diary.new_text(action.words))
    fields = {"reference": talk.title, "text": "And the dog followed."}
    body = fields if kind == "passages" else {"title": talk.title}
    reply, is_unknown = await _ask(person, action, "POST", f"/api/{kind}/", json=body)
    if reply and reply.status == 201:
        talk.pk, talk.presence = reply.body["id"], Presence.CERTAIN
    if talk.pk or is_unknown:
        person.diary.talks.append(talk)


async def delete_conversation(person: Person, action: Action) -> None:
    talk = person.talk_for(action)
    if talk is None:
        return
    path = f"/api/{talk.kind}/{talk.pk}/"
    reply, is_unknown = await _ask(person, action, "DELETE", path)
    if _is_deleted(reply, is_unknown=is_unknown):
        person.diary.forget_talk(talk)
    elif reply and reply.status == 404:
        person.lost(Expected("user", None), path)
    elif is_unknown:
        person.diary.doubt_talk(talk)


async def import_file(person: Person, action: Action) -> None:
    """Import a chat, and wait for the end."""
    talk = Talk("chats", person.diary.new_text("imported"))
    texts = [person.diary.new_text(action.words) for _ in range(2 * IMPORTED_TURNS)]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    talk.exchanges = [
        Exchange(Expected("user", {expected}), Expected("assistant", {answered}))
        for expected, answered in pairs
    ]
    file = ("chat.jsonl", _lines(talk.title, texts))

    async def ask(web: int) -> Reply | None:
        form = {"files": {"file": file}, "data": {"format": "jsonl"}}
        return await person.client.ask(web, "POST", "/api/memory/import/", **form)

    reply, is_unknown = await until_answered(action, ask)
    if reply and reply.status == 202:
        if not is_unknown:  # else an earlier attempt may have added what this one finds there
            talk.import_id = reply.body["id"]
        status = await _import_status(person, action, reply.body["id"])
        is_unknown = is_unknown or status != "failed"
        if status == "done":
            person.diary.confirm_talk(talk)
    if is_unknown:
        person.diary.talks.append(talk)


def _lines(title: str, texts: list[str]) -> bytes:
    roles = ["user", "assistant"] * IMPORTED_TURNS
    lines = [
        {"conversation": title, "role": role, "content": text}
        | {"created_at": IMPORTED_AT.format(second)}
        for second, (role, text) in enumerate(zip(roles, texts, strict=True))
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


async def _import_status(person: Person, action: Action, import_id: int) -> str:
    """The status at the end of the import, or "running" if it was not seen."""
    path = f"/api/memory/import/{import_id}/"
    for attempt in range(action.attempts):
        reply = await person.client.ask((action.web + attempt) % 2, "GET", path)
        if reply and reply.status == 200 and reply.body["status"] != "running":
            return str(reply.body["status"])
        await asyncio.sleep(RETRY_PAUSE_S)
    return "running"


async def remove_import(person: Person, action: Action) -> None:
    talks = [talk for talk in person.diary.talks if talk.import_id]
    talk = choose([talk for talk in talks if talk.presence == Presence.CERTAIN], action.pick)
    if talk is None:
        return
    path = f"/api/memory/import/{talk.import_id}/"
    reply, is_unknown = await _ask(person, action, "DELETE", path)
    if _is_deleted(reply, is_unknown=is_unknown):
        person.diary.forget_talk(talk)
    elif is_unknown:
        person.diary.doubt_talk(talk)


async def switch_conversation(person: Person, action: Action) -> None:
    if talk := person.talk_for(action):
        body = {"memory": action.place < 0.5}
        path = f"/api/{talk.kind}/{talk.pk}/"
        await _switch(person, action, path, body, talk.memory)


async def switch_memory(person: Person, action: Action) -> None:
    body = {"enabled": action.place < 0.5}
    await _switch(person, action, "/api/memory/", body, person.diary.enabled)


async def _switch(
    person: Person, action: Action, path: str, body: dict[str, bool], state: set[bool]
) -> None:
    """``state``: what the switch may be."""
    reply, is_unknown = await _ask(person, action, "PATCH", path, json=body)
    if reply and reply.status == 200:
        state.clear()
    if is_unknown or (reply and reply.status == 200):
        state.update(body.values())


async def erase(person: Person, action: Action) -> None:
    """Erase everything, and begin again."""
    body = {"confirm": f"user {person.diary.user}"}
    reply, is_unknown = await _ask(person, action, "DELETE", "/api/memory/", json=body)
    for talk in person.diary.talks:
        if reply and reply.status == 200:
            person.diary.forget_talk(talk)
        elif is_unknown:
            person.diary.doubt_talk(talk)
    await new_conversation(person, action)


async def search(person: Person, action: Action) -> None:
    sent_at = now()
    query = {"q": f"search {action.words}", "limit": str(1 + int(action.place * 49))}
    reply = await person.client.ask(action.web, "GET", "/api/memory/search/", params=query)
    if reply and reply.status == 200:
        person.check_memories(reply.body["results"], sent_at=sent_at)
        person.findings.count("searches")
