"""Answers one request of ``POST /v1/chat/completions``: places its turn, starts it, or replays it.

A request is one of three:

- a turn: its last message is the user's. It is stored, then answered;
- a turn that may call tools: stored once its answer has a word;
- no turn, such as a request for a title: answered, and not stored.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from django.conf import settings
from django.contrib.auth.models import User
from rest_framework.exceptions import NotFound

from chat import errors
from chat.answers import long_messages, turns
from chat.answers.client_messages import Part, text_of
from chat.answers.client_prompt import ClientRequest
from chat.answers.runner import runner
from chat.answers.turns import Turn
from chat.find_conversation import find_conversation
from chat.models import MAX_CONTENT_CHARS, Role, StandaloneChat, StandaloneChatMessage, Status
from chat.openai_api.client_ids import ChatName
from chat.openai_api.placement import Placement, Placing
from chat.openai_api.request_body import NO_MEMORY, CompletionBody, check_question
from chat.openai_api.start_turn import NewTurn, find_replay, start_turn
from chat.openai_api.text_turns import normal
from chat.rate_limit import count_message
from chat.services import ChatService, Reply
from chat.token_limits import check_tokens
from retrieval import connection_share
from retrieval.queries import value


@dataclass(frozen=True)
class CompletionRequest:
    """A checked request of a user's. ``key`` and ``digest``: for its idempotency key."""

    user: User
    body: CompletionBody
    name: ChatName
    is_task: bool
    key: str | None
    digest: bytes

    @property
    def question_place(self) -> int | None:
        """The place of the last message of the user's."""
        return ClientRequest(self.body.messages).last_user

    def start(self) -> Reply:
        """Start to answer, or replay.

        Raises NotFound, InvalidRequest, and what ``turns.start`` raises.
        """
        place, last = self.question_place, self.body.messages[-1]
        if last["role"] == "user":
            self._check_last()
        if self.is_task or self.name.is_temporary or place is None:
            with self._share():
                self._refuse_foreign_chat()
                return self._answer_unstored(self._client(Placement(), has_memory=False))
        placing = Placing(self.user, self.body.messages[: place + 1], self.name)
        question = text_of(placing.messages[-1])
        if last["role"] == "assistant" or not _is_storable(question):
            with self._share():
                return self._answer_with_memory_only(placing, question)
        with long_messages.saved_alone(self.user.pk, question), self._share():
            return self._answer_turn(placing, question)

    def _share(self) -> AbstractContextManager[None]:
        """Around all statements before the model is asked, as in chat/services.py. Only once: a
        second one, inside it, would wait for the first for ever."""
        return connection_share.hold(self.user.pk)

    def _answer_turn(self, placing: Placing, question: str) -> Reply:
        """A question of the user's, or the results of tools that its answer has called."""
        new = self._new_turn(question)
        turn = find_replay(new)
        if turn is not None:
            client = self._client(placing.place()) if turn.running_id else ClientRequest([])
            return ChatService(turn.conversation).answer_client(turn, client)
        placement = placing.place()
        if self._keeps_out(placement):
            return self._answer_unstored(self._client(placement, has_memory=False))
        if self.body.has_tools:
            return self._answer_and_store(placing, placement, new)
        turn, placement = start_turn(new, placing.place, first=placement)
        return ChatService(turn.conversation).answer_client(turn, self._client(placement))

    def _answer_and_store(self, placing: Placing, placement: Placement, new: NewTurn) -> Reply:
        """Stored once the answer has a word, unless its chat, or everything, is deleted by then."""
        chat = placement.chat
        if chat and turns.running_answer_of(chat):
            raise errors.InProgress
        new = replace(new, is_counted=True, begun_at=value("SELECT clock_timestamp()"))

        def store() -> Turn:
            if chat and not StandaloneChat.objects.filter(pk=chat.pk).exists():
                raise NotFound
            return start_turn(new, placing.place, first=placing.place())[0]

        client = self._client_before_storing(placement)
        return self._answer_unstored(client, placement.chat, new.question, store=store)

    def _answer_with_memory_only(self, placing: Placing, question: str) -> Reply:
        """Answer with what is remembered for the question; the turn is not stored."""
        placement = placing.place()
        has_memory = _is_storable(question) and not self._keeps_out(placement)
        client = self._client_before_storing(placement, has_memory=has_memory)
        return self._answer_unstored(client, placement.chat, question)

    def _answer_unstored(
        self,
        client: ClientRequest,
        chat: StandaloneChat | None = None,
        question: str = "",
        *,
        store: Callable[[], Turn] | None = None,
    ) -> Reply:
        user_id = self.user.pk
        if runner().unstored_of(user_id) >= settings.STREAMS_PER_USER:
            raise errors.TooManyStreams(retry_after_s=1)
        check_tokens(user_id)
        count_message(user_id)
        chat = chat or StandaloneChat(user_id=user_id, memory=self.body.model != NO_MEMORY)
        if not chat.memory or not question:
            client = replace(client, has_memory=False)
        fields = {"user_id": user_id, "conversation": chat}
        turn = Turn(
            chat,
            StandaloneChatMessage(role=Role.USER, content=question, **fields),
            StandaloneChatMessage(role=Role.ASSISTANT, status=Status.STREAMING, **fields),
        )
        return ChatService(chat).answer_client(turn, client, store=store)

    def _client_before_storing(
        self, placement: Placement, *, has_memory: bool = True
    ) -> ClientRequest:
        """As ``_client``, while the answer that the new one replaces is still in the chat."""
        client = self._client(placement, has_memory=has_memory)
        chat, replaced = placement.chat, placement.replaced
        if chat is None or replaced is None:
            return client
        question = chat.messages.filter(pk=replaced.question.ref).first()
        refs = [StandaloneChatMessage.memory_table.pack_ref(pk) for pk in replaced.refs]
        return replace(client, replaced=question, sent_refs=[*client.sent_refs, *refs])

    def _client(self, placement: Placement, *, has_memory: bool = True) -> ClientRequest:
        """What the model is sent, and what memory leaves out because the client sends it."""
        texts: set[str] = set()

        def was_sent(text: str) -> bool:
            if not texts:
                texts.update(normal(text_of(message)) for message in self.body.messages)
            return normal(text) in texts

        table = StandaloneChatMessage.memory_table
        return ClientRequest(
            self.body.messages,
            system=self.body.system,
            parameters=self.body.parameters,
            has_memory=has_memory,
            adds_history=placement.adds_history,
            sent_ids=placement.held,
            sent_refs=[table.pack_ref(pk) for pk in placement.held],
            was_sent=was_sent,
        )

    def _keeps_out(self, placement: Placement) -> bool:
        """Whether the model without memory was chosen in a chat with memory."""
        chat = placement.chat
        return self.body.model == NO_MEMORY and chat is not None and chat.memory

    def _new_turn(self, question: str) -> NewTurn:
        has_memory = self.body.model != NO_MEMORY
        return NewTurn(self.user, question, self.key, self.digest, has_memory)

    def _check_last(self) -> None:
        """A question has text, or something else, such as an image."""
        place = len(self.body.messages) - 1
        message = self.body.messages[place]
        if text_of(message).strip() or not _has_other_parts(message):
            check_question(text_of(message), f"messages[{place}].content")

    def _refuse_foreign_chat(self) -> None:
        number = self.name.number
        if number is not None and not find_conversation(
            StandaloneChat, number, user_id=self.user.pk
        ):
            raise NotFound


def _is_storable(question: str) -> bool:
    """Whether the text may be a message. An image alone has none."""
    return bool(question.strip()) and len(question) <= MAX_CONTENT_CHARS and "\0" not in question


def _has_other_parts(message: Part) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(part["type"] != "text" for part in content)
