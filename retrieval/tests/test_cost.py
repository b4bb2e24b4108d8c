"""What a backfill would cost: counted in messages, or in the tokens of what would be bought."""

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
from retrieval.embeddings import local_model
from retrieval.embeddings.batching import MAX_TEXT_TOKENS
from retrieval.token_count import count_tokens
from tests.databases import Database

pytestmark = pytest.mark.django_db(transaction=True)
# Texts and how many tokens of cl100k_base they have, as published. By OpenAI: the first four in its cookbook (How to
# count tokens with tiktoken, read 2026-11-25), the next eight in tiktoken's tests/test_encoding.py (1a730c5). By
# jtokkit, an implementation of its own, the last eight: lib/src/test/resources/cl100k_base_encodings.csv (1abaa41).
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
    SELECT user_id, id, 'user', 'Message ' || n, now() FROM standalone_chats, generate_series(1, %s) n
"""


@pytest.fixture(autouse=True)
def _priced(settings: Settings) -> None:
    settings.EMBEDDINGS = "openai"
    settings.EMBEDDING_PRICE_PER_1K = None


@pytest.fixture
def say(alice: User) -> Callable[..., None]:
    """Messages of alice's, or of somebody else's, in a chat or about a passage."""

    def said(*contents: str, by: User = alice, about_passage: bool = False) -> None:
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

    return said


def printed(*options: str) -> str:
    """What the command says."""
    out = StringIO()
    call_command("rag_cost_estimate", *options, stdout=out)
    return out.getvalue()


def run(sql: str) -> None:
    """A statement."""
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.newest_schema
@pytest.mark.parametrize(
    ("messages", "tokens", "cost"),
    [(0, "0", "0.00"), (1, "100", "0.00"), (12_345, "1,234,500", "0.02")],
)
def test_it_is_three_lines_with_a_hundred_tokens_a_message(
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
    assert json.loads(printed("--json")) == pytest.approx(as_json, abs=5e-7)


def test_thousands_of_dollars_have_separators_too(
    settings: Settings, say: Callable[..., None]
) -> None:
    settings.EMBEDDING_PRICE_PER_1K = 12_345.678
    say("Hello")
    assert printed().endswith("\nEstimated cost: $1,234.57\n")


@pytest.mark.parametrize(("text", "tokens"), PUBLISHED.items())
def test_exact_counts_are_those_that_are_published(
    text: str, tokens: int, say: Callable[..., None]
) -> None:
    say(text)
    assert json.loads(printed("--exact", "--json")) == {
        "messages": 1,
        "tokens": tokens,
        "cost_usd": round(tokens * 2e-8, 6),
        "exact": True,
    }


def test_equal_texts_of_one_user_are_bought_once(say: Callable[..., None], bob: User) -> None:
    say("hello world", "hello world")
    say("hello world", about_passage=True)
    assert (estimate(exact=True).messages, estimate(exact=True).tokens) == (3, 2)
    say("hello world", by=bob)
    assert (estimate(exact=True).messages, estimate(exact=True).tokens) == (4, 4)


def test_a_long_text_counts_as_far_as_it_is_sent(say: Callable[..., None]) -> None:
    say("hello" + " world" * 9_000)
    assert estimate(exact=True).tokens == MAX_TEXT_TOKENS


def test_what_is_switched_off_does_not_count(say: Callable[..., None]) -> None:
    say("hello world", "rer")
    StandaloneChat.objects.filter(messages__content="rer").update(memory=False)
    assert (estimate().messages, estimate(exact=True).tokens) == (1, 2)


def test_the_tokens_counted_are_those_that_the_backfill_buys(
    remembering: FakeOpenAI, say: Callable[..., None]
) -> None:
    remembering.embeddings.count_tokens = count_tokens
    say("hello world", "hello world", *PUBLISHED, "hello" + " world" * 9_000)
    say("hello world", about_passage=True)
    foreseen = estimate(exact=True)
    assert foreseen.messages == backfill(batch_size=7)
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(tokens) FROM embedding_usage")
        assert cursor.fetchone() == (foreseen.tokens,)
    assert (estimate().messages, estimate(exact=True).tokens) == (0, 0)
    say("hello world")  # its vector is there: nothing is bought
    assert (estimate().messages, estimate(exact=True).tokens) == (1, 0)
    assert backfill(batch_size=7) == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(tokens) FROM embedding_usage")
        assert cursor.fetchone() == (foreseen.tokens,)


def test_what_the_service_has_refused_does_not_count(
    remembering: FakeOpenAI, say: Callable[..., None]
) -> None:
    say("hello world", "rer")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE message_memories SET embedding_error = 'no' WHERE id = (SELECT min(id) FROM message_memories)"
        )
    assert (estimate().messages, estimate(exact=True).tokens) == (1, 1)


@pytest.mark.newest_schema
@pytest.mark.parametrize(
    ("embeddings", "model"),
    [("openai", SMALL), ("openai", "text-embedding-3-large"), ("local", SMALL), ("none", SMALL)],
)
def test_what_is_pending_is_told_alike_whatever_model_the_settings_name(
    embeddings: str,
    model: str,
    remembering: FakeOpenAI,
    say: Callable[..., None],
    settings: Settings,
) -> None:
    say("hello world", "rer")
    say("hello world", about_passage=True)
    backfill(batch_size=7)
    say("today", "rer", "refused")
    run(
        "UPDATE message_memories SET embedding_error = 'no' WHERE id = (SELECT max(id) FROM message_memories)"
    )
    settings.EMBEDDINGS, settings.EMBEDDING_MODEL = embeddings, model
    without = sum(one["without"] for one in status.collect()["tables"].values())
    assert (without, estimate().messages, estimate(exact=True).messages) == (2, 2, 2)
    bought = (
        3 if embeddings == "local" else 1
    )  # today, in [CLS] and [SEP]; of rer there is a vector
    assert estimate(exact=True).tokens == bought
    out, err = StringIO(), StringIO()
    call_command("rag_cost_estimate", "--json", stdout=out, stderr=err)
    assert json.loads(out.getvalue())["messages"] == 2
    other = {"openai": model, "local": local_model.NAME, "none": SMALL}[embeddings]
    told = f"of the stored vectors, has yet to embed; the settings name {other}. What switching"
    assert (told in err.getvalue()) == (other != SMALL)
    assert (err.getvalue() == "") == (other == SMALL)


@pytest.mark.newest_schema
def test_before_the_first_vector_what_was_set_aside_is_not_pending(
    say: Callable[..., None],
) -> None:
    say("hello world", "rer")
    run(
        "UPDATE message_memories SET embedding_error = 'no' WHERE id = (SELECT min(id) FROM message_memories)"
    )
    assert status.collect()["tables"]["standalone_chat_messages"] == {
        "with": 0, "without": 1, "failed": 1, "percent": 0.0
    }  # fmt: skip
    assert estimate().messages == 1


@pytest.mark.parametrize("embeddings", ["local", "none"])
def test_without_openai_it_costs_nothing(
    embeddings: str, settings: Settings, say: Callable[..., None]
) -> None:
    settings.EMBEDDINGS, settings.EMBEDDING_PRICE_PER_1K = embeddings, 1_000.0
    say("hello world")
    assert printed() == "Messages to backfill: 1\nEstimated tokens: 100\nEstimated cost: $0.00\n"


def test_the_bundled_model_has_a_tokenizer_of_its_own(
    settings: Settings, say: Callable[..., None]
) -> None:
    settings.EMBEDDINGS = "local"
    say("hello world")
    assert estimate(exact=True).tokens == 4  # [CLS] hello world [SEP]


def test_before_memory_is_added_every_message_counts(database: Database) -> None:
    database.start_at("0001_initial")
    for content in ("hello world", "hello world", "rer", ""):
        database.add_message(content)  # in each table
    database.run("UPDATE chat_messages SET status = 'failed' WHERE content = 'rer'")
    expected = "Messages to backfill: 5\nEstimated tokens: {}\nEstimated cost: $0.00\n"
    for options, tokens in (([], 500), (["--exact"], 3)):
        done = database.command("rag_cost_estimate", *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected.format(tokens), "")


def test_a_database_that_is_away_is_one_line_and_wrong_usage_is_exit_2(database: Database) -> None:
    database.url = database.url.replace(database.name, "not_there")
    done = database.command("rag_cost_estimate")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert database.command("rag_cost_estimate", "--exactly-so").returncode == 2
