"""Which chat a turn belongs to, and what of the chat the client's messages are. Only reads.

1. the chat whose number the request gives; 2. the chat that the client's own id means; 3. the
newest chat that holds the messages before the last; 4. a new chat. docs/openai-api.md
"""

from dataclasses import dataclass, field
from functools import partial
from typing import cast

from django.contrib.auth.models import User
from rest_framework.exceptions import NotFound

from chat import client_chats
from chat.answers.client_messages import Part, text_of
from chat.find_conversation import find_conversation
from chat.models import StandaloneChat, StandaloneChatMessage
from chat.openai_api.client_ids import ChatName
from chat.openai_api.match import Match, Sent, held_in, is_part, match, match_failed, shared
from chat.openai_api.outlines import Outline, chats_with, outlines
from chat.openai_api.text_turns import TextTurn, digest_of, normal, text_messages, text_turns

MAX_BEGINNINGS = 50  # answers of which the client has only the beginning, in one conversation


@dataclass(frozen=True)
class Placement:
    """Where the turn goes. ``chat`` None: into a new one, after copies of ``copied`` messages.

    ``replaced``: the last question and its answer, which is generated again. ``held``: ids of the
    stored messages that the client sends. ``last_id``: of the chat's last message when it was read.
    ``named_before``: the chat that the client's own id means until now.
    """

    chat: StandaloneChat | None = None
    replaced: TextTurn | None = None
    held: list[int] = field(default_factory=list)
    copied: list[Part] = field(default_factory=list)
    last_id: int | None = None
    adds_history: bool = False
    client_id: str = ""
    named_before: int | None = None


class Placing:
    """Places one turn: ``messages`` are the client's up to its question, the last of them."""

    def __init__(self, user: User, messages: list[Part], name: ChatName) -> None:
        self.user, self.messages, self.name = user, messages, name
        *before, question = messages
        self._question = digest_of(normal(text_of(question)))
        self._turns = text_turns(text_messages(before))

    def place(self) -> Placement:
        """At most eight queries, two of them in most cases. Raises NotFound."""
        if self.name.number is not None:
            return self._in_chat(self._chat(self.name.number))
        client_id = self.name.client_id
        if not client_id:
            return self._by_content() or Placement()
        named = client_chats.find_chat(self.user.pk, client_id)
        if named is not None and (chat := self._find(named)):
            return self._in_chat(chat)
        return Placement(client_id=client_id, named_before=named)

    def _in_chat(self, chat: StandaloneChat) -> Placement:
        """The turn of a request that names its chat, by number or by the client's own id."""
        for outline in outlines(self.user.pk, [chat.pk], sent_turns=len(self._turns)):
            return self._continue(chat, outline)
        raise NotFound  # it was deleted meanwhile

    def _continue(self, chat: StandaloneChat, outline: Outline) -> Placement:
        sent = self._sent(outline)
        is_alone = len(self.messages) == 1 and self.name.number is not None
        continued = match(sent, outline, is_named=True, is_alone=is_alone)
        if continued is None and (is_alone or not (outline.turns or outline.open)):
            continued = Match()
        if continued is None:
            return self._branch(sent, outline, named_before=chat.pk)
        return self._into(chat, outline, continued, adds_history=is_alone)

    def _by_content(self) -> Placement | None:
        """The newest chat that holds the messages before the question."""
        for digest in self._last_digests():
            candidates = self._outlines(digest)
            for outline in candidates:
                sent = self._sent(outline)
                continued = match(sent, outline)
                if continued and (chat := self._find(outline.chat_id)):
                    return self._into(chat, outline, continued)
            for outline in candidates:
                sent = self._sent(outline)
                if is_part(sent, outline):
                    return self._branch(sent, outline)
        return self._retry(self._outlines(self._question))

    def _last_digests(self) -> list[bytes]:
        """What to look for: the last answer, else the question before it."""
        answered = [turn for turn in self._turns if turn.answer]
        last = [*self._turns[-1:], *answered[-1:]]
        answers = [turn.answer.digest for turn in answered[-1:] if turn.answer]
        return list(dict.fromkeys(answers + [turn.question.digest for turn in last]))

    def _retry(self, candidates: list[Outline]) -> Placement | None:
        """The chat whose last turn failed or broke off after the same messages."""
        for outline in candidates:
            failed = match_failed(self._sent(outline), outline)
            if failed and (chat := self._find(outline.chat_id)):
                return self._into(chat, outline, failed)
        return None

    def _into(
        self, chat: StandaloneChat, outline: Outline, fit: Match, *, adds_history: bool = False
    ) -> Placement:
        return Placement(
            chat=chat,
            replaced=fit.replaced,
            held=fit.held,
            last_id=outline.last_id,
            adds_history=adds_history,
        )

    def _branch(
        self, sent: Sent, outline: Outline, *, named_before: int | None = None
    ) -> Placement:
        """A new chat. It begins with the client's messages if the other chat holds some of them."""
        held = shared(sent, outline)
        refs = held_in(self._turns) if held else []
        return Placement(
            held=held,
            copied=[self.messages[ref] for ref in refs],
            client_id=self.name.client_id,
            named_before=named_before,
        )

    def _sent(self, outline: Outline) -> Sent:
        return Sent(self._turns, self._question, partial(self._are_beginnings, outline.chat_id))

    def _are_beginnings(self, chat_id: int, pairs: list[tuple[int, int]]) -> bool:
        """Whether each of the client's answers begins the stored one. One query."""
        if len(pairs) > MAX_BEGINNINGS:
            return False
        ids = [pk for _, pk in pairs]
        messages = StandaloneChatMessage.objects.filter(
            conversation_id=chat_id, user=self.user, pk__in=ids
        )
        texts = dict(messages.values_list("pk", "content"))
        return all(
            normal(texts.get(pk, "")).startswith(normal(text_of(self.messages[place])))
            for place, pk in pairs
        )

    def _outlines(self, digest: bytes) -> list[Outline]:
        chats = chats_with(self.user.pk, digest)
        return outlines(self.user.pk, chats, sent_turns=len(self._turns))

    def _chat(self, number: int) -> StandaloneChat:
        chat = self._find(number)
        if chat is None:
            raise NotFound
        return chat

    def _find(self, number: int) -> StandaloneChat | None:
        chat = find_conversation(StandaloneChat, number, user_id=self.user.pk)
        return cast("StandaloneChat | None", chat)
