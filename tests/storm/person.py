"""A user: does what the script says, and writes down what was acknowledged."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.storm.client import Client
from tests.storm.expectations import Diary, Expected, Talk
from tests.storm.findings import Findings
from tests.storm.script import Action

T = TypeVar("T")


@dataclass(frozen=True)
class Person:
    """A user with two connections and a diary."""

    client: Client
    diary: Diary
    findings: Findings

    async def live(self, script: Iterator[Action], ended: asyncio.Event) -> None:
        """Act until the event is set."""
        from tests.storm.actions import ACTIONS

        for action in script:
            if ended.is_set():
                return
            self.findings.count(action.kind)
            await ACTIONS[action.kind](self, action)
            await asyncio.sleep(action.pause_s)

    def talk_for(self, action: Action) -> Talk | None:
        """A conversation of the user's, mostly one of the latest; None if there is none."""
        return choose(self.diary.usable_talks()[-5:], action.pick)

    def check_memories(self, memories: list[dict[str, Any]], *, sent_at: float) -> None:
        """What was recalled for a request of this time: nothing forgotten, nothing hidden."""
        diary = self.diary
        hidden = {(talk.kind, talk.pk) for talk in diary.talks if talk.memory == {False}}
        for memory in memories:
            source = memory["source"]
            text = f"{memory['content']} {source['title']}"
            for mark in diary.forgotten_in(text, since=sent_at):
                self._found(
                    "forgotten stays forgotten", memory, f"{mark} is recalled: {text[:200]}"
                )
            if (source["kind"] + "s", source["id"]) in hidden:
                self._found("switched off is hidden", memory, "its conversation's memory is off")
        if memories and diary.enabled == {False}:
            self._found("switched off is hidden", memories[0], "the user's memory is off")

    def lost(self, expected: Expected, path: str) -> None:
        """A stored message is not found."""
        self.findings.add("message stored once", self.diary.user, expected.pk, f"404 to {path}")

    def _found(self, rule: str, memory: dict[str, Any], detail: str) -> None:
        self.findings.add(rule, self.diary.user, memory["message_id"], detail)


def choose(items: list[T], fraction: float) -> T | None:
    """One of the items; None if there are none."""
    return items[int(fraction * len(items))] if items else None


def now() -> float:
    """Seconds, of the clock by which all of the storm is measured."""
    return time.monotonic()
