"""Tainted answers are never recalled, and to find them reads no more if there are many messages."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone
from psycopg.types.json import Jsonb

from chat.memory.recall import find_memories
from chat.memory.recalled import MODELS
from chat.models import Message, Passage, Role, RunningAnswer, StandaloneChat, Status
from chat.tests.plan_support import MESSAGES, reads_of
from retrieval import forgetting
from retrieval.backfill import fill_words
from retrieval.forgetting import (
    erase,
    propagate_taint,
    purge_deleted_users,
    tainted_on_older_schema,
)
from retrieval.recall import messages
from retrieval.recall.candidates import Scope
from retrieval.schema.locks import PROPAGATE_LOCK
from retrieval.schema.operations import RecordStaleAnswers
from tests.support import PATIENCE_S, ROOT, database_url, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
# Each answer was given its question, and five earlier messages with the rest of their turns.
LONG_MEMORY = """
    INSERT INTO standalone_chat_messages
        (id, user_id, chat_id, role, content, created_at, reply_to, context)
    SELECT 1000000 + n, %s, %s, CASE n %% 2 WHEN 0 THEN 'assistant' ELSE 'user' END,
        'Message ' || n, now() - (10000 - n) * interval '1 minute',
        CASE n %% 2 WHEN 0 THEN 1000000 + n - 1 END,
        CASE n %% 2 WHEN 0 THEN (
            SELECT jsonb_agg(jsonb_build_object('kind', 'chat', 'id', x, 'with', ARRAY[x + 1]))
            FROM (
                SELECT 1000001 + 2 * floor(random() * (n / 2 - 1))::int AS x
                FROM generate_series(1, 5) WHERE n > 2
            ) y
        ) END
    FROM generate_series(1, %s) n
"""
WAITING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
# By this transaction.
ROWS_READ = """
    SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
"""
# Contexts that only other programs write.
ODD = (
    '{"id": 1}',
    '"text"',
    '[null, 1, "a", [], {}]',
    '[{"id": null, "with": null}]',
    '[{"id": -1}, {"with": 3}]',
    '[{"id": "x", "kind": null}, {"id": 1.5}, {"id": [1]}, {"id": true}]',
    '[{"id": 5000000000000000000}]',
    '[{"id": 1e30, "with": {"a": 1}}, {"with": [null, [1], {}, "y"]}]',
)


def say(chat: StandaloneChat, content: str, **fields: Any) -> Message:
    """A message of the chat's user."""
    return chat.messages.create(user=chat.user, role=Role.USER, content=content, **fields)


def answer(chat: StandaloneChat, content: str, *given: Message, **fields: Any) -> Message:
    """An answer that was given these messages."""
    context = [{"kind": "chat", "id": message.pk, "score": 1.0} for message in given]
    return chat.messages.create(
        user=chat.user, role=Role.ASSISTANT, content=content, context=context, **fields
    )


def chain(chat: StandaloneChat) -> tuple[Message, list[Message]]:
    """A fact, four answers that were given it one after the other, and one that was not."""
    fact = say(chat, "My dog is called Biscuit.")
    answers = [answer(chat, "A dog, Biscuit.", fact)]
    for number in range(3):
        answers.append(answer(chat, f"Biscuit again, {number}.", answers[-1]))
    return fact, [*answers, answer(chat, "Fine weather.", say(chat, "How is the weather?"))]


def tainted_texts(*answers: Message) -> list[str]:
    """The texts of the tainted ones among the answers, by both ways to decide it."""
    texts = {message.memory_table.pack_ref(message.pk): message.content for message in answers}
    tainted = tainted_on_older_schema(answers[0].user_id, list(texts))
    assert tainted == {ref for ref in texts if is_tainted(ref)}
    return sorted(texts[ref] for ref in tainted)


def is_tainted(ref: int) -> bool:
    """What recall's functions say of the answer with this packed id: of this version and before."""
    answer = MODELS[ref & 1]._default_manager.get(pk=ref >> 1)
    written_at = answer.edited_at or answer.created_at
    context = None if answer.context is None else Jsonb(answer.context)
    given = (answer.reply_to, context, written_at)
    reasons = sql("SELECT tainted_by_1(%s, %s, %s, %s)", ref, *given)
    before = sql("SELECT is_tainted_1(%s, %s, %s, %s, %s)", ref, answer.role, *given)
    assert before == [(bool(reasons),)]
    return bool(reasons)


