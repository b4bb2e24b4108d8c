"""What can be done in a conversation; views call this and nothing below it."""

import time
from collections.abc import Sequence
from itertools import islice

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from chat import errors
from chat.answers import runner, turns
from chat.answers.llm import check_configured
from chat.answers.prompt import Prompt, build_prompt
from chat.answers.runner import LiveAnswer
from chat.answers.turns import AnyConversation, Turn
from chat.memory import embed, recall
from chat.memory.recalled import Memory
from chat.models import Message, MessageQuerySet, Role, RunningAnswer, Status

STOP_WAIT_S = 0.8  # contract: a stop ends the answer within 1 s, whatever has become of its process
STOP_LOOK_S = 0.05


class ChatService:
    """One conversation's turns: begun here, given by the running answers, ended in the database."""

    RAG_CONTEXT_LIMIT = settings.RAG_CONTEXT_LIMIT

    def __init__(self, conversation: AnyConversation) -> None:
        self.conversation = conversation

    def reply_to(self, content: str, *, key: str | None = None) -> tuple[Turn, LiveAnswer | None]:
        """Keep what the user says and begin the answer; Running is None where the key found a finished turn.

        Raises InProgress, KeyReused, TooManyStreams, Throttled.
        """
        return self._give(turns.start(self.conversation, content, key=key))

    def regenerate(
        self, answer: Message, *, key: str | None = None
    ) -> tuple[Turn, LiveAnswer | None]:
        """Begin the conversation's last answer anew. Raises NotLast and what reply_to raises."""
        return self._give(turns.restart(self.conversation, answer, key=key))

    def prompt_for(self, turn: Turn) -> Prompt:
        """What the model is sent: instructions, passage, memories, history, the message.

        The question's embedding is stored on the way, and the answer keeps the ids of the memories it is given.
        Raises LLMNotConfigured where there is no model.
        """
        check_configured()
        budget_tokens = settings.LLM_CONTEXT_TOKENS - settings.LLM_MAX_TOKENS
        history = self.history_before(turn.question)
        memories = self._get_relevant_context(turn.question, history)
        prompt = build_prompt(
            self.conversation,
            turn.question,
            history,
            memories,
            budget_tokens=budget_tokens,
            memory_tokens=settings.RAG_CONTEXT_TOKENS,
        )
        turns.save_context(turn.answer, prompt.as_kept())
        return prompt

    def _get_relevant_context(
        self, question: Message, sent: Sequence[Message] = ()
    ) -> list[Memory]:
        """The user's own earlier messages for the answer, best first, RAG_CONTEXT_LIMIT at most.

        None of ``sent``, which the prompt holds anyway, and never the question itself. It does not fail: what goes
        wrong is one line in the log, and fewer memories.
        """
        return recall.recall_for_answer(question, sent=sent)

    def history_before(self, question: Message) -> list[Message]:
        """The latest CHAT_HISTORY_LIMIT messages before the question, newest first."""
        earlier = Q(created_at__lt=question.created_at) | Q(
            created_at=question.created_at, pk__lt=question.pk
        )
        messages: MessageQuerySet = self.conversation.messages.filter(earlier)
        return list(islice(messages.said().in_order().reverse(), settings.CHAT_HISTORY_LIMIT))

    def stop(self, answer: Message) -> Message:
        """End the answer, wherever it is being given; a finished one stays as it is. At most a second."""
        RunningAnswer.objects.filter(
            message_id=answer.pk, **turns.of_conversation(self.conversation)
        ).update(stop_asked=True)
        until = time.monotonic() + STOP_WAIT_S
        while self._streams(answer) and time.monotonic() < until:
            connection.close()
            time.sleep(STOP_LOOK_S)
        if self._streams(answer):
            self._end_without_owner(answer)
        answer.refresh_from_db()
        return answer

    def edit(self, message: Message, content: str) -> Message:
        """Change what the user said. Raises InProgress while it is being answered."""
        with transaction.atomic():
            self._refuse_while_streaming(message)
            message.content, message.edited_at = content, timezone.now()
            message.save(update_fields=["content", "edited_at"])
        embed.embed_in_background(message)
        return message

    def delete(self, message: Message) -> None:
        """Forget a message. Raises InProgress while it is being given or answered."""
        with transaction.atomic():
            self._refuse_while_streaming(message)
            message.delete()

    def delete_conversation(self) -> None:
        """Forget the conversation and its messages; an answer being given ends with it."""
        with transaction.atomic():
            turns.lock_user(self.conversation.user_id)  # no turn is begun meanwhile
            self.conversation.delete()

    def _give(self, turn: Turn) -> tuple[Turn, LiveAnswer | None]:
        return turn, runner.start_answer(turn, self.prompt_for) if turn.running_id else None

    def _streams(self, answer: Message) -> bool:
        return bool(
            self.conversation.messages.filter(pk=answer.pk, status=Status.STREAMING).exists()
        )

    def _end_without_owner(self, answer: Message) -> None:
        row = turns.running_answer_of(self.conversation)
        if row and row.message_id == answer.pk:
            turn = Turn(self.conversation, answer, answer, row.pk)
            turns.finish(turn, row.text, turns.Ending(Status.INTERRUPTED))

    def _refuse_while_streaming(self, message: Message) -> None:
        turns.lock_user(self.conversation.user_id)
        row = turns.running_answer_of(self.conversation)
        if row is None:
            return
        answered = (
            self.conversation.messages.filter(pk=row.message_id)
            .values_list("reply_to", flat=True)
            .first()
        )
        if message.pk in (row.message_id, answered if message.role == Role.USER else None):
            raise errors.InProgress
