"""Tokens and dollars by day, model and user: counted at each call, shown by rag_status."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test import Client

from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import FakeOpenAI
from fake_openai.behaviours import Refuse
from retrieval import runtime
from retrieval.backfill import backfill
from retrieval.embeddings import embedding_service, usage
from retrieval.embeddings.errors import EmbeddingError
from retrieval.models import EmbeddingUsage, UserEmbeddingUsage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
MODEL = "text-embedding-3-small"
SEVEN_WORDS = "one two three four five six seven"


def report() -> list[dict[str, Any]]:
    out = StringIO()
    call_command("rag_status", "--json", stdout=out)
    rows: list[dict[str, Any]] = json.loads(out.getvalue())["usage"]
    return rows


def users_today() -> dict[int | None, int]:
    return {user["user_id"]: user["tokens"] for user in report()[0]["users"]}


def say(user: User, content: str) -> None:
    chat = StandaloneChat.objects.create(user=user)
    StandaloneChatMessage.objects.create(user=user, conversation=chat, content=content, role="user")


def test_a_backfill_counts_each_text_for_its_user(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    say(alice, SEVEN_WORDS)
    say(bob, "one two three")
    backfill(batch_size=10)
    assert users_today() == {alice.pk: 7, bob.pk: 3}
    (row,) = report()
    today = datetime.now(UTC).date()
    assert (row["day"], row["model"], row["tokens"]) == (today.isoformat(), MODEL, 10)
    assert row["cost_usd"] == pytest.approx(10 * 0.00002 / 1000)


def test_counts_wait_while_the_database_is_away(alice: User) -> None:
    usage.record(MODEL, usage.OK, tokens=[7], users=[alice.pk])
    connection.close()
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "no_such_database"
    try:
        with pytest.raises(OperationalError):
            usage.flush()
    finally:
        connection.settings_dict["NAME"] = name
    usage.record(MODEL, usage.OK, tokens=[3], users=[alice.pk])
    for _ in range(2):
        usage.flush()
    assert users_today() == {alice.pk: 10}
    assert report()[0]["tokens"] == 10


def test_turns_and_searches_count_for_their_user(
    alice: User, bob: User, api: Any, remembering: FakeOpenAI
) -> None:
    client = api(alice)
    chat = client.post("/api/chats/", {}, format="json").json()["id"]
    client.post(f"/api/chats/{chat}/messages/", {"content": SEVEN_WORDS}, format="json")
    api(bob).get("/api/memory/search/", {"q": "one two three"})
    remembering.wait_for(
        lambda: StandaloneChatMessage.objects.filter(embedding__isnull=False).count() == 2
    )
    usage.flush()
    tokens = users_today()
    assert tokens[alice.pk] > 7  # the answer is embedded too
    assert tokens[bob.pk] == 3
    assert None not in tokens


def test_usage_from_before_has_no_user(alice: User, remembering: FakeOpenAI) -> None:
    day = datetime.now(UTC).date()
    numbers = {"calls": 1, "texts": 1, "tokens": 5, "cost_usd": 0.25}
    EmbeddingUsage.objects.create(day=day, model=MODEL, outcome="ok", **numbers)
    yesterday = day - timedelta(days=1)
    EmbeddingUsage.objects.create(day=yesterday, model=MODEL, outcome="ok", **numbers)
    embedding_service.submit(["one two three"], users=[alice.pk]).result()
    usage.flush()
    assert users_today() == {alice.pk: 3, None: 5}
    assert report()[1]["users"] == [{"user_id": None, "tokens": 5, "cost_usd": 0.25}]
    out = StringIO()
    call_command("rag_status", stdout=out)
    assert f"  user {alice.pk} " in out.getvalue()
    assert "  others, and not known " in out.getvalue()


def test_a_failed_call_costs_no_user_anything(alice: User, remembering: FakeOpenAI) -> None:
    remembering.embeddings.script(Refuse(401))
    with pytest.raises(EmbeddingError):
        embedding_service.submit(["one"], users=[alice.pk]).result()
    usage.flush()
    assert not UserEmbeddingUsage.objects.exists()
    assert EmbeddingUsage.objects.get().outcome == "KeyRefused"


def test_the_schema_before_counts_without_users(
    alice: User, api: Any, remembering: FakeOpenAI
) -> None:
    """New code on 0005_memory: memory stays on, the totals are counted."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE user_embedding_usage RENAME TO not_there_yet")
    runtime.reset()
    try:
        embedding_service.submit(["one two three"], users=[alice.pk]).result()
        usage.flush()
        assert users_today() == {None: 3}
        assert api(alice).get("/api/memory/").json()["mode"] != "off"
        assert api(alice).get("/api/memory/export/").status_code == 200
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE not_there_yet RENAME TO user_embedding_usage")
        runtime.reset()


def test_the_admin_shows_usage_by_day_model_and_user(
    alice: User, client: Client, remembering: FakeOpenAI
) -> None:
    embedding_service.submit([SEVEN_WORDS], users=[alice.pk]).result()
    usage.flush()
    client.force_login(User.objects.create_superuser("operator"))
    page = client.get("/admin/retrieval/userembeddingusage/", {"q": "ali"}).content.decode()
    assert all(text in page for text in (MODEL, ">alice<", ">7<"))
    assert client.get("/admin/retrieval/userembeddingusage/add/").status_code == 403


def test_usage_goes_with_the_account(alice: User, remembering: FakeOpenAI) -> None:
    from retrieval.forgetting import purge_deleted_users

    embedding_service.submit([SEVEN_WORDS, "one"], users=[alice.pk, alice.pk + 1]).result()
    usage.flush()
    purge_deleted_users()
    assert [row.user_id for row in UserEmbeddingUsage.objects.all()] == [alice.pk]