def sql(statement: str, *params: Any) -> list[tuple[Any, ...]]:
    """The statement's rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def test_a_deletion_by_sql_taints_every_answer_that_it_reached(chat: StandaloneChat) -> None:
    fact, answers = chain(chat)
    assert tainted_texts(*answers) == []
    sql("DELETE FROM standalone_chat_messages WHERE id = %s", fact.pk)
    assert tainted_texts(*answers) == sorted(message.content for message in answers[:-1])
    assert tainted_texts(answers[2], answers[4]) == [answers[2].content]  # from then on it is known


def test_an_answer_given_the_edited_text_is_not_tainted(chat: StandaloneChat) -> None:
    fact, answers = chain(chat)
    sql(
        "UPDATE standalone_chat_messages SET content = 'My cat is called Muffin.' WHERE id = %s",
        fact.pk,
    )
    later = answer(chat, "A cat, then.", fact)
    assert tainted_texts(*answers, later) == sorted(message.content for message in answers[:-1])


def test_a_regenerated_answer_is_clean_and_what_repeats_its_old_text_tainted(
    chat: StandaloneChat,
) -> None:
    fact, answers = chain(chat)
    fact.delete()
    assert len(tainted_texts(*answers)) == 4
    anew = answers[1]
    anew.content, anew.context, anew.edited_at = "Good morning.", None, timezone.now()
    anew.save()
    assert tainted_texts(*answers) == sorted(
        message.content for message in (answers[0], *answers[2:4])
    )


def test_an_answer_generated_during_the_deletion_is_tainted(chat: StandaloneChat) -> None:
    fact, answers = chain(chat)
    given = answer(chat, "", answers[2], status=Status.STREAMING)
    fact.delete()
    assert len(tainted_texts(*answers)) == 4
    given.content, given.status = "Biscuit, at last.", Status.COMPLETE
    given.save()
    assert tainted_texts(given) == ["Biscuit, at last."]


def test_an_answer_generated_during_an_edit_by_sql_is_tainted(
    chat: StandaloneChat,
) -> None:
    fact = say(chat, "My dog is called Biscuit.")
    given = answer(chat, "", fact, status=Status.STREAMING)
    RunningAnswer.objects.create(user=chat.user, chat=chat, message_id=given.pk)
    sql(
        "UPDATE standalone_chat_messages SET content = 'Nothing.' WHERE id = %s", fact.pk
    )  # and not edited_at
    assert tainted_texts(given) == [""]
    given.content = "Biscuit, at last."
    given.save()
    assert tainted_texts(given) == ["Biscuit, at last."]


def test_the_backfill_finds_deletions_from_before_the_triggers(chat: StandaloneChat) -> None:
    fact, answers = chain(chat)
    sql(
        "SET session_replication_role = replica"
    )  # as on the old code's schema: no trigger, no table of recall's
    sql("DELETE FROM standalone_chat_messages WHERE id = %s", fact.pk)
    sql("DELETE FROM message_memories")
    sql("SET session_replication_role = origin")
    assert tainted_texts(answers[2]) == []
    assert sum(fill_words.Fill(fact.memory_table)) == 6
    assert tainted_texts(*answers) == sorted(message.content for message in answers[:-1])


def test_nothing_stays_recorded_of_deleted_users(
    chat: StandaloneChat, alice: User, bob: User
) -> None:
    his = say(StandaloneChat.objects.create(user=bob), "Bob's.")
    his.delete()
    chain(chat)
    alice.delete()
    purge_deleted_users()
    assert sql("SELECT user_id FROM forgotten_messages") == [(bob.pk,)]
    assert erase(bob.pk) == 1


def test_without_a_deletion_the_rows_read_do_not_grow(chat: StandaloneChat) -> None:
    sql(LONG_MEMORY, chat.user_id, chat.pk, 4_000)
    sql("ANALYZE standalone_chat_messages, message_memories, forgotten_messages")
    latest = [2 * pk for pk in range(1_003_992, 1_004_001, 2)]
    assert tainted_on_older_schema(chat.user_id, latest) == set()
    reads = reads_of(lambda: tainted_on_older_schema(chat.user_id, latest))
    each = 1 + 1 + 5 * 2  # itself, its question, its memories and their companions
    assert 0 < reads.of(*MESSAGES) <= len(latest) * each


def test_a_deletion_among_many_messages_is_propagated_once(chat: StandaloneChat) -> None:
    sql(LONG_MEMORY, chat.user_id, chat.pk, 4_000)
    old = StandaloneChat.objects.create(user=chat.user)
    before = answer(
        old, "Before.", say(old, "Before?"), created_at=timezone.now() - timedelta(days=9)
    )
    sql("DELETE FROM standalone_chat_messages WHERE id = 1000001")
    latest = [2 * pk for pk in range(1_003_902, 1_004_001, 2)]
    assert len(tainted_on_older_schema(chat.user_id, latest)) > 25  # it has reached most of them
    assert tainted_texts(before) == []
    assert sql("SELECT count(*) FROM forgotten_messages WHERE NOT tainted") == [(0,)]


def test_a_regenerated_answer_older_than_what_it_was_given_passes_taint_on(
    chat: StandaloneChat,
) -> None:
    anew = answer(chat, "Hello.", say(chat, "Hi."))
    fact = say(chat, "My dog is called Biscuit.")
    anew.content, anew.edited_at, anew.context = (
        "Biscuit!",
        timezone.now(),
        [{"kind": "chat", "id": fact.pk}],
    )
    anew.save()
    later = answer(chat, "Biscuit, as I said.", anew)
    assert tainted_texts(later) == []
    fact.delete()
    assert tainted_texts(later) == ["Biscuit, as I said."]


def test_an_answer_dated_before_its_question_passes_taint_on(chat: StandaloneChat) -> None:
    """As one of /v1 with tools, which is stored at its first word, with the time of its prompt."""
    question = say(chat, "Where does my dog live?")
    dated = question.created_at - timedelta(seconds=2)
    first = answer(chat, "In Trieste.", question, edited_at=dated)
    second = answer(chat, "In Trieste, as I said.", first)
    question.delete()
    assert tainted_texts(second) == [second.content]


def test_answers_given_a_message_before_its_deletion_commits_are_tainted(
    chat: StandaloneChat,
) -> None:
    fact, _ = chain(chat)
    with transaction.atomic():
        sql("DELETE FROM standalone_chat_messages WHERE id = %s", fact.pk)
        between = answer(chat, "Biscuit, while it went.", fact)
        after = answer(chat, "Biscuit, from that.", between)
    assert tainted_texts(after) == ["Biscuit, from that."]


@pytest.mark.parametrize(("deletions", "remembered"), [(1, True), (100, False)])
def test_deletions_that_come_during_a_recall_fail_none(
    deletions: int, remembered: bool, chat: StandaloneChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an end to them nothing is recalled, since it may be tainted."""
    others = [say(chat, f"another text {number}") for number in range(deletions + 1)]
    say(chat, "My dog is called Biscuit.")

    def propagate_and_delete(user_id: int) -> None:
        propagate_taint(user_id)
        if len(others) > 0:
            others.pop().delete()

    monkeypatch.setattr(messages, "propagate_taint", propagate_and_delete)
    others.pop().delete()
    memories = find_memories("my dog Biscuit", Scope(chat.user_id), None, limit=5).memories
    expected = ["My dog is called Biscuit."] if remembered else []
    assert [memory.message.content for memory in memories] == expected


