"""What can be done in a conversation: turns, edits, deletions. With a memory: memory_service.py."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import Error, transaction
from django.utils import timezone
from rest_framework.exceptions import NotFound

from chat import errors
from chat.answers import followers, long_messages, runner, stop, turns
from chat.answers.client_prompt import ClientRequest
from chat.answers.live_answer import LiveAnswer
from chat.answers.prepare import Preparation
from chat.answers.turns import Turn
from chat.conflicts import repeat_after_conflict
from chat.memory import embed, recalled
from chat.memory.answer_recall import recall_for_answer
from chat.memory.recalled import Memory
from chat.models import Conversation, Message, Status
from chat.retention import kept
from chat.titles import title_from
from retrieval import audit, connection_share
from retrieval.db_errors import error_name
from retrieval.replica.user_writes import recorded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """A turn, and its answer while it is generated; ``live`` is None for a replay."""

    turn: Turn
    live: LiveAnswer | None

    @property
    def replayed(self) -> bool:
        """Whether the turn was finished before: the client repeated its Idempotency-Key."""
        return self.live is None


class ChatService:
    """The turns and messages of one conversation."""

    RAG_CONTEXT_LIMIT = settings.RAG_CONTEXT_LIMIT

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def reply_to(self, content: str, *, key: str | None = None) -> Reply:
        """Save the user's message and start to answer it, or replay the turn of the key.

        Raises what ``turns.start`` raises.
        """
        user_id = self.conversation.user_id
        with long_messages.saved_alone(user_id, content), self._share():
            return self._reply(turns.start(self.conversation, content, key=key))

    def regenerate(self, answer: Message, *, key: str | None = None) -> Reply:
        """Generate the last answer again. Raises NotLast and what ``reply_to`` raises."""
        with self._share():
            return self._reply(turns.restart(self.conversation, answer, key=key))

    def answer_client(
        self, turn: Turn, client: ClientRequest, *, store: Callable[[], Turn] | None = None
    ) -> Reply:
        """Answer a turn by the messages that a client sends itself, or replay it.

        A turn whose answer has no id is not stored; ``store``, if given, stores it once the answer
        has a word. The caller holds the user's share of the connections.
        """
        return self._reply(turn, client, store)

    def live_answer(self, answer: Message) -> LiveAnswer | None:
        """The answer if this process generates it, else None. No query."""
        return runner.find_live_answer(answer)

    def current_text(
        self, message_id: int, *, mark_followed: bool = False
    ) -> tuple[str, Message | None]:
        """The answer's text so far; with the message once it has ended. One query, or up to four.

        ``mark_followed``: ask the process that generates the answer to write its text more often.
        Raises MessageDeleted.
        """
        row = turns.running_answer_of(self.conversation)
        if row is not None and row.message_id == message_id:
            if mark_followed:
                followers.mark_followed(row.pk)
            return row.text, None
        message: Message | None = self.conversation.messages.filter(pk=message_id).first()
        if message is None:
            raise errors.MessageDeleted
        recalled.attach_memories([message])
        return message.content, None if message.status == Status.STREAMING else message

    def fill_in(self, messages: list[Message]) -> list[Message]:
        """For display: set the running answer's text so far, and attach each answer's memories.

        Three queries at most, for all of them. The messages must not be saved afterwards.
        """
        if any(message.status == Status.STREAMING for message in messages):
            row = turns.running_answer_of(self.conversation)
            for message in messages:
                if row and message.pk == row.message_id:
                    message.content = row.text
        recalled.attach_memories(messages)
        return messages

    def stop(self, answer: Message) -> Message:
        """End a running answer, in whichever process it runs. Waits up to 0.8 s."""
        stop.stop(self.conversation, answer)
        answer.refresh_from_db()
        return answer

    @repeat_after_conflict
    def edit(self, message: Message, content: str) -> Message:
        """Change the user's message and embed it again. Raises InProgress while it is answered."""
        with self._share(), transaction.atomic(), recorded(message.user_id):
            now = self._refuse_while_streaming(message)
            self._replace_title(title_from(message.content), by=title_from(content))
            message.content, message.edited_at = content, now
            message.context = None  # the user's own words now, if it was a copy
            fields = {"content": content, "edited_at": now, "context": None}
            if not self.conversation.messages.filter(pk=message.pk).update(**fields):
                raise NotFound  # it was deleted meanwhile
            self._update(updated_at=now)
        embed.embed_in_background(message)
        return message

    @repeat_after_conflict
    def delete(self, message: Message) -> None:
        """Raises InProgress while the message is generated or answered."""
        with self._share(), transaction.atomic(), recorded(message.user_id):
            self._refuse_while_streaming(message)
            self._replace_title(title_from(message.content), by="")
            message.delete()

    def _replace_title(self, title: str, *, by: str) -> None:
        """If the chat is titled by a message that is edited or deleted, the title follows it."""
        if title and getattr(self.conversation, "title", None) == title:
            self._update(title=by)

    @repeat_after_conflict
    def change(self, changes: dict[str, Any]) -> None:
        """Set fields of the conversation. ``keep``: RETENTION_DAYS does not delete it.

        A switch of its memory is in the audit log. Raises NotFound if the conversation was deleted
        meanwhile, DatabaseUnavailable for ``keep`` on an older schema.
        """
        conversation, fields = self.conversation, dict(changes)
        keep = fields.pop("keep", None)
        with transaction.atomic(), recorded(conversation.user_id):
            enabled = fields.get("memory", conversation.memory)
            if enabled != conversation.memory:
                self.record_switch(enabled, by=conversation.user)
            if fields:
                self._update(**fields, updated_at=timezone.now())
            if keep is not None:
                kept.set_kept(conversation, keep)

    def _update(self, **fields: Any) -> None:
        """Set fields of the conversation. Raises NotFound. Locks: its row."""
        conversation = self.conversation
        if not type(conversation).objects.filter(pk=conversation.pk).update(**fields):
            raise NotFound
        for name, value in fields.items():
            setattr(conversation, name, value)

    def record_switch(self, enabled: bool, *, by: User) -> None:
        """Write into the audit log who turns the conversation's memory on or off."""
        conversation = self.conversation
        what = f"memory of {conversation.kind} {conversation.pk} {'on' if enabled else 'off'}"
        audit.record(by, what, whose=conversation.user)

    @repeat_after_conflict
    def delete_conversation(self) -> None:
        """Delete the conversation and its messages; a running answer ends."""
        user_id = self.conversation.user_id
        with self._share(), transaction.atomic(), recorded(user_id):
            turns.lock_user(user_id)  # so that no turn starts meanwhile
            self.conversation.delete()

    def _get_relevant_context(
        self, question: Message, history: Sequence[Message] = ()
    ) -> list[Memory]:
        """The user's own earlier messages for the answer, best first; RAG_CONTEXT_LIMIT at most.

        A subclass may override it: docs/promises.md, "Tables". Never the question itself, nor the
        messages of ``history``, which the prompt holds. Never fails: an error is one line in
        the log, and fewer memories.
        """
        return recall_for_answer(question, history=history, limit=self.RAG_CONTEXT_LIMIT)

    def _share(self) -> AbstractContextManager[None]:
        """Around what locks the user's row: those that wait hold few connections."""
        return connection_share.hold(self.conversation.user_id)

    def _reply(
        self,
        turn: Turn,
        client: ClientRequest | None = None,
        store: Callable[[], Turn] | None = None,
    ) -> Reply:
        if turn.running_id is None and turn.answer.pk:
            return Reply(turn, None)
        live = LiveAnswer(turn, running_id=turn.running_id, store=store)
        runner.runner().start_answer(live, self._prepare(turn, client))
        return Reply(turn, live)

    def _prepare(self, turn: Turn, client: ClientRequest | None) -> Preparation:
        recall = self._get_relevant_context
        is_own = getattr(recall, "__func__", None) is OWN_RECALL
        preparation = Preparation(
            turn,
            memory_limit=self.RAG_CONTEXT_LIMIT,
            recall=None if is_own else recall,
            client=client,
        )
        try:
            preparation.read()  # here, where a connection is already taken
        except Error as error:
            logger.warning("A turn reads again, later: %s", error_name(error))
        return preparation

    def _refuse_while_streaming(self, message: Message) -> datetime:
        """Lock the user's row; the time by the database's clock. Raises InProgress."""
        now = turns.lock_user(self.conversation.user_id)
        row = turns.running_answer_of(self.conversation)
        if row is None:
            return now
        answers = self.conversation.messages.filter(pk=row.message_id)
        question_id = answers.values_list("reply_to", flat=True).first()
        if message.pk in (row.message_id, question_id):
            raise errors.InProgress
        return now


OWN_RECALL = ChatService._get_relevant_context  # noqa: SLF001 - to see whether it is replaced
