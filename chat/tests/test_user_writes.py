"""Each write of a user's is recorded, so that a replica without it is not read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.answers.heartbeat import end_abandoned
from chat.auth.api_tokens import create_token
from chat.models import RunningAnswer, StandaloneChat
from chat.remembered import remember
from fake_openai import FakeOpenAI
from retrieval.replica.user_writes import latest_write

pytestmark = [pytest.mark.newest_schema, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def alices(settings: Settings, alice: User, api: Callable[[User], APIClient]) -> APIClient:
    settings.REPLICA_DATABASE = {}
    return api(alice)


@contextmanager
def is_recorded(user: User) -> Iterator[None]:
    before = latest_write(user.pk)
    yield
    assert latest_write(user.pk) != before


def test_each_change_by_the_api_is_recorded(
    alice: User, bob: User, alices: APIClient, fake_openai: FakeOpenAI
) -> None:
    def change(method: str, address: str, **body: Any) -> Any:
        with is_recorded(alice):
            response = getattr(alices, method)(address, body, format="json")
        assert response.status_code < 300
        return getattr(response, "data", None)

    chat = f"/api/chats/{change('post', '/api/chats/', title='Trip')['id']}/"
    turn = change("post", f"{chat}messages/", content="Hello")
    change("patch", f"{chat}messages/{turn['user_message']['id']}/", content="Good morning")
    change("post", f"{chat}messages/{turn['assistant_message']['id']}/regenerate/")
    change("delete", f"{chat}messages/{turn['user_message']['id']}/")
    change("patch", chat, title="Journey")
    change("patch", "/api/memory/", enabled=False)
    change("delete", chat)
    change("post", "/api/passages/", reference="Tobit 6", text="And the dog followed.")
    change("delete", "/api/memory/", confirm="alice")
    alices.credentials(HTTP_AUTHORIZATION=f"Bearer {create_token(alice)[1]}")
    messages = [{"role": "user", "content": "Hello"}]
    change("post", "/v1/chat/completions", model="verse", messages=messages)
    assert latest_write(bob.pk) is None


def test_changes_outside_of_the_api_are_recorded(
    alice: User, alices: APIClient, tmp_path: Path
) -> None:
    with is_recorded(alice):
        remember(alice, "The spare key is in the blue teapot.")
    file = tmp_path / "lines.jsonl"
    file.write_text(
        '{"user": "alice", "conversation": "Trip", "role": "user", "content": "Hi",'
        ' "created_at": "2026-01-02T03:04:05Z"}'
    )
    with is_recorded(alice):
        call_command("import_messages", str(file), stdout=StringIO())
    chat = StandaloneChat.objects.create(user=alice)
    message = chat.messages.create(user=alice, role="assistant", status="streaming")
    RunningAnswer.objects.create(user=alice, chat=chat, message_id=message.pk)
    with is_recorded(alice):
        end_abandoned(seconds=-1)
    with is_recorded(alice):
        call_command("erase_data", "alice", stdout=StringIO())
