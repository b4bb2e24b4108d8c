"""The admin: what operators see, and what they cannot do."""

import re
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat import bounded_admin, content_admin
from chat.auth.api_tokens import create_token, digest_of
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
from retrieval import audit

pytestmark = pytest.mark.django_db
MARKUP = "<script>alert('x')</script><img src=x onerror=alert(1)>"
TABLES = (
    *("passage", "standalonechat", "chatmessage", "standalonechatmessage"),
    *("apitoken", "runninganswer", "idempotencykey", "memoryswitch"),
)


@pytest.fixture
def operator(db: None) -> Client:
    """Signed in as a superuser."""
    return client_of(User.objects.create(username="operator", is_staff=True, is_superuser=True))


@pytest.fixture
def blind_operator(db: None) -> Client:
    """Signed in with every permission but the one to see contents."""
    user = User.objects.create(username="blind", is_staff=True)
    user.user_permissions.set(Permission.objects.exclude(codename="view_content"))
    return client_of(user)


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


def test_a_page_makes_as_many_queries_for_sixty_rows_as_for_one(operator: Client) -> None:
    first = add_of_each(0)
    pages = [
        address(table, page)
        for table in (*TABLES, "user")
        for page in ("", "?q=user", f"{first[table]}/change/")
    ]
    pages += [address(table, f"{first[table]}/delete/") for table in (*TABLES[:5], "user")]
    _ = [operator.get(page) for page in pages]  # Django remembers its content types from here on
    for_one = {page: len(queries_of(operator, page)) for page in pages}
    for number in range(1, 60):
        add_of_each(number)
    for table in (*TABLES, "user"):
        assert operator.get(address(table)).content.count(b"/change/") >= 60, (
            "not all rows are on the page"
        )
    for_sixty = {page: len(queries_of(operator, page)) for page in pages}
    assert for_sixty == for_one
    assert max(for_sixty.values()) <= 14, for_sixty


@pytest.mark.parametrize(
    "table", ["passage", "standalonechat", "chatmessage", "standalonechatmessage", "user"]
)
def test_a_list_never_counts_a_whole_table_and_loads_no_long_text(
    table: str, operator: Client
) -> None:
    add_of_each(0)
    for page in ("", "?q=user", "?q=1"):
        queries = queries_of(operator, address(table, page))
        counts = [sql for sql in queries if "COUNT(" in sql]
        assert counts
        assert all(f"LIMIT {bounded_admin.MAX_COUNTED_ROWS}" in sql for sql in counts), counts
        selected = [re.sub(r"LEFT\([^)]*\)", "", sql.split(" FROM ")[0]) for sql in queries]
        assert not any('"."content"' in sql or '"."text"' in sql for sql in selected), selected
        assert not any("LIKE '%" in sql or "UPPER(" in sql for sql in queries), queries


def test_a_list_ends_at_the_maximum_of_counted_rows(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_admin, "MAX_COUNTED_ROWS", 3)
    for number in range(5):
        add_of_each(number)
    assert operator.get(address("chatmessage")).context["cl"].result_count == 3


def test_a_message_is_found_by_id_or_user_but_not_by_content(
    operator: Client,
) -> None:
    first, second = add_of_each(1, "a needle"), add_of_each(2, "hay")

    def search(term: str) -> set[int]:
        response = operator.get(address("chatmessage"), {"q": term})
        return {message.pk for message in response.context["cl"].result_list}

    both = {first["chatmessage"], second["chatmessage"]}
    assert search("user001") == {first["chatmessage"]}
    assert search("user") == both
    assert search(str(second["chatmessage"])) == {second["chatmessage"]}
    for nothing in ("needle", "ser001", "%", "9" * 40, "²", "user001 needle", "' OR 1=1 --"):
        assert search(nothing) == set(), nothing
    assert operator.get(address("chatmessage"), {"q": "\0"}).status_code == 200


@pytest.mark.parametrize("table", ["passage", "chatmessage", "standalonechatmessage"])
def test_markup_is_shown_as_text(table: str, operator: Client) -> None:
    rows = add_of_each(0)
    Passage.objects.update(reference=MARKUP)
    StandaloneChat.objects.update(title=MARKUP)
    for page in ("", f"{rows[table]}/change/", f"{rows[table]}/delete/", f"{rows[table]}/history/"):
        body = operator.get(address(table, page)).content.decode()
        assert "<script>alert" not in body
        assert "<img src=x" not in body
    assert (
        "&lt;script&gt;alert"
        in operator.get(address(table, f"{rows[table]}/change/")).content.decode()
    )


