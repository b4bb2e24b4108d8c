"""backfill_embeddings: each failure is one line and exit code 1, and the next run goes on."""

import contextlib
import io
import json
import time
from threading import Thread

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.management import ManagementUtility
from django.db import connection
from pytest_django import Settings

from fake_openai import (
    Behaviour,
    Drop,
    Empty,
    FakeOpenAI,
    Garbled,
    Hang,
    Html,
    Lie,
    NanFor,
    Refuse,
    Vectors,
)
from retrieval import runtime
from retrieval.backfill import embedding_calls
from retrieval.embeddings import embedding_service, errors
from retrieval.management.operator_command import NOT_MIGRATED
from retrieval.tests.backfill_support import (
    CHAT,
    IS_OUR_SESSION,
    PASSAGE,
    Done,
    add_messages,
    embedded_texts,
    failure_reasons,
    only_line,
    query,
    run,
    run_process,
    start,
    texts,
    wait_for_end,
)
from retrieval.token_count import count_tokens
from tests.databases import Database
from tests.support import PATIENCE_S, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
COUNT_EMBEDDED = "SELECT count(embedding) FROM standalone_chat_messages"
NO_KEY = "no embedding model is configured: set OPENAI_API_KEY, or EMBEDDINGS=local"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of some milliseconds instead of seconds."""
    monkeypatch.setattr(embedding_calls, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(embedding_calls, "PAUSES_S", (0.01, 0.01))


def delete_memories() -> None:
    """Leave the messages as if they were older than memory's triggers."""
    query("DELETE FROM message_memories")


def test_without_a_key_it_indexes_words_and_names_the_setting(
    alice: User, remembering: FakeOpenAI, settings: Settings
) -> None:
    settings.OPENAI_API_KEY = ""
    add_messages(alice, texts(5))
    delete_memories()
    done = run()
    assert (done.code, done.err) == (1, NO_KEY)
    assert query("SELECT count(*) FROM message_memories") == [(5,)]
    assert f"{CHAT}: 5 messages indexed for recall by words" in done.lines


def test_with_embeddings_none_it_indexes_words_and_succeeds(
    alice: User, remembering: FakeOpenAI, settings: Settings
) -> None:
    add_messages(alice, texts(5))
    delete_memories()
    settings.EMBEDDINGS = "none"
    nothing = (
        "EMBEDDINGS=none: recall goes by words, nothing is embedded. "
        "To embed: EMBEDDINGS=local, or openai and OPENAI_API_KEY"
    )
    planned = run("--dry-run")
    assert (planned.code, planned.lines) == (
        0,
        [f"{CHAT}: 5 pending", f"{PASSAGE}: 0 pending", nothing],
    )
    done = run()
    assert (done.code, done.err) == (0, "")
    assert done.lines == [f"{CHAT}: 5 messages indexed for recall by words", nothing]
    query(
        "UPDATE message_memories SET embedding_error = 'refused'"
        " WHERE id = (SELECT min(id) FROM message_memories)"
    )
    again = run("--json")
    assert (again.code, json.loads(again.out)) == (0, {
        "embedded": 0, "failed": 1, "pending": 4, "tokens": 0, "cost_usd": 0.0,
        "stopped_by": "EMBEDDINGS=none",
    })  # fmt: skip
    assert remembering.embeddings.requests == []


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (Refuse(401), "the service refused the key: status 401 (invalid_api_key)"),
        (Refuse(403), "the service refused the key: status 403"),
        (
            Refuse(429, "insufficient_quota"),
            "the account's quota is used up: status 429 (insufficient_quota)",
        ),
        (Refuse(404, "model_not_found"), "the service refused: status 404 (model_not_found)"),
    ],
)
def test_permanent_refusals_end_the_run_at_once(
    refusal: Refuse, message: str, alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(30))
    remembering.embeddings.default = refusal
    done = run("--batch-size", "5", "--workers", "2")
    assert (done.code, done.err) == (1, message)
    assert len(remembering.embeddings.requests) <= 2
    assert failure_reasons() == []
    assert embedded_texts() == set()


@pytest.mark.parametrize("limit", [[], ["--limit", "1"]])
def test_a_refused_key_ends_the_run_before_words_are_filled(
    limit: list[str], alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(5))
    delete_memories()
    remembering.embeddings.default = Refuse(401)
    done = run(*limit)
    assert done.code == 1
    assert done.err == "the service refused the key: status 401 (invalid_api_key)"
    assert done.out == ""
    assert query("SELECT count(*) FROM message_memories") == [(0,)]
    assert len(remembering.embeddings.requests) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.soak
