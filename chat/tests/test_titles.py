"""A title that was made of a message goes with it: it is in prompts, lists and what tools find."""

import pytest
from django.contrib.auth.models import User

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.support import Api

pytestmark = pytest.mark.django_db
SAID = "  My locker's code is 4711.  \nDo not tell it."
OWN = "My locker's code is 4711."


@pytest.mark.parametrize(
    ("title", "after"), [(OWN, ""), (OWN[:10], OWN[:10]), ("Lockers", "Lockers"), ("", "")]
)
def test_a_deleted_message_takes_the_title_that_was_made_of_it(
    title: str, after: str, alice: User, api: Api
) -> None:
    chat = StandaloneChat.objects.create(user=alice, title=title)
    message = StandaloneChatMessage.objects.create(
        user=alice, conversation=chat, role="user", content=SAID
    )
    assert api(alice).delete(f"/api/chats/{chat.pk}/messages/{message.pk}/").status_code == 204
    chat.refresh_from_db()
    assert chat.title == after


def test_an_edited_message_changes_the_title_that_was_made_of_it(alice: User, api: Api) -> None:
    text = "x" * 100
    chat = StandaloneChat.objects.create(user=alice, title="x" * 80)
    message = StandaloneChatMessage.objects.create(
        user=alice, conversation=chat, role="user", content=text
    )
    client, address = api(alice), f"/api/chats/{chat.pk}/messages/{message.pk}/"
    assert client.patch(address, {"content": "Lockers\nNew"}, format="json").status_code == 200
    chat.refresh_from_db()
    assert chat.title == "Lockers"
