"""Reads and answers of the short path equal those of Django and DRF, and are bounded."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from rest_framework import serializers

from chat.answers.history import read_history
from chat.answers.turns import Turn
from chat.api.conversation_serializers import ChatSerializer, PassageSerializer
from chat.api.serializers import MessageSerializer, TokenSerializer, TurnSerializer
from chat.auth.api_tokens import create_token
from chat.find_conversation import find_conversation
from chat.memory.recalled import Memory
from chat.models import Message, Passage, Role, StandaloneChat, StandaloneChatMessage
from chat.row_lists import MESSAGE_LISTS

pytestmark = pytest.mark.django_db


@pytest.fixture
def chat(alice: User) -> StandaloneChat:
    return StandaloneChat.objects.create(user=alice, title="Garden")


def say(chat: StandaloneChat, content: str, **fields: Any) -> StandaloneChatMessage:
    """A message of the user's, or with ``fields``."""
    fields = {"role": Role.USER} | fields
    message: StandaloneChatMessage = StandaloneChatMessage.objects.create(
        user=chat.user, conversation=chat, content=content, **fields
    )
    return message


def by_fields(serializer: Any) -> Any:
    """What DRF makes of a serializer by its declared fields; ``finish_reason`` is mostly absent."""
    values = serializers.Serializer.to_representation(serializer, serializer.instance)
    return {k: v for k, v in values.items() if k != "finish_reason" or v is not None}


def test_each_serializer_renders_its_declared_fields(alice: User, chat: StandaloneChat) -> None:
    passage = Passage.objects.create(user=alice, reference="John 3:16", text="For God so loved")
    message = say(chat, "I planted three pears.")
    answer = say(chat, "Good.", role=Role.ASSISTANT, reply_to=message.pk)
    answer.memories = [Memory(message, 0.123456)]
    cut = say(chat, "Goo", role=Role.ASSISTANT, context=[{"finish_reason": "length"}])
    for serializer in (
        ChatSerializer(chat),
        PassageSerializer(passage),
        TokenSerializer(create_token(alice, name="laptop")[0]),
        MessageSerializer(message),
        MessageSerializer(answer),
        MessageSerializer(cut),
    ):
        assert serializer.data == by_fields(serializer)


def test_a_turn_renders_the_fields_of_its_schema(chat: StandaloneChat) -> None:
    question = say(chat, "Which trees?")
    answer = say(chat, "Pears.", role=Role.ASSISTANT, truncated=True)
    answer.memories = [Memory(question, 1.0)]
    body = TurnSerializer(Turn(chat, question, answer)).data
    assert set(body) == set(TurnSerializer().fields)
    assert body["user_message"] == MessageSerializer(question).data
    assert body["context"] == body["assistant_message"]["context"] != []


def test_a_conversation_is_found_as_the_orm_finds_it(bob: User, chat: StandaloneChat) -> None:
    match = find_conversation(StandaloneChat, chat.pk, user_id=chat.user_id)
    stored = StandaloneChat.objects.get(pk=chat.pk)
    assert vars(match) | {"_state": None} == vars(stored) | {"_state": None}
    assert find_conversation(StandaloneChat, chat.pk, user_id=bob.pk) is None
    assert find_conversation(StandaloneChat, 10**30, user_id=chat.user_id) is None


@pytest.mark.parametrize("ascending", [True, False])
def test_a_list_reads_the_rows_that_the_orm_reads(ascending: bool, chat: StandaloneChat) -> None:
    for number in range(5):
        say(chat, str(number), context=[{"finish_reason": "length"}] if number else None)
    say(StandaloneChat.objects.create(user=chat.user), "of another chat")
    stored = list(chat.messages.in_order())
    after = stored[1:] if ascending else stored[-2::-1]
    border = stored[0] if ascending else stored[-1]
    read = MESSAGE_LISTS[StandaloneChatMessage].read
    for at, expected in ((None, [border, *after]), ((border.created_at, border.pk), after)):
        page = read(chat.pk, at, ascending=ascending, limit=3)
        assert [fields_of(row) for row in page] == [fields_of(row) for row in expected[:3]]


def fields_of(message: Message) -> dict[str, Any]:
    """All fields but the vector."""
    names = (field.attname for field in message._meta.concrete_fields)
    return {name: getattr(message, name) for name in names if name != "embedding"}


def test_a_turn_reads_no_more_history_than_its_limit(chat: StandaloneChat) -> None:
    for number in range(8):
        say(chat, f"question {number}")
        say(chat, f"answer {number}", role=Role.ASSISTANT)
    say(chat, "not an answer", role=Role.ASSISTANT, status="failed")
    turn = Turn(chat, say(chat, "Now?"), say(chat, "", role=Role.ASSISTANT, status="streaming"))
    fetched = []

    def count(execute: Any, query: Any, params: Any, many: bool, context: Any) -> Any:
        result = execute(query, params, many, context)
        fetched.append(context["cursor"].rowcount)
        return result

    with connection.execute_wrapper(count):
        history = read_history(turn, limit=5)
    messages = [message for past in history.turns for message in past.messages]
    assert [message.content for message in messages] == [
        "question 6",
        "answer 6",
        "question 7",
        "answer 7",
    ]
    assert history.has_more
    assert fetched == [3]
    assert all(message.conversation is chat for message in messages)
