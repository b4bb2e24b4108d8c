"""What tests of the admin share: an operator, a row in each table, addresses."""

from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from chat.auth.api_tokens import create_token
from chat.models import IdempotencyKey, MemorySwitch, Passage, RunningAnswer, StandaloneChat

TABLES = (
    *("passage", "standalonechat", "chatmessage", "standalonechatmessage"),
    *("apitoken", "runninganswer", "idempotencykey", "memoryswitch"),
)


def client_of(user: User) -> Client:
    """Signed in with a session."""
    client = Client()
    client.force_login(user)
    return client


def add_of_each(number: int, content: str = "Hello") -> dict[str, Any]:
    """A new user with one row in every table; the primary keys by table."""
    # Without a password: hashing sixty takes 15 s.
    user = User.objects.create(username=f"user{number:03}")
    passage = Passage.objects.create(user=user, reference=f"John {number}", text=content)
    chat = StandaloneChat.objects.create(user=user, title=f"Chat about {number}")
    answer = chat.messages.create(user=user, role="assistant", content=content)
    token, _ = create_token(user, name="laptop")
    return {
        "user": user.pk,
        "passage": passage.pk,
        "standalonechat": chat.pk,
        "chatmessage": passage.messages.create(
            user=user, role="user", content=content, context=[{"id": 1}]
        ).pk,
        "standalonechatmessage": answer.pk,
        "apitoken": token.pk,
        "runninganswer": RunningAnswer.objects.create(
            user=user, chat=chat, message_id=answer.pk, text=content
        ).pk,
        "idempotencykey": IdempotencyKey.objects.create(
            user=user, chat=chat, key=f"k{number}", digest=b"d" * 32
        ).pk,
        "memoryswitch": MemorySwitch.objects.create(user=user, enabled=False).pk,
    }


def address(table: str, page: str = "") -> str:
    """The URL of a table's list, or of a page in it."""
    return f"/admin/{'auth' if table == 'user' else 'chat'}/{table}/{page}"


def queries_of(client: Client, url: str) -> list[str]:
    """The SQL of one GET, which must be a 200."""
    with CaptureQueriesContext(connection) as captured:
        response = client.get(url)
    assert response.status_code == 200, url
    return [query["sql"] for query in captured.captured_queries]
