"""A client that shows a conversation, and changes it as people do, for property tests."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chat.models import StandaloneChatMessage
from chat.openai_api.tests.support import Message, assistant, user

TITLE = "### Task:\nGenerate a title.\n<chat_history>\n{}\n</chat_history>"
# Sends messages with headers; the answer's text and the number of its chat, None if it failed.
Ask = Callable[[list[Message], dict[str, str]], tuple[str, int | None] | None]


@dataclass
class SimulatedClient:
    """``turns``: the questions and answers that it shows; an answer may be cut, or empty.

    ``own_id``: what it sends as its conversation's id; "": nothing.
    """

    ask: Ask
    own_id: str = ""
    turns: list[tuple[str, str]] = field(default_factory=list)
    chat: int | None = None

    def say(self, question: str) -> None:
        """The next question."""
        self._answer(question)

    def edit(self, place: int, question: str) -> None:
        """Another question in place of an earlier one, and of what came after it."""
        self.turns = self.turns[: place % (len(self.turns) + 1)]
        self._answer(question)

    def regenerate(self) -> None:
        """The last question again."""
        if self.turns:
            question, _ = self.turns.pop()
            self._answer(question)

    def stop(self, chars: int) -> None:
        """The reader has seen only the beginning of the last answer."""
        if self.turns:
            question, answer = self.turns.pop()
            self.turns.append((question, answer[:chars]))

    def ask_for_title(self) -> None:
        headers = {"X-OpenWebUI-Chat-Id": self.own_id} if self.own_id else {}
        self.ask([user(TITLE.format(self.turns))], headers)

    def check(self) -> None:
        """The chat holds what is shown: each message once, of cut answers the whole text."""
        if self.chat is None:
            return
        rows = self._stored()
        left = list(rows)
        for question, answer in reversed(self.turns):
            assert left, (rows, self.turns)
            # An answer of which nothing was shown need not be stored.
            if left[-1][0] == "assistant":
                assert left.pop()[1].startswith(answer), (rows, self.turns)
            else:
                assert not answer, (rows, self.turns)
            assert left.pop() == ("user", question), (rows, self.turns)
        assert not (self.own_id and left), (rows, self.turns)

    def _stored(self) -> list[tuple[str, str]]:
        """Without empty answers, and the questions before them that are shown no more."""
        messages = StandaloneChatMessage.objects.filter(conversation_id=self.chat).in_order()
        rows = list(messages.values_list("role", "content"))
        texts_after = [*(text for _, text in rows[1:]), "none"]
        shown = {question for question, _ in self.turns}
        return [
            (role, text)
            for (role, text), text_after in zip(rows, texts_after, strict=True)
            if text and (text_after or text in shown)
        ]

    def _answer(self, question: str) -> None:
        headers = {"X-OpenWebUI-Chat-Id": self.own_id} if self.own_id else {}
        reply = self.ask([*self._history(), user(question)], headers)
        if reply is not None:
            answer, self.chat = reply
            self.turns.append((question, answer))

    def _history(self) -> list[Message]:
        messages: list[Any] = []
        for question, answer in self.turns:
            messages += [user(question), *([assistant(answer)] if answer else [])]
        return messages