def test_an_edit_during_the_walk_waits_for_nothing_and_is_propagated_next(
    chat: StandaloneChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    fact, answers = chain(chat)
    fact.content, fact.edited_at = "My cat is called Muffin.", timezone.now()
    fact.save()
    walk = forgetting._reached

    def edit_meanwhile(*args: Any) -> Any:
        with psycopg.connect(database_url(connection)) as other:
            other.execute("SET lock_timeout = '1s'")
            other.execute(
                "UPDATE standalone_chat_messages SET content = 'I have no pets.', edited_at = now()"
                " WHERE id = %s", [fact.pk],
            )  # fmt: skip
        return walk(*args)

    monkeypatch.setattr(forgetting, "_reached", edit_meanwhile)
    propagate_taint(chat.user_id)
    assert sql("SELECT id FROM forgotten_messages WHERE NOT tainted") == [(fact.pk * 2,)]
    monkeypatch.undo()
    assert len(tainted_texts(*answers)) == 4
    assert sql("SELECT id FROM forgotten_messages WHERE NOT tainted") == []


def test_one_recall_at_a_time_deletes_what_it_has_propagated(chat: StandaloneChat) -> None:
    """Else two could delete the same rows in different orders, and wait for each other for ever."""
    fact, answers = chain(chat)
    fact.delete()
    params = {"user": chat.user_id, "lock": PROPAGATE_LOCK}
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url(connection)) as other:
        other.execute(forgetting.SQL["one_at_a_time"], params)
        propagating = pool.submit(propagate_and_close, chat.user_id)
        wait_for(lambda: sql(WAITING))
        other.execute("SET LOCAL lock_timeout = '1s'")
        other.execute("SELECT FROM forgotten_messages FOR UPDATE")
        assert not propagating.done()
        other.commit()
        propagating.result(PATIENCE_S)
    assert len(tainted_texts(*answers)) == 4


def propagate_and_close(user_id: int) -> None:
    """In a thread."""
    propagate_taint(user_id)
    connection.close()


