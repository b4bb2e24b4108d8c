"""What a worker embeds, and what not: by the bell of its jobs, and by its sweeps."""

import threading
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import Settings

from chat.models import Passage, Role, StandaloneChat
from chat.tests.plan_support import MEMORIES, reads_of
from fake_openai import FakeOpenAI, Refuse, Vectors
from retrieval.backfill import fill_words, token_bucket
from retrieval.backfill.limits import Cancelled, Limits
from retrieval.embed_queue import bell, worker
from retrieval.embed_queue.bell import Bell, NoWorker
from retrieval.embed_queue.worker import EmbedWorker
from retrieval.management.backfill_progress import silence_logs
from retrieval.models import message_tables
from retrieval.tests.backfill_support import CHAT, PASSAGE, add_messages, embedded_texts, query
from retrieval.tests.embedding_support import Clock, texts_of_calls
from tests.support import PATIENCE_S

pytestmark = [pytest.mark.newest_schema, pytest.mark.usefixtures("remembering")]
ANSWER = "the answer"
CLAIMED_MESSAGES = "SELECT count(*) FROM embedding_claims WHERE id > 1"  # 0 and 1: MissingRows


def say(user: User, content: str, *, role: str = Role.ASSISTANT, kind: Any = StandaloneChat) -> int:
    """Add a message of this moment; its packed ref."""
    conversation = kind.objects.create(user=user)
    message = conversation.messages.create(user=user, role=role, content=content)
    return int(message.memory_table.pack_ref(message.pk))


def ring(refs: list[int], embed_worker: EmbedWorker | None = None) -> EmbedWorker:
    """Let a worker embed what a job named, and what waits near it."""
    ready = embed_worker or EmbedWorker()
    for run in ready._runs(of_turns=True):
        ready._embed_named(run, refs)
    return ready


@pytest.mark.django_db
def test_a_job_takes_all_answers_that_wait_into_one_call(
    alice: User, remembering: FakeOpenAI
) -> None:
    named = [say(alice, "an edit", role=Role.USER), say(alice, ANSWER)]
    for number in range(5):
        say(alice, f"answer {number}")
    say(alice, "a question that its turn embeds", role=Role.USER)
    say(alice, "an answer about a text", kind=Passage)
    ring(named)
    assert [set(call) for call in texts_of_calls(remembering)] == [
        {"an edit", ANSWER, *(f"answer {number}" for number in range(5))}
    ]
    assert query("SELECT count(*) FROM embedding_claims") == [(0,)]


