"""Turns of a user: whole, streamed, left, followed, stopped, regenerated."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from tests.storm.client import Reply, until_answered
from tests.storm.expectations import Exchange, Expected, Presence, Talk
from tests.storm.fakes import SLOWLY
from tests.storm.marks import mark_of
from tests.storm.person import Person, now
from tests.storm.script import Action

Ask = Callable[..., Awaitable[Reply | None]]
WITH_MESSAGES = {201, 502, 504}  # their bodies hold the question and the answer


async def turn(person: Person, action: Action) -> None:
    await _turn(person, action, person.client.ask)


async def streamed_turn(person: Person, action: Action) -> None:
    await _turn(person, action, person.client.read_events)


async def left_turn(person: Person, action: Action) -> None:
    """Leaves in the middle of the answer."""
    await _turn(person, action, partial(person.client.read_events, leave_after=3))


async def followed_turn(person: Person, action: Action) -> None:
    """Leaves in the middle of the answer, and reads its end from the other server."""
    talk = await _turn(person, action, partial(person.client.read_events, leave_after=3))
    if talk is None or not talk.exchanges[-1].question.is_certain:
        return
    answer, path = talk.exchanges[-1].answer, f"/api/{talk.kind}/{talk.pk}/messages/"
    if await _find_running(person, action, path, answer):
        events = f"{path}{answer.pk}/events/"
        reply = await person.client.read_events(1 - action.web, "GET", events)
        for name, data in reply.events if reply else ():
            if name == "done":
                answer.acknowledge(data["assistant_message"])


async def stopped_turn(person: Person, action: Action) -> None:
    """Stops the answer by a request to the other server."""
    began, talk = asyncio.Event(), person.talk_for(action)
    read = partial(person.client.read_events, began=began)
    running = asyncio.create_task(_turn(person, action, read, words=f"{SLOWLY} {action.words}"))
    waiting = asyncio.create_task(began.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if began.is_set() and talk:
        await _stop(person, action, talk)
    await running
    waiting.cancel()


async def _stop(person: Person, action: Action, talk: Talk) -> None:
    path, answer = f"/api/{talk.kind}/{talk.pk}/messages/", Expected("assistant", None)
    if not await _find_running(person, action, path, answer):
        return
    reply = await person.client.ask(1 - action.web, "POST", f"{path}{answer.pk}/stop/")
    if reply and reply.status == 200:
        person.findings.count("stopped")
        if reply.body["status"] == "streaming":
            person.findings.add("stop ends", person.diary.user, answer.pk, "it still streams")


async def _find_running(person: Person, action: Action, path: str, answer: Expected) -> bool:
    """Set the id of the conversation's last answer, if it runs."""
    newest = {"newest": "1", "page_size": "1"}
    reply = await person.client.ask(1 - action.web, "GET", path, params=newest)
    if reply is None or reply.status != 200 or not reply.body["results"]:
        return False
    last = reply.body["results"][-1]
    if last["role"] == "assistant" and last["status"] == "streaming":
        answer.pk = last["id"]
        return True
    return False


async def regenerate(person: Person, action: Action) -> None:
    """Another answer to the last question."""
    talk = person.talk_for(action)
    if talk is None or not talk.exchanges:
        return
    pair, diary = talk.exchanges[-1], person.diary
    text = min(pair.question.texts or {""})
    if not (pair.question.is_certain and pair.answer.is_certain) or pair.question.texts != {text}:
        return
    before, pair.answer.texts = pair.answer.texts, None
    diary.expects_answer(text)
    key = {"Idempotency-Key": f"{mark_of(text)} again {diary.generations[mark_of(text)]}"}
    path = f"/api/{talk.kind}/{talk.pk}/messages/{pair.answer.pk}/regenerate/"

    async def ask(web: int) -> Reply | None:
        diary.asks(text)
        sent_at = now()
        reply = await person.client.ask(web, "POST", path, headers=key)
        if reply and reply.status in WITH_MESSAGES:
            diary.forget({mark_of(known) for known in before or ()} - {""})
            _note(person, pair, reply, sent_at)
        return reply

    reply, is_unknown = await until_answered(action, ask)
    if reply and reply.status == 404:
        person.lost(pair.answer, path)
    elif reply and not is_unknown and reply.status not in WITH_MESSAGES:
        pair.answer.texts = before  # it was refused


async def _turn(
    person: Person, action: Action, read: Ask, *, words: str | None = None
) -> Talk | None:
    """Post a message and repeat it with its key; where it was posted."""
    talk = person.talk_for(action)
    if talk is None:
        return None
    text = person.diary.new_text(words or action.words)
    pair = Exchange(Expected("user", {text}), Expected("assistant", None))
    talk.exchanges.append(pair)
    person.diary.expects_answer(text)
    path, key = f"/api/{talk.kind}/{talk.pk}/messages/", {"Idempotency-Key": mark_of(text)}

    async def ask(web: int) -> Reply | None:
        person.diary.asks(text)
        pair.answer.texts, sent_at = None, now()
        reply = await read(web, "POST", path, json={"content": text}, headers=key)
        if reply:
            _note(person, pair, reply, sent_at)
        return reply

    reply, is_unknown = await until_answered(action, ask)
    if reply and reply.status == 404:
        person.lost(pair.question, path)
    if reply and not is_unknown and pair.question.presence == Presence.MAYBE:
        talk.exchanges.remove(pair)  # it was refused
    return talk


def _note(person: Person, pair: Exchange, reply: Reply, sent_at: float) -> None:
    """Write down what the reply acknowledges."""
    if reply.status in WITH_MESSAGES:
        pair.question.acknowledge(reply.body["user_message"])
        pair.answer.acknowledge(reply.body["assistant_message"])
        person.check_memories(reply.body.get("context", []), sent_at=sent_at)
        person.findings.count("turns")
    for name, data in reply.events:
        if name == "context":
            pair.question.acknowledge(data["user_message"])
            pair.answer.presence = Presence.CERTAIN
            person.check_memories(data["context"], sent_at=sent_at)
            person.findings.count("turns")
        elif name == "done":
            pair.answer.acknowledge(data["assistant_message"])
