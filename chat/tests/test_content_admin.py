"""The admin: who sees what users have written, and that each view of it is logged."""

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from chat.auth.api_tokens import create_token, digest_of
from chat.models import (
    ChatMessage,
    MemorySwitch,
    Passage,
    RunningAnswer,
    StandaloneChat,
    StandaloneChatMessage,
)
from chat.tests.admin_support import TABLES, add_of_each, address, client_of, queries_of
from retrieval import audit

pytestmark = pytest.mark.django_db
MARKUP = "<script>alert('x')</script><img src=x onerror=alert(1)>"


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


@pytest.mark.newest_schema
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


@pytest.mark.newest_schema
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
    for nothing in (
        "needle",
        "ser001",
        "%",
        "9" * 40,
        "9" * 5_000,
        "²",
        "user001 needle",
        "' OR 1=1 --",
    ):
        assert search(nothing) == set(), nothing
    assert operator.get(address("chatmessage"), {"q": "\0"}).status_code == 200


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


@pytest.mark.newest_schema
def test_a_page_that_is_refused_is_no_view(alice: User) -> None:
    rows = add_of_each(0, "a canary")
    staff = User.objects.create(username="staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename="view_content"))
    page = address("chatmessage", f"{rows['chatmessage']}/change/")
    assert client_of(staff).get(page).status_code == 403
    assert audit.lines() == []


def test_a_page_reads_its_row_once(operator: Client) -> None:
    rows = add_of_each(0)
    queries = queries_of(operator, address("chatmessage", f"{rows['chatmessage']}/change/"))
    of_the_row = [sql for sql in queries if '"chat_messages"."role"' in sql]
    assert len(of_the_row) == 1, of_the_row


@pytest.mark.newest_schema
def test_operators_acts_on_a_users_data_are_logged(operator: Client) -> None:
    rows = add_of_each(0)
    operator.post(address("apitoken", f"{rows['apitoken']}/delete/"), {"post": "yes"})
    fields = {"user": rows["user"], "title": "Chat about 0"}  # without "memory": off
    operator.post(address("standalonechat", f"{rows['standalonechat']}/change/"), fields)
    acts = [(line.who, line.what, line.whose) for line in audit.lines()]
    assert ("operator", "token revoked", "user000") in acts
    off = f"memory of chat {rows['standalonechat']} off"
    assert acts.count(("operator", off, "user000")) == 1
