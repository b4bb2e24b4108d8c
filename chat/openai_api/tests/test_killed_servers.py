"""Random histories of clients whose server is killed: what is stored equals what they show last.

Each seed has twenty clients at once, each with a user of its own. Half of them send an id, half of
them an Idempotency-Key. The server is killed by SIGKILL while it answers, and between answers.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2
import openai
import pytest
from django.contrib.auth.models import User
from django.db import connection
from openai import OpenAI

from chat.auth.api_tokens import create_token
from chat.models import RunningAnswer, StandaloneChatMessage
from chat.openai_api.tests.simulated_client import SimulatedClient
from chat.openai_api.tests.support import Message
from fake_openai import Answer, FakeOpenAI
from fake_openai.exchange import Exchange
from fake_openai.shapes import Shape
from tests.support import PATIENCE_S, Server, free_port, wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.newest_schema,
    pytest.mark.soak,
]
SEEDS = range(10)
CLIENTS = 20
KILLS = 4
NO_ANSWER = (openai.APIConnectionError, httpx2.HTTPError)
LAST_WORDS = "one after the other."
TRY_LATER = {409, 429, 503}  # the killed process's answer still counts as running
numbers = count()


class NumberedAnswers:
    """Each answer is another one, and takes half a second."""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        text = f"Answer {next(numbers)}, in some words, {LAST_WORDS}"
        await Answer(text, tokens_per_s=20).play(exchange, shape)


@dataclass
class Person:
    """Asks by OpenAI's library, and again until there is an answer.

    ``is_broken``: the last answer broke off, and the client shows what had come of it.
    ``requests``: how often the person has sent each question, without the library's repetitions.
    """

    client: OpenAI
    rng: random.Random
    has_id: bool
    has_key: bool
    may_ask: threading.Event
    is_broken: bool = field(default=False, init=False)
    requests: Counter[str] = field(default_factory=Counter, init=False)

    def ask(self, messages: list[Message], headers: dict[str, str]) -> tuple[str, int | None]:
        if self.has_key:
            headers = headers | {"Idempotency-Key": str(self.rng.random())}
        request = {"model": "verse", "messages": messages, "extra_headers": headers}
        answer = self._stream if self.rng.random() < 0.5 else self._whole
        self.requests[messages[-1]["content"]] += 1
        until = time.monotonic() + 5 * PATIENCE_S  # the server starts again four times
        while True:
            assert time.monotonic() < until
            self.may_ask.wait(PATIENCE_S)
            try:
                return answer(request)
            except NO_ANSWER:
                pass
            except openai.APIStatusError as error:
                if error.status_code not in TRY_LATER:
                    raise
            time.sleep(0.2)

    def _whole(self, request: dict[str, Any]) -> tuple[str, int | None]:
        raw = self.client.chat.completions.with_raw_response.create(**request)
        self.is_broken = False
        return raw.parse().choices[0].message.content, chat_of(raw)

    def _stream(self, request: dict[str, Any]) -> tuple[str, int | None]:
        """The answer, or at times what came of it before it broke off."""
        raw = self.client.chat.completions.with_raw_response.create(**request, stream=True)
        text = ""
        try:
            for chunk in raw.parse():
                text += chunk.choices[0].delta.content or ""
        except NO_ANSWER:
            if not text.strip() or self.rng.random() < 0.5:
                raise
            self.is_broken = True
            return text, chat_of(raw)
        self.is_broken = False
        return text, chat_of(raw)


def chat_of(raw: Any) -> int | None:
    number = raw.headers.get("X-Verse-Chat")
    return int(number) if number else None


def live(person: Person, shown: SimulatedClient) -> None:
    """A history of some steps, each checked."""
    rng, questions = person.rng, count()
    for _ in range(rng.randrange(5, 10)):
        question = f"Question {next(questions)} of {rng.random()}"
        match rng.choice(("say", "say", "edit", "regenerate", "stop", "title")):
            case "say":
                shown.say(question)
            case "edit":
                shown.edit(rng.randrange(6), question)
            case "regenerate":
                shown.regenerate()
            case "stop":
                shown.stop(rng.randrange(12))
            case "title":
                was_broken = person.is_broken
                shown.ask_for_title()
                person.is_broken = was_broken
        check(person, shown)
    shown.say("The last question")
    while person.is_broken:
        shown.regenerate()
    check(person, shown)


def check(person: Person, shown: SimulatedClient) -> None:
    """Of an answer that broke off, what the dead process had is stored some seconds later."""
    if not person.is_broken:
        shown.check()


@dataclass
class Story:
    """The clients of one seed, and the server that is killed under them."""

    start: Callable[..., Server]
    fake: FakeOpenAI
    rng: random.Random
    may_ask: threading.Event = field(default_factory=threading.Event)
    people: dict[str, Person] = field(default_factory=dict)  # by the user's name

    def run(self) -> None:
        self.may_ask.set()
        running = self._server(free_port())
        with ThreadPoolExecutor(CLIENTS) as pool:
            futures = [
                pool.submit(self._live, running.url, number, self.rng.random())
                for number in range(CLIENTS)
            ]
            for kill in range(KILLS):
                self._wait_for_requests(futures, self.rng.randrange(10, 30))
                if kill % 2:
                    self._wait_until_nothing_is_answered()
                running.kill()
                self.may_ask.set()
                running = self._server(running.port)
        running.kill()
        errors = [(number, future.exception()) for number, future in enumerate(futures)]
        failures = [f"{number}: {error}" for number, error in errors if error]
        assert not failures, "\n".join(failures)

    def _server(self, port: int) -> Server:
        return self.start(PORT=str(port), THROTTLE_MESSAGES="off")

    def _live(self, url: str, number: int, seed: float) -> None:
        user = User.objects.create(username=f"user {number}")
        has_id, has_key = number % 2 == 1, number % 4 > 1
        try:
            with OpenAI(base_url=f"{url}/v1", api_key=create_token(user)[1]) as client:
                person = Person(client, random.Random(seed), has_id, has_key, self.may_ask)
                self.people[user.username] = person
                live(person, SimulatedClient(person.ask, f"own {number}" if has_id else ""))
        finally:
            connection.close()

    def _wait_for_requests(self, futures: list[Future[None]], more: int) -> None:
        """Then some moment of an answer."""
        wanted = len(self.fake.chat.requests) + more
        wait_for(
            lambda: (
                len(self.fake.chat.requests) >= wanted or all(future.done() for future in futures)
            )
        )
        time.sleep(self.rng.random() / 2)

    def _wait_until_nothing_is_answered(self) -> None:
        self.may_ask.clear()
        wait_for(lambda: not RunningAnswer.objects.exists())


def check_that_nothing_is_stored_twice(people: dict[str, Person]) -> None:
    """No question or whole answer in a chat; no question, but its copies, of a client with an id.

    Nor for one request of a client with a key: without an id a first question that is asked again
    begins another chat.
    """
    messages = StandaloneChatMessage.objects.exclude(content="")
    rows = messages.values_list("user__username", "conversation_id", "role", "content")
    whole = [row for row in rows if row[2] == "user" or row[3].endswith(LAST_WORDS)]
    assert max(Counter(whole).values()) == 1
    originals = messages.filter(role="user").exclude(context__contains=[{"copy": True}])
    stored = Counter(originals.values_list("user__username", "content"))
    for (name, question), times in stored.items():
        if people[name].has_id:
            assert times == 1, question
        elif people[name].has_key:
            assert times <= people[name].requests[question], question
    assert not messages.filter(content__contains="### Task").exists()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_stored_is_what_clients_of_killed_servers_show(
    seed: int, server: Callable[..., Server], openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = NumberedAnswers()
    story = Story(server, openai_server, random.Random(seed))
    story.run()
    check_that_nothing_is_stored_twice(story.people)
