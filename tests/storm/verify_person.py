"""After the storm: what the API gives a user equals what was acknowledged during it."""

import asyncio
import json
from collections import Counter
from typing import Any

from tests.storm.client import Reply
from tests.storm.expectations import Exchange, Expected, Presence, Talk
from tests.storm.marks import mark_of, marks_in
from tests.storm.person import Person, now
from tests.storm.script import TOPICS

Row = dict[str, Any]
GATHERED = 100  # of a list, on a page
SEARCHED_MARKS = 40  # of forgotten texts that are searched for one by one


async def verify(person: Person) -> None:
    """All of one user's data, by the API."""
    for kind in ("chats", "passages"):
        await _verify_talks(person, kind)
    await _verify_forgotten(person)
    await _verify_export(person)


async def settle(person: Person, *, rounds: int) -> None:
    """Wait until nothing of the user's is pending."""
    for _ in range(rounds):
        state = await _get(person, "/api/memory/")
        if state.body["pending"] == 0:
            return
        await asyncio.sleep(1)
    _found(person, "everything is embedded", "", f"{state.body}")


async def _get(person: Person, path: str, **params: str) -> Reply:
    """A request that must succeed now."""
    reply = await person.client.ask(0, "GET", path, params=params or None)
    assert reply is not None, path
    assert reply.status == 200, (path, reply)
    return reply


async def _rows(person: Person, path: str) -> list[Row]:
    """All rows of a list."""
    rows: list[Row] = []
    address: str | None = f"{path}?page_size={GATHERED}"
    while address:
        page = await _get_page(person, address)
        rows += page["results"]
        address = page["next"]
    return rows


async def _get_page(person: Person, address: str) -> Any:
    reply = await person.client.ask(0, "GET", address)
    assert reply is not None, address
    assert reply.status == 200, (address, reply)
    return reply.body


async def _verify_talks(person: Person, kind: str) -> None:
    """The conversations of a kind: all that are certain, none deleted, none unknown."""
    name = "title" if kind == "chats" else "reference"
    listed = {row["id"]: row[name] for row in await _rows(person, f"/api/{kind}/")}
    talks = [talk for talk in person.diary.talks if talk.kind == kind]
    known = {talk.title: talk for talk in talks}
    for talk in talks:
        is_listed = talk.pk in listed if talk.pk else talk.title in listed.values()
        if talk.presence == Presence.CERTAIN and not is_listed:
            _found(person, "conversation stored", talk.pk, f"{talk.title} is missing")
        if talk.presence == Presence.DELETED and talk.pk in listed:
            _found(person, "forgotten stays forgotten", talk.pk, f"{talk.title} is listed")
    for pk, title in listed.items():
        if title not in known:
            _found(person, "nothing unknown", pk, f"a conversation {title}")
        elif known[title].presence != Presence.DELETED:
            await _verify_messages(person, known[title], f"/api/{kind}/{pk}/messages/")


async def _verify_messages(person: Person, talk: Talk, path: str) -> None:
    rows = await _rows(person, path)
    person.findings.counts["messages verified"] += len(rows)
    for row in rows:
        if row["status"] == "streaming":
            _found(person, "no answer streams for ever", row["id"], path)
    places = {row["id"]: place for place, row in enumerate(rows)}
    order = [_place(person, expected, rows, places) for expected in talk.messages]
    known = [place for place in order if place is not None]
    if known != sorted(known):
        _found(person, "messages in order", talk.pk, f"the order is {order} in {path}")
    _verify_nothing_unknown(person, talk, rows)


def _place(
    person: Person, expected: Expected, rows: list[Row], places: dict[int, int]
) -> int | None:
    """Where the message is, None if it is not there; checks that it is as it must be."""
    place = places.get(expected.pk) if expected.pk else _place_of_text(expected, rows)
    if expected.presence == Presence.DELETED and place is not None and expected.pk:
        _found(person, "forgotten stays forgotten", expected.pk, "a deleted message is listed")
    if expected.presence == Presence.CERTAIN and place is None and (expected.pk or expected.texts):
        _found(person, "message stored once", expected.pk or expected.mark, "missing")
    is_known = place is not None and expected.texts and expected.presence == Presence.CERTAIN
    if is_known and rows[place or 0]["content"] not in (expected.texts or ()):
        detail = f"{rows[place or 0]['content']!r} instead of {expected.texts}"
        _found(person, "message stored as acknowledged", expected.pk, detail)
    return place


def _place_of_text(expected: Expected, rows: list[Row]) -> int | None:
    places = (n for n, row in enumerate(rows) if row["content"] in (expected.texts or ()))
    return next(places, None)


def _verify_nothing_unknown(person: Person, talk: Talk, rows: list[Row]) -> None:
    """Each question is one of the user's, and stored once."""
    questions = Counter(mark_of(row["content"]) for row in rows if row["role"] == "user")
    known = {mark for pair in talk.exchanges for mark in _question_marks(pair)}
    for mark, times in questions.items():
        if times > 1:
            _found(person, "message stored once", mark, f"stored {times} times")
        if mark not in known:
            _found(person, "nothing unknown", mark, "a message that is deleted, or was refused")


def _question_marks(pair: Exchange) -> set[str]:
    return set() if pair.question.presence == Presence.DELETED else pair.question.marks


async def _verify_forgotten(person: Person) -> None:
    """Searches for what was forgotten, and for everything."""
    marks = [*person.diary.forgotten][-SEARCHED_MARKS:]
    for query in (*TOPICS, *marks):
        sent_at = now()
        reply = await _get(person, "/api/memory/search/", q=query, limit="50")
        person.findings.counts["searches verified"] += 1
        person.check_memories(reply.body["results"], sent_at=sent_at)


async def _verify_export(person: Person) -> None:
    """All that is certain is exported, and nothing that was deleted."""
    reply = await _get(person, "/api/memory/export/")
    lines = [json.loads(line) for line in str(reply.body).split("\n") if line]
    tables = {"chats": "standalone_chat_messages", "passages": "chat_messages"}
    exported = {(line["table"], line.get("id")) for line in lines}
    for talk in person.diary.talks:
        for expected in talk.messages:
            is_exported = (tables[talk.kind], expected.pk) in exported
            if expected.pk and expected.presence == Presence.CERTAIN and not is_exported:
                _found(person, "export is whole", expected.pk, "not exported")
            if expected.pk and expected.presence == Presence.DELETED and is_exported:
                _found(
                    person,
                    "forgotten stays forgotten",
                    expected.pk,
                    "a deleted message is exported",
                )
    for line in lines:
        # An answer stays in its conversation, even if it repeats what was deleted.
        own = mark_of(str(line.get("content", ""))) if line.get("role") == "user" else ""
        if own in person.diary.forgotten:
            _found(
                person,
                "forgotten stays forgotten",
                line["id"],
                f"{marks_in(line['content'])} exported",
            )


def _found(person: Person, rule: str, message: int | str | None, detail: str) -> None:
    person.findings.add(rule, person.diary.user, message, detail)