def test_words_are_filled_while_the_service_is_away(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(5))
    delete_memories()
    remembering.embeddings.default = Refuse(503)
    assert run().code == 1
    assert query("SELECT count(*) FROM message_memories") == [(5,)]


def test_the_check_of_the_key_stays_within_the_budget(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(5))
    delete_memories()
    assert run("--max-cost", "0").code == 0
    assert remembering.embeddings.requests == []
    assert query("SELECT count(*) FROM message_memories") == [(5,)]


def test_a_setting_refused_for_every_text_sets_none_aside(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(30))
    remembering.embeddings.default = Refuse(
        400, message="This model does not support specifying dimensions."
    )
    done = run()
    assert done.code == 1
    assert (
        done.err
        == "it takes no text at all with these settings; the service refused the text: status 400"
    )
    assert failure_reasons() == []


def test_a_setting_refused_after_some_batches_sets_none_aside(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(30))
    remembering.embeddings.script(Vectors())
    remembering.embeddings.default = Refuse(400)
    done = run("--batch-size", "10")
    assert done.code == 1
    assert done.err.startswith("it takes no text at all")
    assert len(embedded_texts()) == 10
    assert failure_reasons() == []


def test_a_different_stored_model_is_named_before_any_call(
    alice: User, remembering: FakeOpenAI
) -> None:
    query("INSERT INTO embedding_models (name, current) VALUES ('text-embedding-ada-002', true)")
    add_messages(alice, texts(5))
    done = run()
    assert done.code == 1
    names = (
        "the stored vectors come from the model text-embedding-ada-002,"
        " the settings name text-embedding-3-small"
    )
    assert done.err.startswith(names)
    assert remembering.embeddings.requests == []


def test_a_model_switch_ends_the_run_without_mixed_vectors(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(20))
    remembering.embeddings.script(Vectors(), Vectors(delay_s=1))
    url = database_url(connection)

    def switch() -> None:
        remembering.wait_for(
            lambda: len(remembering.embeddings.requests) == 2, timeout_s=PATIENCE_S
        )
        with psycopg.connect(url, autocommit=True) as other:
            remembering.wait_for(
                lambda: other.execute(COUNT_EMBEDDED).fetchone() == (5,), timeout_s=PATIENCE_S
            )
            other.execute("UPDATE embedding_models SET current = false")
            other.execute(
                "INSERT INTO embedding_models (name, current)"
                " VALUES ('text-embedding-3-large', true)"
            )

    thread = Thread(target=switch)
    thread.start()
    done = run("--batch-size", "5")
    thread.join()
    assert done.code == 1
    assert (
        "come from the model text-embedding-3-large, the settings name text-embedding-3-small"
        in done.err
    )
    assert len(embedded_texts()) == 5
    assert len(remembering.embeddings.requests) == 2


