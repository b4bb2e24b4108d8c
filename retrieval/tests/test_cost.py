"""What a backfill would cost: by messages, or by the tokens of the texts to buy."""

import json
from collections.abc import Callable
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from chat.models import ChatMessage, Passage, StandaloneChat, StandaloneChatMessage
from fake_openai import FakeOpenAI
from retrieval import status
from retrieval.backfill import backfill
from retrieval.backfill.estimate import estimate
from retrieval.embeddings import bundled_models
from retrieval.embeddings.batching import MAX_TEXT_TOKENS
from retrieval.token_count import count_tokens
from tests.databases import Database

pytestmark = pytest.mark.django_db(transaction=True)
# Texts and how many tokens of cl100k_base they have, as published. By OpenAI: the first four in its
# cookbook (How to count tokens with tiktoken, read 2026-11-25), the next eight in tiktoken's
# tests/test_encoding.py (1a730c5). By jtokkit, an independent implementation, the last eight:
# lib/src/test/resources/cl100k_base_encodings.csv (1abaa41).
PUBLISHED = {
    "tiktoken is great!": 6,
    "antidisestablishmentarianism": 6,
    "2 + 2 = 4": 7,
    "お誕生日おめでとう": 9,
    "hello world": 2,
    "rer": 1,
    "'rer": 2,
    "today\n ": 3,
    "today\n \n": 2,
    "today\n  \n": 2,
    " \x850": 4,
    "👍": 3,
    "Hello world!": 3,
    "Bonjour le monde!": 4,
    "Привет мир": 5,
    "안녕하세요 세계": 9,
    "你好，世界": 6,
    "I love 🍕": 5,
    "Can we handle email addresses? user@example.com": 9,
    "How about numbers? 123 45.6 -78.9": 14,
}
SMALL = "text-embedding-3-small"
MANY = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT user_id, id, 'user', 'Message ' || n, now()
    FROM standalone_chats, generate_series(1, %s) n
