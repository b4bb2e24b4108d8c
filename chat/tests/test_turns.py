"""A turn, asked through the API, answered over HTTP by the fake."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from chat.models import StandaloneChat, StandaloneChatMessage, Status
from fake_openai import Answer, FakeOpenAI

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_answer_is_kept_as_the_model_gave_it(
    alice: User, api: Callable[[User], APIClient], fake_openai: FakeOpenAI
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    fake_openai.chat.script(Answer("Hello,\n  Alice 🦊."))
    response = api(alice).post(f"/api/chats/{chat.pk}/messages/", {"content": " Hello? "}, format="json")
    assert response.status_code == 201
    assert response.data["assistant_message"]["content"] == "Hello,\n  Alice 🦊."
    kept = StandaloneChatMessage.objects.in_order().values_list("role", "content", "status")
    assert list(kept) == [
        ("user", " Hello? ", Status.COMPLETE),
        ("assistant", "Hello,\n  Alice 🦊.", Status.COMPLETE),
    ]
    assert fake_openai.chat.requests[0].last_user_text == " Hello? "