@pytest.mark.usefixtures("impatient")
def test_a_service_that_stays_away_ends_the_run_after_retries(
    alice: User, remembering: FakeOpenAI, settings: Settings
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 5
    add_messages(alice, texts(30))
    remembering.embeddings.script(Vectors())
    remembering.embeddings.default = Refuse(503)
    done = run("--batch-size", "10")
    assert done.code == 1
    assert done.err == "the service failed: status 503"
    assert sum("; trying again in 0 s" in line for line in done.lines) == 2
    assert len(remembering.embeddings.requests) == 1 + 4
    assert len(embedded_texts()) == 10
    assert failure_reasons() == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("failure", [Refuse(500), Lie("too_few"), Lie("nan"), Html()])
def test_the_run_goes_on_when_the_service_comes_back(
    failure: Refuse | Lie | Html, alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(20))
    remembering.embeddings.script(*[failure] * 3)
    assert run("--batch-size", "10").code == 0
    assert embedded_texts() == set(texts(20))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("failure", [Refuse(500), Refuse(400), Lie("too_few"), Hang()])
def test_texts_that_the_service_fails_on_are_set_aside_alone(
    failure: Behaviour, alice: User, remembering: FakeOpenAI, settings: Settings
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 0.3 if isinstance(failure, Hang) else 10
    poisoned = [f"POISON {number}" for number in range(1 if isinstance(failure, Hang) else 8)]
    good = texts(40)
    add_messages(alice, [text for pair in zip(poisoned, good, strict=False) for text in pair])
    add_messages(alice, good[len(poisoned) :])
    remembering.embeddings.when("POISON", failure)
    done = run()
    assert done.code == 1
    assert embedded_texts() == set(good)
    assert len(failure_reasons()) == len(poisoned)
    assert run().code == 1
    run("--retry-failed")
    assert len(failure_reasons()) == len(poisoned)


def test_usable_vectors_of_a_partly_unusable_answer_are_kept(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, [*texts(9), "POISON", *texts(20)[9:]])
    remembering.embeddings.default = NanFor("POISON")
    assert run().code == 1
    assert embedded_texts() == set(texts(20))
    assert failure_reasons() == [
        "the service's answer was not usable: a vector is all zero or not finite"
    ]
    sent = [request.texts for request in remembering.embeddings.requests]
    assert len(sent[0]) == 21
    assert sent[1:] == [["POISON"], ["Hello"]] * 2
    assert len(sent) <= 5


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("failure", [Garbled(), Drop(), Html()], ids=str)
def test_max_cost_counts_calls_without_a_usable_answer(
    failure: Behaviour, alice: User, remembering: FakeOpenAI
) -> None:
    remembering.embeddings.count_tokens = count_tokens
    long_texts = [f"{number}: " + "bread " * 100 for number in range(10)]
    add_messages(alice, ["POISON", *long_texts])
    remembering.embeddings.when("POISON", failure)
    done = run("--max-cost", "0.00006")  # 3,000 tokens: of three calls with all texts
    sent = sum(
        count_tokens(text) for request in remembering.embeddings.requests for text in request.texts
    )
    assert 2_000 < sent <= 3_000
    assert done.code == 0
    left = 11 - len(embedded_texts()) - len(failure_reasons())
    assert left > 0
    assert f"Stopped by --max-cost; run it again to go on with the {left} pending" in done.out
    remembering.embeddings.reset()
    assert run("--retry-failed").code == 0
    assert embedded_texts() == {"POISON", *long_texts}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("failure", [Garbled(), Refuse(500), Refuse(400)], ids=str)
def test_max_cost_hides_no_service_that_fails(
    failure: Behaviour, alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, ["bread " * 100])  # 101 tokens
    remembering.embeddings.default = failure
    done = run("--max-cost", "0.00000202")
    assert (done.code, embedded_texts(), failure_reasons()) == (1, set(), [])
    assert "--max-cost has no room to try again" in done.err
    assert len(remembering.embeddings.requests) == 1


@pytest.mark.usefixtures("impatient")
def test_a_refused_call_costs_nothing_of_max_cost(alice: User, remembering: FakeOpenAI) -> None:
    long_texts = [f"{number}: " + "bread " * 100 for number in range(10)]
    add_messages(alice, ["POISON", *long_texts])
    remembering.embeddings.when("POISON", Refuse(500))
    assert run("--max-cost", "0.000022").code == 1  # 1,100 tokens: once each, and the probes
    assert embedded_texts() == set(long_texts)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "failure", [Refuse(500), Html(), Lie("nan"), Lie("too_few"), Empty(), Garbled(), Drop()]
)
def test_a_service_that_fails_on_everything_is_asked_six_times(
    failure: Behaviour, alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(300))
    delete_memories()  # so that the key is checked first
    remembering.embeddings.default = failure
    assert run().code == 1
    assert len(remembering.embeddings.requests) <= 6
    assert sum(len(request.texts) for request in remembering.embeddings.requests) <= 105
    assert failure_reasons() == []


@pytest.mark.soak
@pytest.mark.parametrize("failure", [Refuse(500), Hang()])
def test_a_run_against_a_dead_service_ends_within_40_seconds(
    failure: Behaviour, alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(300))
    delete_memories()
    remembering.embeddings.default = failure
    began = time.monotonic()
    assert run().code == 1
    assert time.monotonic() - began < 40
    assert len(remembering.embeddings.requests) <= 6


def test_it_waits_as_long_as_retry_after_says(
    alice: User, remembering: FakeOpenAI, settings: Settings
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 3
    add_messages(alice, texts(3))
    remembering.embeddings.script(Refuse(429, headers={"Retry-After": "4"}))
    done = run()
    assert done.code == 0
    assert "the service failed: status 429 (rate_limit_exceeded); trying again in 4 s" in done.lines
    first, second = remembering.embeddings.requests
    assert second.arrived_at - first.arrived_at >= 4


def test_a_long_retry_after_ends_the_run(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(3))
    remembering.embeddings.script(Refuse(429, headers={"Retry-After": "3600"}))
    done = run()
    assert (done.code, done.err) == (1, "the service failed: status 429 (rate_limit_exceeded)")
    assert len(remembering.embeddings.requests) == 1


def test_vectors_of_other_workers_are_stored_when_one_fails(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(40))
    remembering.embeddings.when(f"{texts(40)[0]}", Refuse(401))
    remembering.embeddings.default = Vectors(delay_s=0.2)
    done = run("--batch-size", "10", "--workers", "4")
    assert done.code == 1
    assert embedded_texts() == set(texts(40)[10:])


@pytest.mark.usefixtures("impatient")
def test_vectors_of_a_halved_batch_are_stored_when_calls_fail(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, [*texts(8), "POISON"])
    remembering.embeddings.refuse_text("POISON")
    remembering.embeddings.script(Vectors(), Vectors())  # of the harmless text, of a half
    remembering.embeddings.default = Refuse(401)
    assert run().code == 1
    assert embedded_texts() == set(texts(4))


@pytest.mark.parametrize(
    "wrong",
    [["--batch-size", "0"], ["--batch-size", "-5"], ["--batch-size", "ten"], ["--limit", "0"],
     ["--table", "users"], ["--max-cost", "-1"], ["--max-cost", "nan"], ["--workers", "0"],
     ["--sleep", "-1"], ["--fast"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_exits_2(wrong: list[str]) -> None:
    err = io.StringIO()
    with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        ManagementUtility(["manage.py", "backfill_embeddings", *wrong]).execute()
    assert ended.value.code == 2
    assert "error:" in err.getvalue()


@pytest.mark.soak
def test_old_schemas_must_be_migrated_then_earlier_messages_are_embedded(
    database: Database, remembering: FakeOpenAI
) -> None:
    """Here the extension is in a schema that is on no search_path."""

    def run_there(**environment: str) -> Done:
        return run_process(remembering.base_url, url=database.url, **environment)

    database.run("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    database.run(f"ALTER DATABASE {database.name} SET search_path = public")
    database.start_at("0001_initial")
    for number in range(3):
        database.add_message(f"Dog number {number} barked.")
    for migration in ("0004_vector_indexes", "0005_memory"):
        done = run_there()
        assert (done.code, only_line(done.err)) == (1, NOT_MIGRATED)
        database.migrate("chat", migration)
    assert remembering.embeddings.requests == []
    done = run_there(OPENAI_API_KEY="")
    assert (done.code, only_line(done.err)) == (1, NO_KEY)
    owner = "(SELECT min(id) FROM auth_user)::bigint"
    terms = f"message_terms({owner}, 'barking dogs')"
    matches = f"SELECT count(*) FROM message_memories WHERE terms && {terms}"
    assert database.run(matches) == [(6,)]
    assert run_there().code == 0
    assert database.run("SELECT count(*), count(bits), count(model) FROM message_memories") == [
        (6, 6, 6)
    ]
    for table in (CHAT, PASSAGE):
        assert database.run(f"SELECT count(embedding) FROM {table}") == [(3,)]
    database.run("DROP EXTENSION vector CASCADE")
    assert only_line(run_there().err) == NOT_MIGRATED


def test_a_read_only_database_is_one_line(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(3))
    read_only = "-c default_transaction_read_only=on"
    done = run_process(remembering.base_url, PGOPTIONS=read_only)
    assert done.code == 1
    assert (
        only_line(done.err)
        == "the database is read-only, a replica perhaps: name the primary in DATABASE_URL"
    )
    assert run_process(remembering.base_url, "--dry-run", PGOPTIONS=read_only).code == 0
    assert remembering.embeddings.requests == []


def waits_for_its_second_call(fake: FakeOpenAI) -> bool:
    """The claims on the first three messages have ended."""
    claims = query("SELECT count(*) FROM embedding_claims")
    return len(fake.embeddings.requests) == 2 and claims == [(3,)]


def test_a_lost_database_is_one_line_and_the_rest_stays_pending(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(6))
    remembering.embeddings.script(Vectors(), Vectors(delay_s=3))
    process = start(remembering.base_url, "--batch-size", "3")
    remembering.wait_for(
        lambda: len(embedded_texts()) == 3 and waits_for_its_second_call(remembering),
        timeout_s=PATIENCE_S,
    )
    terminated = query(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {IS_OUR_SESSION}"
    )
    assert (True,) in terminated
    done = wait_for_end(process)
    assert done.code == 1
    assert only_line(done.err).startswith("the database failed: ")
    assert embedded_texts() == set(texts(3))
    assert run().code == 0
    assert embedded_texts() == set(texts(6))


def test_an_unreachable_database_is_one_line() -> None:
    done = run_process("http://127.0.0.1:9/v1", url="postgresql://nobody@127.0.0.1:9/none")
    assert done.code == 1
    assert only_line(done.err).startswith("the database failed: ")


def test_embedding_failures_are_logged_again_after_the_run(
    alice: User, remembering: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    add_messages(alice, texts(1))
    remembering.embeddings.script(Refuse(401), Refuse(401))
    run()
    assert "Error generating embeddings" not in caplog.text
    runtime.reset()
    with pytest.raises(errors.KeyRefused):
        embedding_service.get_embedding("bread")
    assert "Error generating embeddings" in caplog.text
