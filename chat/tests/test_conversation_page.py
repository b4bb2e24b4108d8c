"""The admin's page of a conversation shows its messages in order, the newest first to be seen."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from chat import inspection
from chat.models import Passage
from chat.tests.admin_support import address, client_of, queries_of

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 5, 3, 12, tzinfo=UTC)


@pytest.fixture
def passage(alice: User) -> Passage:
    """Five messages of one time and one before them, stored last."""
    passage = Passage.objects.create(user=alice, reference="Ruth 1", text="")
    for number in range(5):
        passage.messages.create(
            user=alice, role="user", content=f"message {number}", created_at=NOON
        )
    first = NOON.replace(hour=1)
    passage.messages.create(user=alice, role="user", content="the first", created_at=first)
    return passage


def texts(client: Client, url: str) -> list[str]:
    shown = client.get(url).context["conversation_messages"]
    return [message.text for message in shown]


def test_messages_are_shown_in_order_and_earlier_ones_by_a_link(
    operator: Client, passage: Passage, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = address("passage", f"{passage.pk}/change/")
    all_texts = ["the first", *(f"message {number}" for number in range(5))]
    assert texts(operator, url) == all_texts
    monkeypatch.setattr(inspection, "SHOWN_MESSAGES", 4)
    assert texts(operator, url) == all_texts[2:]
    earlier = operator.get(url).context["earlier"]
    assert f'href="?before={earlier}"' in operator.get(url).content.decode()
    assert texts(operator, f"{url}?before={earlier}") == all_texts[:2]
    for nothing in ("0", "x", "9" * 40):
        assert texts(operator, f"{url}?before={nothing}") == all_texts[2:]


def test_a_long_message_is_cut(operator: Client, passage: Passage) -> None:
    passage.messages.create(user=passage.user, role="user", content="x" * 3_000)
    url = address("passage", f"{passage.pk}/change/")
    page = operator.get(url).content.decode()
    assert "x" * 2_000 + " …" in page
    assert "x" * 2_001 not in page
    selected = [sql.split(" FROM ")[0] for sql in queries_of(operator, url)]
    assert not any(', "chat_messages"."content"' in sql for sql in selected)


def test_without_the_permission_only_lengths_are_shown(
    blind_operator: Client, passage: Passage
) -> None:
    page = blind_operator.get(address("passage", f"{passage.pk}/change/")).content.decode()
    assert "9 characters" in page
    assert "message 4" not in page


def test_who_may_not_view_messages_sees_none(passage: Passage) -> None:
    staff = User.objects.create(username="staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename="view_passage"))
    page = client_of(staff).get(address("passage", f"{passage.pk}/change/")).content.decode()
    assert "Messages</h2>" not in page
