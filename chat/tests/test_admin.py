"""The admin: what operators see, and what they cannot do."""

from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import DatabaseError, transaction
from django.test import Client

from chat import content_admin
from chat.models import (
    ApiToken,
    ChatMessage,
    IdempotencyKey,
    MemorySwitch,
    Passage,
    RunningAnswer,
    StandaloneChat,
    StandaloneChatMessage,
)
from chat.tests.admin_support import (
    TABLES,
    add_of_each,
    address,
    client_of,
)

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("table", ["chatmessage", "standalonechatmessage"])
def test_a_message_cannot_be_created_or_edited_in_the_admin(table: str, operator: Client) -> None:
    rows = add_of_each(0)
    RunningAnswer.objects.all().delete()
    model: Any = {"chatmessage": ChatMessage, "standalonechatmessage": StandaloneChatMessage}[table]
    fields = ("pk", "user", "conversation", "role", "content", "status")
    before = list(model.objects.values(*fields))
    forged = {
        "content": "forged",
        "role": "assistant",
        "user": "1",
        "conversation": "1",
        "status": "failed",
    }
    assert operator.post(address(table, f"{rows[table]}/change/"), forged).status_code == 403
    assert operator.post(address(table, "add/"), forged).status_code == 403
    operator.post(
        address(table),
        {"action": "delete_selected", "_selected_action": rows[table], "post": "yes"},
    )
    assert list(model.objects.values(*fields)) == before


@pytest.mark.parametrize("table", ["chatmessage", "standalonechatmessage"])
def test_a_message_can_be_deleted_in_the_admin(table: str, operator: Client) -> None:
    rows = add_of_each(0)
    RunningAnswer.objects.all().delete()
    model: Any = {"chatmessage": ChatMessage, "standalonechatmessage": StandaloneChatMessage}[table]
    assert (
        operator.post(address(table, f"{rows[table]}/delete/"), {"post": "yes"}).status_code == 302
    )
    assert not model.objects.exists()