def test_a_mark_of_an_old_text_hides_no_later_one(
    chat: StandaloneChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = say(chat, "My dog is called Biscuit."), say(chat, "My cat is called Muffin.")
    regenerated = answer(chat, "Biscuit.", old)
    old.delete()
    walk = forgetting._reached

    def regenerate_meanwhile(*args: Any) -> Any:
        monkeypatch.undo()
        regenerated.content, regenerated.edited_at = "Muffin.", timezone.now()
        regenerated.context = [{"kind": "chat", "id": new.pk}]
        regenerated.reply_to = new.pk
        regenerated.save()
        propagate_taint(chat.user_id)
        return walk(*args)

    monkeypatch.setattr(forgetting, "_reached", regenerate_meanwhile)
    propagate_taint(chat.user_id)
    later = answer(chat, "Muffin, as I said.", regenerated)
    assert tainted_texts(later) == []
    new.delete()
    assert tainted_texts(later, regenerated) == ["Muffin, as I said.", "Muffin."]
    assert tainted_texts(answer(chat, "Muffin, they say.", regenerated)) == ["Muffin, they say."]


def test_late_taint_is_propagated_whatever_statement_timeout_says(
    chat: StandaloneChat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forgetting, "_propagate", lambda _user_id: sql("SELECT pg_sleep(0.5)"))
    sql("SET statement_timeout = '100ms'")
    forgetting._propagate_without_limit(chat.user_id)
    connection.close()
    assert caplog.messages == []


def test_an_edit_counts_by_the_editors_clock(chat: StandaloneChat) -> None:
    fact, answers = chain(chat)
    slow = timedelta(seconds=-5)
    chat.messages.update(created_at=timezone.now() + 2 * slow)
    fact.content, fact.edited_at = "My cat is called Muffin.", timezone.now() + slow
    fact.save()
    answers.append(answer(chat, "A cat, then.", fact, created_at=timezone.now() + slow))
    assert tainted_texts(*answers) == sorted(message.content for message in answers[:-2])


@pytest.mark.parametrize("context", ODD)
def test_an_odd_context_fails_no_recall(chat: StandaloneChat, context: str) -> None:
    fact, answers = chain(chat)
    odd = answer(chat, "Odd.", reply_to=fact.pk)
    huge = answer(chat, "Huge.", reply_to=2**63 - 1)
    sql("UPDATE standalone_chat_messages SET context = %s WHERE id = %s", context, odd.pk)
    assert tainted_texts(odd, huge, *answers) == ["Huge."]
    fact.delete()
    assert tainted_texts(odd, answers[1]) == sorted(["Odd.", answers[1].content])
    sql("DELETE FROM message_memories")
    assert sum(fill_words.Fill(fact.memory_table)) == 8


def test_an_answer_regenerated_while_its_old_text_is_marked_is_recalled(
    chat: StandaloneChat,
) -> None:
    fact, answers = chain(chat)
    fact.delete()
    assert len(tainted_texts(*answers)) == 4
    mark = sql(
        "SELECT id, user_id, message_at, tainted FROM forgotten_messages WHERE id = %s",
        answers[1].pk * 2,
    )[0]
    anew = answers[1]
    anew.content, anew.context, anew.edited_at = "Good morning.", None, timezone.now()
    anew.save()
    sql(
        "INSERT INTO forgotten_messages (id, user_id, message_at, tainted) VALUES (%s, %s, %s, %s)",
        *mark,
    )  # just then
    assert "Good morning." not in tainted_texts(*answers)


def test_a_long_chain_is_propagated_in_one_walk(chat: StandaloneChat) -> None:
    sql(LONG_MEMORY, chat.user_id, chat.pk, 20_000)
    sql(
        "UPDATE standalone_chat_messages SET context = jsonb_build_array(jsonb_build_object("
        "'kind', 'chat', 'id', id - 3, 'with', ARRAY[id - 2])) WHERE role = 'assistant'"
    )
    sql("DELETE FROM standalone_chat_messages WHERE id = 1000001")
    with transaction.atomic():
        assert tainted_on_older_schema(chat.user_id, [2 * 1_020_000]) == {2 * 1_020_000}
        ((rows_read,),) = sql(ROWS_READ)
    assert 0 < rows_read < 200_000  # 100 million and more where each step reads all


def test_the_migration_notes_answers_tainted_before_it(
    chat: StandaloneChat,
) -> None:
    fact, answers = chain(chat)
    passage = Passage.objects.create(user=chat.user, reference="", text="Read.")
    fields = {
        "context": [{"kind": "chat", "id": answers[0].pk}],
        "role": Role.ASSISTANT,
        "user": chat.user,
    }
    elsewhere = passage.messages.create(content="Biscuit, in a passage.", **fields)
    fact.delete()
    sql("DELETE FROM forgotten_messages")  # as the triggers of before left it
    assert tainted_texts(*answers[1:]) == []
    file = ROOT / "chat" / "migrations" / "sql" / "0005_record_stale_answers.sql"
    for model in MODELS.values():
        RecordStaleAnswers(file, model.memory_table).forwards(connection)
    assert sql("SELECT id FROM forgotten_messages") == [(answers[0].pk * 2,)]
    assert tainted_texts(*answers) == sorted(message.content for message in answers[:-1])
    assert tainted_texts(elsewhere) == ["Biscuit, in a passage."]