@pytest.mark.django_db
def test_answers_of_turns_count_towards_the_daily_limit(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    refs = [say(alice, ANSWER), say(alice, "an edit", role=Role.USER), say(bob, "bread and wine")]
    ring(refs)
    add_messages(bob, ["an hour old"])
    EmbedWorker()._sweep()
    assert query("SELECT user_id, embedding_tokens FROM user_token_usage ORDER BY user_id") == [
        (alice.pk, 2),
        (bob.pk, 3),
    ]
    assert len(texts_of_calls(remembering)) == 2


@pytest.mark.django_db
def test_an_imported_answer_near_one_of_a_turn_counts_towards_no_limit(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    say(alice, "imported, and written long ago")
    query("UPDATE standalone_chat_messages SET created_at = now() - interval '1 year'")
    ring([say(bob, ANSWER)])
    EmbedWorker()._sweep()
    assert query("SELECT user_id, embedding_tokens FROM user_token_usage") == [(bob.pk, 2)]
    assert embedded_texts() == {ANSWER, "imported, and written long ago"}


@pytest.mark.django_db
def test_many_jobs_are_embedded_in_batches(alice: User, remembering: FakeOpenAI) -> None:
    refs = [say(alice, f"answer {number}") for number in range(7)]
    stopped = EmbedWorker(limits=Limits(cancelled=True))
    with pytest.raises(Cancelled):
        ring(refs, stopped)
    assert texts_of_calls(remembering) == []
    ring(refs, EmbedWorker(batch_rows=3))
    assert [len(call) for call in texts_of_calls(remembering)] == [3, 3, 1]


@pytest.mark.django_db
def test_the_same_job_again_makes_no_call(alice: User, remembering: FakeOpenAI) -> None:
    ref = say(alice, ANSWER)
    embed_worker = ring([ref])
    say(alice, "another, whose own job comes later")
    ring([ref, ref], embed_worker)
    ring([10_000_001])  # there is no such message
    assert texts_of_calls(remembering) == [[ANSWER]]


@pytest.mark.django_db
def test_a_sweep_takes_old_messages_and_leaves_young_ones(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, ["an hour old"])
    add_messages(alice, ["an hour old too"], table=PASSAGE)
    say(alice, "a question of this moment", role=Role.USER)
    embed_worker = EmbedWorker()
    for _ in range(3):
        embed_worker._sweep()
    assert texts_of_calls(remembering) == [["an hour old"], ["an hour old too"]]


def work(embed_worker: EmbedWorker) -> None:
    """Let the worker do what is due, also what it would do in 20 s, until it rests."""
    for _ in range(8):
        embed_worker._embed_due()
    embed_worker._swept_at = -worker.SWEEP_S
    for _ in range(4):
        embed_worker._embed_due()


@pytest.mark.django_db
def test_a_worker_embeds_messages_from_before_memory(
    alice: User, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_words, "BATCH_ROWS", 2)
    contents = [f"years old {number}" for number in range(5)]
    add_messages(alice, contents)
    add_messages(alice, ["about a text"], table=PASSAGE)
    query("DELETE FROM message_memories")
    work(EmbedWorker())
    assert texts_of_calls(remembering) == [contents, ["about a text"]]
    assert query("SELECT count(*), count(bits) FROM message_memories") == [(6, 6)]
    assert query("SELECT count(*) FROM user_token_usage") == [(0,)]


@pytest.mark.django_db
def test_a_job_does_not_wait_for_messages_from_before_memory(
    alice: User, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_words, "BATCH_ROWS", 2)
    monkeypatch.setattr(worker, "GATHER_S", 0.0)
    add_messages(alice, [f"years old {number}" for number in range(5)])
    query("DELETE FROM message_memories")
    embed_worker = EmbedWorker()
    for _ in range(2):
        embed_worker._embed_due()
    embed_worker.bell.ring([say(alice, ANSWER)])
    embed_worker._embed_due()
    assert texts_of_calls(remembering) == [[ANSWER]]
    assert query("SELECT count(*) FROM message_memories") == [(3,)]


@pytest.mark.django_db
def test_a_long_sweep_leaves_time_for_messages_from_before_memory(
    alice: User, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_words, "BATCH_ROWS", 2)
    add_messages(alice, [f"years old {number}" for number in range(6)])
    query("DELETE FROM message_memories WHERE id > (SELECT min(id) FROM message_memories)")
    embed_worker = EmbedWorker(batch_rows=1)
    for _ in range(2):
        embed_worker._sweep()
    assert [len(call) for call in texts_of_calls(remembering)] == [1, 1]
    assert query("SELECT count(*) FROM message_memories") == [(4,)]


@pytest.mark.django_db
@pytest.mark.parametrize("status", [401, 503])
def test_words_are_indexed_while_the_service_fails(
    status: int, alice: User, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_words, "BATCH_ROWS", 2)
    add_messages(alice, [f"years old {number}" for number in range(6)])
    query("DELETE FROM message_memories WHERE id > (SELECT min(id) FROM message_memories)")
    remembering.embeddings.default = Refuse(status)
    embed_worker = EmbedWorker()
    monkeypatch.setattr(embed_worker.limits, "pause", lambda seconds: None)
    for _ in range(2):
        embed_worker._work()
    assert query("SELECT count(*), count(bits) FROM message_memories") == [(6, 0)]


@pytest.mark.django_db
def test_a_worker_that_rests_reads_no_message(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, ["an hour old"])
    embed_worker = EmbedWorker()
    work(embed_worker)

    def rest() -> None:
        for _ in range(5):
            embed_worker._embed_due()

    assert reads_of(rest).shape == frozenset()


@pytest.mark.django_db
def test_a_sweep_reads_messages_that_are_switched_off_once(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    add_messages(bob, [f"switched off {number}" for number in range(200)])
    query("INSERT INTO memory_switches (user_id, enabled, changed_at) VALUES (%s, false, now())",
          bob.pk)  # fmt: skip
    add_messages(alice, [f"an hour old {number}" for number in range(8)])
    embed_worker = EmbedWorker(batch_rows=2)
    while embed_worker._missing.fill_next() is not None:
        pass

    def sweep_all() -> None:
        for _ in range(5):
            embed_worker._sweep()

    query("ANALYZE message_memories, standalone_chat_messages")
    query("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
    reads = reads_of(sweep_all)
    assert [len(call) for call in texts_of_calls(remembering)] == [2, 2, 2, 2]
    assert 200 <= reads.of(*MEMORIES) < 400


@pytest.mark.django_db
def test_a_sweep_begins_again_at_the_oldest_in_time(
    alice: User, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead worker's claims end in the middle of a sweep; another model has no vectors yet."""
    monkeypatch.setattr("retrieval.backfill.sweep.PASS_S", 0.0)
    old = add_messages(alice, [f"text {number}" for number in range(6)])
    refs = [message_tables()[0].pack_ref(pk) for pk in old]
    query("INSERT INTO embedding_claims (id, holder, until) SELECT ref, 1, now() + interval '1 day'"
          " FROM unnest(%s::bigint[]) ref", refs[:1])  # fmt: skip
    embed_worker = EmbedWorker(batch_rows=2)
    embed_worker._sweep()
    query("DELETE FROM embedding_claims")
    for _ in range(3):
        embed_worker._sweep()
    assert [call[0] for call in texts_of_calls(remembering)] == ["text 1", "text 0", "text 4"]


@pytest.mark.django_db
def test_a_job_of_an_old_message_reads_few_others(alice: User, remembering: FakeOpenAI) -> None:
    named, *_ = add_messages(alice, [f"text {number}" for number in range(3_000)])
    query("UPDATE standalone_chat_messages SET role = 'assistant'")
    query("ANALYZE message_memories, standalone_chat_messages")
    (run,) = [run for run in EmbedWorker()._runs() if run.table.table == CHAT]
    ref = run.table.pack_ref(named)
    reads = reads_of(lambda: ring([ref]))
    assert texts_of_calls(remembering) == [["text 0"]]
    assert 0 < reads.of("message_memories") < 2_500


@pytest.mark.django_db
def test_a_sweep_leaves_no_message_of_a_batch_that_was_too_large(
    alice: User, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_bucket, "MAX_CALL_TOKENS", 60)
    texts = [f"{number} " + "word " * 20 for number in range(4)]
    add_messages(alice, texts)
    embed_worker = EmbedWorker()
    for _ in range(3):
        embed_worker._sweep()
    assert [len(call) for call in texts_of_calls(remembering)] == [2, 2]
    assert embedded_texts() == set(texts)


@pytest.mark.django_db
def test_a_refused_text_that_memory_does_not_know_is_tried_once(
    alice: User, remembering: FakeOpenAI
) -> None:
    refs = [say(alice, ANSWER), say(alice, "POISON", role=Role.USER)]
    query("DELETE FROM message_memories")
    remembering.embeddings.refuse_text("POISON")
    embed_worker = EmbedWorker()
    threading.Timer(PATIENCE_S / 10, embed_worker.limits.cancel).start()
    ring(refs, embed_worker)  # raises Cancelled if it has no end
    poisoned = [call for call in texts_of_calls(remembering) if "POISON" in call]
    assert embedded_texts() == {ANSWER}
    assert 0 < len(poisoned) <= 4


@pytest.mark.django_db
def test_what_is_switched_off_or_deleted_is_not_embedded(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    refs = [say(user, f"{user.username}'s answer") for user in (alice, bob)]
    deleted = say(bob, "deleted")
    query("INSERT INTO memory_switches (user_id, enabled, changed_at) VALUES (%s, false, now())",
          alice.pk)  # fmt: skip
    StandaloneChat.objects.latest("pk").messages.all().delete()
    ring([*refs, deleted])
    assert texts_of_calls(remembering) == [["bob's answer"]]


@pytest.mark.django_db(transaction=True)
def test_a_text_edited_during_the_call_does_not_get_the_old_vector(
    alice: User, remembering: FakeOpenAI
) -> None:
    ref = say(alice, ANSWER)

    def edit() -> None:
        remembering.wait_for(lambda: remembering.embeddings.requests, timeout_s=PATIENCE_S)
        query("UPDATE standalone_chat_messages SET content = 'edited'")
        connection.close()

    remembering.embeddings.default = Vectors(delay_s=0.3)
    editor = threading.Thread(target=edit)
    editor.start()
    ring([ref])
    editor.join()
    assert texts_of_calls(remembering)[0] == [ANSWER]
    assert embedded_texts() in (set(), {"edited"})
    ring([ref])
    assert embedded_texts() == {"edited"}


@pytest.mark.django_db
def test_a_worker_of_another_model_pays_nothing_and_says_both_once(
    alice: User, remembering: FakeOpenAI, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    ring([say(alice, ANSWER)])
    settings.EMBEDDING_MODEL = "text-embedding-3-large"
    add_messages(alice, ["an hour old"])
    embed_worker = EmbedWorker(limits=Limits(cancelled=True))  # so that it does not pause
    with silence_logs():  # as the command does
        for _ in range(3):
            embed_worker._work()
    (line,) = [line for line in caplog.messages if line.startswith("Error generating embeddings")]
    assert "text-embedding-3-small" in line
    assert "text-embedding-3-large" in line
    assert len(texts_of_calls(remembering)) == 1
    assert query(CLAIMED_MESSAGES) == [(0,)]


@pytest.mark.django_db
def test_a_failing_service_is_logged_once_and_tried_again(
    alice: User, remembering: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    add_messages(alice, ["an hour old"])
    remembering.embeddings.default = Refuse(401)
    embed_worker = EmbedWorker(limits=Limits(cancelled=True))
    caplog.set_level("INFO", worker.logger.name)
    for _ in range(3):
        embed_worker._work()
    assert query(CLAIMED_MESSAGES) == [(0,)]
    remembering.embeddings.default = Vectors()
    embed_worker._work()
    lines = [record.message for record in caplog.records if record.name == worker.logger.name]
    assert len(lines) == 2
    assert lines[0].startswith("Error generating embeddings: ")
    assert lines[1] == "Embeddings are generated again"
    assert embedded_texts() == {"an hour old"}


@pytest.mark.django_db
def test_vectors_that_could_not_be_stored_are_kept(alice: User, remembering: FakeOpenAI) -> None:
    """The database fails between the call and the commit."""
    ref = say(alice, ANSWER)
    embed_worker = EmbedWorker()
    (run,) = [run for run in embed_worker._runs() if run.table.table == CHAT]
    batch = run._start(run._rows.claim([ref]))
    run._unstored = batch
    run._wait_for(batch)  # paid for, and then the statement that stores it fails
    embed_worker._sweep()
    assert texts_of_calls(remembering) == [[ANSWER]]
    assert embedded_texts() == {ANSWER}


def test_a_bell_gives_each_ref_once_when_it_is_old_enough() -> None:
    clock = Clock()
    rung = Bell(clock)
    rung.ring([1, 2])
    clock.now_s += 1
    rung.ring([2, 3])
    assert rung.take(age_s=1) == [1, 2]
    assert rung.take(age_s=1) == []
    clock.now_s += 1
    assert rung.take(age_s=1) == [3]


def test_a_job_in_a_process_without_worker_fails() -> None:
    bell._process.clear()
    with pytest.raises(NoWorker, match="embed_worker"):
        bell.ring([1])
    rung = Bell()
    bell.install(rung)
    bell.ring([message_tables()[0].pack_ref(7)])
    assert rung.take(age_s=0) == [message_tables()[0].pack_ref(7)]