"""


@pytest.fixture(autouse=True)
def _priced(settings: Settings) -> None:
    settings.EMBEDDINGS = "openai"
    settings.EMBEDDING_PRICE_PER_1K = None


@pytest.fixture
def add_messages(alice: User) -> Callable[..., None]:
    """Add messages of alice or another user, in a chat or about a passage."""

    def add(*contents: str, by: User = alice, about_passage: bool = False) -> None:
        for content in contents:
            if about_passage:
                passage = Passage.objects.create(
                    user=by, reference="Tobit 6", text="And the dog followed."
                )
                ChatMessage.objects.create(
                    user=by, conversation=passage, role="user", content=content
                )
            else:
                chat = StandaloneChat.objects.create(user=by)
                StandaloneChatMessage.objects.create(
                    user=by, conversation=chat, role="user", content=content
                )

    return add


def printed(*options: str) -> str:
    """The output of the command."""
    out = StringIO()
    call_command("rag_cost_estimate", *options, stdout=out)
    return out.getvalue()


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.newest_schema
@pytest.mark.parametrize(
    ("messages", "tokens", "cost"),
    [(0, "0", "0.00"), (1, "100", "0.00"), (12_345, "1,234,500", "0.02")],
)
def test_the_estimate_is_three_lines_at_100_tokens_a_message(
    messages: int, tokens: str, cost: str, alice: User
) -> None:
    StandaloneChat.objects.create(user=alice)
    with connection.cursor() as cursor:
        cursor.execute(MANY, [messages])
    assert printed() == (
        f"Messages to backfill: {messages:,}\nEstimated tokens: {tokens}\nEstimated cost: ${cost}\n"
    )
    as_json = {
        "messages": messages,
        "tokens": messages * 100,
        "cost_usd": messages * 100 * 2e-8,
        "exact": False,
    }
    printed_json = json.loads(printed("--json"))
    assert printed_json == pytest.approx(as_json, abs=5e-7)
    assert list(printed_json) == list(as_json)


def test_dollars_have_thousands_separators(
    settings: Settings, add_messages: Callable[..., None]
) -> None:
    settings.EMBEDDING_PRICE_PER_1K = 12_345.678
    add_messages("Hello")
    assert printed().endswith("\nEstimated cost: $1,234.57\n")


@pytest.mark.parametrize(("text", "tokens"), PUBLISHED.items())
def test_exact_counts_equal_published_token_counts(
    text: str, tokens: int, add_messages: Callable[..., None]
) -> None:
    add_messages(text)
    assert json.loads(printed("--exact", "--json")) == {
        "messages": 1,
        "tokens": tokens,
        "cost_usd": round(tokens * 2e-8, 6),
        "exact": True,
    }


def test_equal_texts_of_one_user_are_bought_once(
    add_messages: Callable[..., None], bob: User
) -> None:
    add_messages("hello world", "hello world")
    add_messages("hello world", about_passage=True)
    assert (estimate(exact=True).messages, estimate(exact=True).tokens) == (3, 2)
    add_messages("hello world", by=bob)
    assert (estimate(exact=True).messages, estimate(exact=True).tokens) == (4, 4)


def test_a_long_text_counts_only_the_tokens_sent(add_messages: Callable[..., None]) -> None:
    add_messages("hello" + " world" * 9_000)
    assert estimate(exact=True).tokens == MAX_TEXT_TOKENS


def test_switched_off_messages_do_not_count(add_messages: Callable[..., None]) -> None:
    add_messages("hello world", "rer")
    StandaloneChat.objects.filter(messages__content="rer").update(memory=False)
    assert (estimate().messages, estimate(exact=True).tokens) == (1, 2)


def test_exact_tokens_equal_the_tokens_that_the_backfill_buys(
    remembering: FakeOpenAI, add_messages: Callable[..., None]
) -> None:
    remembering.embeddings.count_tokens = count_tokens
    add_messages("hello world", "hello world", *PUBLISHED, "hello" + " world" * 9_000)
    add_messages("hello world", about_passage=True)
    foreseen = estimate(exact=True)
    assert foreseen.messages == backfill(batch_size=7)
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(tokens) FROM embedding_usage")
        assert cursor.fetchone() == (foreseen.tokens,)
    assert (estimate().messages, estimate(exact=True).tokens) == (0, 0)
    add_messages("hello world")  # its vector is there: nothing is bought
    assert (estimate().messages, estimate(exact=True).tokens) == (1, 0)
    assert backfill(batch_size=7) == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(tokens) FROM embedding_usage")
        assert cursor.fetchone() == (foreseen.tokens,)


def test_messages_set_aside_do_not_count(
    remembering: FakeOpenAI, add_messages: Callable[..., None]
) -> None:
    add_messages("hello world", "rer")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE message_memories SET embedding_error = 'no'"
            " WHERE id = (SELECT min(id) FROM message_memories)"
        )
    assert (estimate().messages, estimate(exact=True).tokens) == (1, 1)


@pytest.mark.newest_schema
@pytest.mark.parametrize(
    ("embeddings", "model"),
    [("openai", SMALL), ("openai", "text-embedding-3-large"), ("local", SMALL), ("none", SMALL)],
)
def test_pending_counts_do_not_depend_on_the_configured_model(
    embeddings: str,
    model: str,
    remembering: FakeOpenAI,
    add_messages: Callable[..., None],
    settings: Settings,
) -> None:
    add_messages("hello world", "rer")
    add_messages("hello world", about_passage=True)
    backfill(batch_size=7)
    add_messages("today", "rer", "refused")
    run(
        "UPDATE message_memories SET embedding_error = 'no'"
        " WHERE id = (SELECT max(id) FROM message_memories)"
    )
    settings.EMBEDDINGS, settings.EMBEDDING_MODEL = embeddings, model
    without = sum(table["without"] for table in status.collect()["tables"].values())
    assert (without, estimate().messages, estimate(exact=True).messages) == (2, 2, 2)
    # Only "today" is bought, by the local model with [CLS] and [SEP]; "rer" has a vector.
    bought = 3 if embeddings == "local" else 1
    assert estimate(exact=True).tokens == bought
    out, err = StringIO(), StringIO()
    call_command("rag_cost_estimate", "--json", stdout=out, stderr=err)
    assert json.loads(out.getvalue())["messages"] == 2
    other = {"openai": model, "local": bundled_models.DEFAULT, "none": SMALL}[embeddings]
    warning = f"of the stored vectors, has yet to embed; the settings name {other}. What switching"
    assert (warning in err.getvalue()) == (other != SMALL)
    assert (err.getvalue() == "") == (other == SMALL)


@pytest.mark.newest_schema
def test_messages_set_aside_before_the_first_vector_are_not_pending(
    add_messages: Callable[..., None],
) -> None:
    add_messages("hello world", "rer")
    run(
        "UPDATE message_memories SET embedding_error = 'no'"
        " WHERE id = (SELECT min(id) FROM message_memories)"
    )
    assert status.collect()["tables"]["standalone_chat_messages"] == {
        "with": 0, "without": 1, "failed": 1, "percent": 0.0
    }  # fmt: skip
    assert estimate().messages == 1


@pytest.mark.parametrize("embeddings", ["local", "none"])
def test_without_openai_the_estimate_is_free(
    embeddings: str, settings: Settings, add_messages: Callable[..., None]
) -> None:
    settings.EMBEDDINGS, settings.EMBEDDING_PRICE_PER_1K = embeddings, 1_000.0
    add_messages("hello world")
    assert printed() == "Messages to backfill: 1\nEstimated tokens: 100\nEstimated cost: $0.00\n"


def test_the_bundled_model_counts_with_its_own_tokenizer(
    settings: Settings, add_messages: Callable[..., None]
) -> None:
    settings.EMBEDDINGS = "local"
    add_messages("hello world")
    assert estimate(exact=True).tokens == 4  # [CLS] hello world [SEP]


def test_before_migration_every_message_counts(database: Database) -> None:
    database.start_at("0001_initial")
    for content in ("hello world", "hello world", "rer", ""):
        database.add_message(content)  # in each table
    database.run("UPDATE chat_messages SET status = 'failed' WHERE content = 'rer'")
    expected = "Messages to backfill: 5\nEstimated tokens: {}\nEstimated cost: $0.00\n"
    for options, tokens in (([], 500), (["--exact"], 3)):
        done = database.command("rag_cost_estimate", *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected.format(tokens), "")


def test_an_unreachable_database_exits_1_and_wrong_usage_2(database: Database) -> None:
    database.url = database.url.replace(database.name, "not_there")
    done = database.command("rag_cost_estimate")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert database.command("rag_cost_estimate", "--exactly-so").returncode == 2