def test_neither_a_streaming_answer_nor_its_question_can_be_deleted(
    operator: Client, alice: User
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    question = chat.messages.create(user=alice, role="user", content="?")
    answer = chat.messages.create(
        user=alice, role="assistant", status="streaming", reply_to=question.pk
    )
    RunningAnswer.objects.create(user=alice, chat=chat, message_id=answer.pk)
    for message in (question, answer):
        page = address("standalonechatmessage", f"{message.pk}/delete/")
        response = operator.post(page, {"post": "yes"}, follow=True)
        assert response.status_code == 200
        assert "still running" in response.content.decode()
    assert chat.messages.count() == 2
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize("table", ["passage", "standalonechat"])
def test_the_user_of_a_conversation_cannot_be_changed(
    table: str, operator: Client, bob: User
) -> None:
    rows = add_of_each(0)
    model: Any = {"passage": Passage, "standalonechat": StandaloneChat}[table]
    before = model.objects.get()
    changed = {
        "user": bob.pk,
        "title": "Renamed",
        "reference": "Renamed",
        "text": "New",
        "memory": "",
    }
    assert operator.post(address(table, f"{rows[table]}/change/"), changed).status_code == 302
    after = model.objects.get()
    assert (after.user_id, after.memory, str(after)) == (before.user_id, False, "Renamed")
    assert after.updated_at > before.updated_at
    assert after.created_at == before.created_at


@pytest.mark.parametrize("table", ["passage", "standalonechat"])
def test_a_conversation_is_created_for_a_user_and_deleted_with_its_messages(
    table: str, operator: Client, alice: User
) -> None:
    model: Any = {"passage": Passage, "standalonechat": StandaloneChat}[table]
    fields = {
        "user": alice.pk,
        "title": "A secret",
        "reference": "A secret",
        "text": "New",
        "memory": "on",
    }
    assert operator.post(address(table, "add/"), fields).status_code == 302
    created = model.objects.get()
    created.messages.create(user=alice, role="user", content="Hello")
    assert created.user == alice
    assert (
        operator.post(address(table, f"{created.pk}/change/"), fields | {"memory": ""}).status_code
        == 302
    )
    assert (
        operator.post(address(table, f"{created.pk}/delete/"), {"post": "yes"}).status_code == 302
    )
    assert not model.objects.exists()
    history = LogEntry.objects.values_list("object_repr", "change_message")
    assert len(history) == 3
    assert "A secret" not in str(list(history))


def test_an_edit_does_not_restore_a_conversation_deleted_meanwhile(operator: Client) -> None:
    rows = add_of_each(0)
    chat = StandaloneChat.objects.get()
    form: Any = type("Form", (), {"changed_data": ["title"]})
    StandaloneChat.objects.all().delete()
    model_admin: Any = content_admin.StandaloneChatAdmin(StandaloneChat, site)
    with pytest.raises(DatabaseError, match="did not affect any rows"), transaction.atomic():
        model_admin.save_model(None, chat, form, True)
    assert not StandaloneChat.objects.filter(pk=rows["standalonechat"]).exists()


def test_a_user_is_deleted_with_all_their_rows(operator: Client) -> None:
    rows, other = add_of_each(0), add_of_each(1)
    page = operator.get(address("user", f"{rows['user']}/delete/")).content.decode()
    assert "standalone chat messages" in page.lower()
    assert (
        operator.post(address("user", f"{rows['user']}/delete/"), {"post": "yes"}).status_code
        == 302
    )
    for model in (
        ChatMessage,
        StandaloneChatMessage,
        ApiToken,
        IdempotencyKey,
        RunningAnswer,
        MemorySwitch,
    ):
        assert [row.user_id for row in model.objects.all()] == [other["user"]]


def test_deleting_a_user_needs_permission_to_delete_their_messages() -> None:
    rows = add_of_each(0)
    staff = User.objects.create(username="staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "delete_user"]))
    client_of(staff).post(address("user", f"{rows['user']}/delete/"), {"post": "yes"})
    assert User.objects.filter(pk=rows["user"]).exists()


@pytest.mark.parametrize("table", ["runninganswer", "idempotencykey", "memoryswitch"])
def test_internal_tables_are_read_only(table: str, operator: Client) -> None:
    rows = add_of_each(0)
    assert operator.get(address(table, f"{rows[table]}/change/")).status_code == 200
    for page in ("add/", f"{rows[table]}/change/", f"{rows[table]}/delete/"):
        assert (
            operator.post(address(table, page), {"post": "yes", "enabled": "on"}).status_code == 403
        )
    assert not MemorySwitch.objects.get().enabled
    assert RunningAnswer.objects.exists()
    assert IdempotencyKey.objects.exists()


def test_a_token_can_be_deleted_but_not_created_or_changed(operator: Client, bob: User) -> None:
    rows = add_of_each(0)
    changed = {"user": bob.pk, "name": "mine"}
    for page in ("add/", f"{rows['apitoken']}/change/"):
        assert operator.post(address("apitoken", page), changed).status_code == 403
    assert ApiToken.objects.get().user_id == rows["user"]
    assert (
        operator.post(
            address("apitoken", f"{rows['apitoken']}/delete/"), {"post": "yes"}
        ).status_code
        == 302
    )
    assert not ApiToken.objects.exists()


def test_the_index_names_every_table(operator: Client) -> None:
    body = operator.get("/admin/").content.decode()
    for table in (*TABLES, "user"):
        assert f'href="{address(table)}"' in body
    ours = next(
        app
        for app in site.get_app_list(operator.get("/admin/").wsgi_request)
        if app["app_label"] == "chat"
    )
    assert {model["name"] for model in ours["models"]} == {
        *("API tokens", "Chat messages", "Idempotency keys", "Memory switches", "Passages"),
        *("Running answers", "Standalone chat messages", "Standalone chats"),
    }


def test_a_passage_is_created_with_its_text_which_cannot_change(
    operator: Client, alice: User
) -> None:
    fields = {
        "user": alice.pk,
        "reference": "Tobit 6",
        "text": "And the dog followed.",
        "memory": "on",
    }
    assert operator.post(address("passage", "add/"), fields).status_code == 302
    passage = Passage.objects.get()
    assert (
        operator.post(
            address("passage", f"{passage.pk}/change/"), fields | {"text": "forged"}
        ).status_code
        == 302
    )
    passage.refresh_from_db()
    assert passage.text == "And the dog followed."