def test_no_page_shows_contents_without_permission(blind_operator: Client) -> None:
    operator = blind_operator
    rows = add_of_each(0, f"canary {'x' * 1227}")
    Passage.objects.update(reference="canary")
    StandaloneChat.objects.update(title="canary", source="canary")
    ChatMessage.objects.update(
        context=[{"kind": "chat", "id": rows["standalonechatmessage"], "score": 1}]
    )
    for table in TABLES:
        for page in (
            "",
            "?q=user",
            *(f"{rows[table]}/{page}/" for page in ("change", "delete", "history")),
        ):
            assert (
                "canary" not in operator.get(address(table, page), follow=True).content.decode()
            ), (table, page)
    for table in ("chatmessage", "standalonechatmessage"):
        assert (
            '<div class="readonly">1234</div>'
            in operator.get(address(table, f"{rows[table]}/change/")).content.decode()
        )
    RunningAnswer.objects.all().delete()
    for table in ("chatmessage", "standalonechatmessage", "passage", "standalonechat"):
        done = operator.post(address(table, f"{rows[table]}/delete/"), {"post": "yes"}, follow=True)
        assert "was deleted successfully" in done.content.decode()
        assert "canary" not in done.content.decode()
    assert (
        "canary" not in operator.get("/admin/").content.decode()
    )  # with its list of recent actions
    assert audit.lines() == []


def test_contents_are_seen_with_permission_and_each_view_is_logged(operator: Client) -> None:
    rows = add_of_each(0, "canary")
    MemorySwitch.objects.all().delete()
    StandaloneChatMessage.objects.update(
        context=[{"kind": "passage", "id": rows["chatmessage"], "score": 1}]
    )
    message = f"{rows['standalonechatmessage']}/change/"
    page = operator.get(address("standalonechatmessage", message)).content.decode()
    assert "canary" in page
    assert f"/admin/chat/chatmessage/{rows['chatmessage']}/change/" in page
    assert "pending" in page
    assert "canary" in operator.get(address("chatmessage", "?q=user000")).content.decode()
    assert (
        "canary" in operator.get(address("passage", f"{rows['passage']}/change/")).content.decode()
    )
    assert [(line.who, line.what, line.whose) for line in audit.lines()] == [
        ("operator", f"page of standalone chat message {rows['standalonechatmessage']}", "user000"),
        ("operator", "list of chat messages ?q=user000", ""),
        ("operator", f"page of passage {rows['passage']}", "user000"),
    ]


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


def test_staff_without_permission_and_other_users_see_nothing(alice: User) -> None:
    rows = add_of_each(0, "a canary")
    staff = client_of(User.objects.create(username="staff", is_staff=True))
    others = [client_of(alice), Client()]
    for table in (*TABLES, "user"):
        for page in (
            "",
            f"{rows[table]}/change/",
            f"{rows[table]}/delete/",
            f"{rows[table]}/history/",
            "add/",
        ):
            assert staff.get(address(table, page)).status_code == 403, (table, page)
            for other in others:
                response = other.get(address(table, page))
                assert response.status_code == 302
                assert response["Location"].startswith("/admin/login/")
    assert "canary" not in staff.get("/admin/").content.decode()


def test_a_view_permission_shows_no_save_or_delete_button(alice: User) -> None:
    rows = add_of_each(0)
    staff = User.objects.create(username="staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = client_of(staff)
    for table in TABLES:
        body = client.get(address(table, f"{rows[table]}/change/")).content.decode()
        assert 'name="_save"' not in body
        assert "deletelink" not in body
        assert (
            client.post(address(table, f"{rows[table]}/delete/"), {"post": "yes"}).status_code
            == 403
        )


def test_no_page_shows_a_digest_a_token_or_a_password(operator: Client, alice: User) -> None:
    rows = add_of_each(0)
    token, key = create_token(alice, name="laptop")
    alice.last_login = timezone.now()
    alice.save()
    rows |= {"apitoken": token.pk, "user": alice.pk}
    digest, hashed = digest_of(key), alice.password.rsplit("$", 1)[1]
    secrets = [
        key,
        digest.hex(),
        repr(digest)[2:12],
        "d" * 32,
        hashed,
        hashed[:12],
        "alice's password",
        "alice&#x27;s p",
    ]
    for table in (*TABLES, "user"):
        for page in (
            "",
            f"{rows[table]}/change/",
            f"{rows[table]}/delete/",
            f"{rows[table]}/history/",
        ):
            body = operator.get(address(table, page), follow=True).content.decode()
            assert [secret for secret in secrets if secret in body] == [], (table, page)


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
