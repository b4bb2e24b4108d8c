"""What repeats a forgotten message is found however far it went, and recall reads no more where much was said."""

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone
from psycopg.sql import SQL

from chat.memory.recalled import MODELS
from chat.models import Message, Passage, Role, RunningAnswer, StandaloneChat, Status
from chat.tests.plan_support import MESSAGES, rows_read
from retrieval.backfill import fill_words
from retrieval.forgetting import erase, purge_deleted_users, tainted, tainted_statement
from retrieval.schema.operations import NoteTaintedAnswers

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
# Each answer was given its question and five messages from anywhere before, each with the other half of its turn.
LONG_MEMORY = """
    INSERT INTO standalone_chat_messages (id, user_id, chat_id, role, content, created_at, reply_to, context)
    SELECT 1000000 + n, %s, %s, CASE n %% 2 WHEN 0 THEN 'assistant' ELSE 'user' END, 'Message ' || n,
        now() - (10000 - n) * interval '1 minute', CASE n %% 2 WHEN 0 THEN 1000000 + n - 1 END,
        CASE n %% 2 WHEN 0 THEN (
            SELECT jsonb_agg(jsonb_build_object('kind', 'chat', 'id', x, 'with', ARRAY[x + 1])) FROM (
                SELECT 1000001 + 2 * floor(random() * (n / 2 - 1))::int AS x FROM generate_series(1, 5) WHERE n > 2
            ) y
        ) END
    FROM generate_series(1, %s) n
"""
# What only others than Verse write as an answer's context.
ODD = (
    '{"id": 1}', '"text"', '[null, 1, "a", [], {}]', '[{"id": null, "with": null}]', '[{"id": -1}, {"with": 3}]',
    '[{"id": "x", "kind": null}, {"id": 1.5}, {"id": [1]}, {"id": true}]', '[{"id": 5000000000000000000}]',
    '[{"id": 1e30, "with": {"a": 1}}, {"with": [null, [1], {}, "y"]}]'
)  # fmt: skip


def say(chat: StandaloneChat, content: str, **fields: Any) -> Message:
    """A message of hers."""
    return chat.messages.create(user=chat.user, role=Role.USER, content=content, **fields)


def answer(chat: StandaloneChat, content: str, *given: Message, **fields: Any) -> Message:
    """An answer that was given these messages."""
    context = [{"kind": "chat", "id": one.pk, "score": 1.0} for one in given]
    return chat.messages.create(
        user=chat.user, role=Role.ASSISTANT, content=content, context=context, **fields
    )


def chain(chat: StandaloneChat) -> tuple[Message, list[Message]]:
    """What was said, and answers that passed it on; and one that has nothing to do with it."""
    told = say(chat, "My dog is called Biscuit.")
    answers = [answer(chat, "A dog, Biscuit.", told)]
    for number in range(3):
        answers.append(answer(chat, f"Biscuit again, {number}.", answers[-1]))
    return told, [*answers, answer(chat, "Fine weather.", say(chat, "How is the weather?"))]


def those_forgotten(*answers: Message) -> list[str]:
    """What the answers say that must not be recalled."""
    found = tainted(answers[0].user_id, [one.memory_table.pack_ref(one.pk) for one in answers])
    return sorted(one.content for one in answers if one.memory_table.pack_ref(one.pk) in found)


def sql(statement: str, *params: Any) -> list[tuple[Any, ...]]:
    """The statement's rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def test_whoever_deletes_all_answers_that_it_reached_are_forgotten(chat: StandaloneChat) -> None:
    told, answers = chain(chat)
    assert those_forgotten(*answers) == []
    sql("DELETE FROM standalone_chat_messages WHERE id = %s", told.pk)
    assert those_forgotten(*answers) == sorted(one.content for one in answers[:-1])
    assert those_forgotten(answers[2], answers[4]) == [
        answers[2].content
    ]  # from then on it is known


def test_an_answer_given_the_edited_text_is_not_forgotten(chat: StandaloneChat) -> None:
    told, answers = chain(chat)
    sql(
        "UPDATE standalone_chat_messages SET content = 'My cat is called Muffin.' WHERE id = %s",
        told.pk,
    )
    later = answer(chat, "A cat, then.", told)
    assert those_forgotten(*answers, later) == sorted(one.content for one in answers[:-1])


def test_an_answer_made_anew_is_recalled_again_and_what_repeats_its_old_text_is_not(
    chat: StandaloneChat,
) -> None:
    told, answers = chain(chat)
    told.delete()
    assert len(those_forgotten(*answers)) == 4
    anew = answers[1]
    anew.content, anew.context, anew.edited_at = "Good morning.", None, timezone.now()
    anew.save()
    assert those_forgotten(*answers) == sorted(one.content for one in (answers[0], *answers[2:4]))


def test_an_answer_that_was_on_its_way_is_forgotten_when_it_is_there(chat: StandaloneChat) -> None:
    told, answers = chain(chat)
    given = answer(chat, "", answers[2], status=Status.STREAMING)
    told.delete()
    assert len(those_forgotten(*answers)) == 4
    given.content, given.status = "Biscuit, at last.", Status.COMPLETE
    given.save()
    assert those_forgotten(given) == ["Biscuit, at last."]


def test_an_answer_on_its_way_is_forgotten_where_sql_changed_what_it_was_given(
    chat: StandaloneChat,
) -> None:
    told = say(chat, "My dog is called Biscuit.")
    given = answer(chat, "", told, status=Status.STREAMING)
    RunningAnswer.objects.create(user=chat.user, chat=chat, message_id=given.pk)
    sql(
        "UPDATE standalone_chat_messages SET content = 'Nothing.' WHERE id = %s", told.pk
    )  # and not edited_at
    assert those_forgotten(given) == [""]
    given.content = "Biscuit, at last."
    given.save()
    assert those_forgotten(given) == ["Biscuit, at last."]


def test_what_went_while_nobody_looked_is_found_by_the_backfill(chat: StandaloneChat) -> None:
    told, answers = chain(chat)
    sql(
        "SET session_replication_role = replica"
    )  # as on the old code's schema: no trigger, no table of recall's
    sql("DELETE FROM standalone_chat_messages WHERE id = %s", told.pk)
    sql("DELETE FROM message_memories")
    sql("SET session_replication_role = origin")
    assert those_forgotten(answers[2]) == []
    assert sum(fill_words.fill(told.memory_table)) == 6
    assert those_forgotten(*answers) == sorted(one.content for one in answers[:-1])


def test_nothing_is_kept_of_users_who_are_gone(
    chat: StandaloneChat, alice: User, bob: User
) -> None:
    his = say(StandaloneChat.objects.create(user=bob), "Bob's.")
    his.delete()
    chain(chat)
    alice.delete()
    purge_deleted_users()
    assert sql("SELECT user_id FROM forgotten_messages") == [(bob.pk,)]
    assert erase(bob.pk) == 1


def test_where_nothing_was_forgotten_what_is_read_does_not_grow(chat: StandaloneChat) -> None:
    sql(LONG_MEMORY, chat.user_id, chat.pk, 4_000)
    sql("ANALYZE standalone_chat_messages, message_memories, forgotten_messages")
    latest = [2 * pk for pk in range(1_003_992, 1_004_001, 2)]
    assert tainted(chat.user_id, latest) == set()
    explained = SQL("EXPLAIN (ANALYZE, FORMAT JSON) {}").format(tainted_statement())
    with connection.cursor() as cursor:
        cursor.execute(explained, {"refs": latest, "user": chat.user_id})
        (plan,) = cursor.fetchone()
    plan = json.loads(plan) if isinstance(plan, str) else plan
    each = 1 + 1 + 5 * 2  # itself, its question, its memories and their companions
    assert 0 < rows_read(plan[0]["Plan"], MESSAGES) <= len(latest) * each


def test_a_forgetting_among_much_that_was_said_is_followed_once(chat: StandaloneChat) -> None:
    sql(LONG_MEMORY, chat.user_id, chat.pk, 4_000)
    old = StandaloneChat.objects.create(user=chat.user)
    before = answer(
        old, "Before.", say(old, "Before?"), created_at=timezone.now() - timedelta(days=9)
    )
    sql("DELETE FROM standalone_chat_messages WHERE id = 1000001")
    assert (
        len(tainted(chat.user_id, [2 * pk for pk in range(1_003_902, 1_004_001, 2)])) > 25
    )  # it has reached most of them
    assert those_forgotten(before) == []
    assert sql("SELECT count(*) FROM forgotten_messages WHERE NOT tainted") == [(0,)]


def test_an_answer_older_than_what_it_was_given_when_made_anew_passes_the_forgetting_on(
    chat: StandaloneChat,
) -> None:
    anew = answer(chat, "Hello.", say(chat, "Hi."))
    told = say(chat, "My dog is called Biscuit.")
    anew.content, anew.edited_at, anew.context = (
        "Biscuit!",
        timezone.now(),
        [{"kind": "chat", "id": told.pk}],
    )
    anew.save()
    later = answer(chat, "Biscuit, as I said.", anew)
    assert those_forgotten(later) == []
    told.delete()
    assert those_forgotten(later) == ["Biscuit, as I said."]


def test_what_was_given_before_a_long_deletion_was_committed_is_forgotten(
    chat: StandaloneChat,
) -> None:
    told, _ = chain(chat)
    with transaction.atomic():
        sql("DELETE FROM standalone_chat_messages WHERE id = %s", told.pk)
        between = answer(chat, "Biscuit, while it went.", told)
        after = answer(chat, "Biscuit, from that.", between)
    assert those_forgotten(after) == ["Biscuit, from that."]


def test_an_edit_counts_by_the_clock_of_who_edited(chat: StandaloneChat) -> None:
    told, answers = chain(chat)
    slow = timedelta(seconds=-5)
    chat.messages.update(created_at=timezone.now() + 2 * slow)
    told.content, told.edited_at = "My cat is called Muffin.", timezone.now() + slow
    told.save()
    answers.append(answer(chat, "A cat, then.", told, created_at=timezone.now() + slow))
    assert those_forgotten(*answers) == sorted(one.content for one in answers[:-2])


@pytest.mark.parametrize("context", ODD)
def test_what_others_left_in_context_fails_no_recall(chat: StandaloneChat, context: str) -> None:
    told, answers = chain(chat)
    odd = answer(chat, "Odd.", reply_to=told.pk)
    huge = answer(chat, "Huge.", reply_to=2**63 - 1)
    sql("UPDATE standalone_chat_messages SET context = %s WHERE id = %s", context, odd.pk)
    assert those_forgotten(odd, huge, *answers) == ["Huge."]
    told.delete()
    assert those_forgotten(odd, answers[1]) == sorted(["Odd.", answers[1].content])
    sql("DELETE FROM message_memories")
    assert sum(fill_words.fill(told.memory_table)) == 8


def test_an_answer_made_anew_while_its_old_text_was_marked_is_recalled(
    chat: StandaloneChat,
) -> None:
    told, answers = chain(chat)
    told.delete()
    assert len(those_forgotten(*answers)) == 4
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
    assert "Good morning." not in those_forgotten(*answers)


def test_a_long_chain_is_followed_in_one_walk(chat: StandaloneChat) -> None:
    sql(LONG_MEMORY, chat.user_id, chat.pk, 20_000)
    sql(
        "UPDATE standalone_chat_messages SET context = jsonb_build_array(jsonb_build_object("
        "'kind', 'chat', 'id', id - 3, 'with', ARRAY[id - 2])) WHERE role = 'assistant'"
    )
    sql("DELETE FROM standalone_chat_messages WHERE id = 1000001")
    until = time.monotonic() + 5  # 15 s and more where each step reads all
    assert tainted(chat.user_id, [2 * 1_020_000]) == {2 * 1_020_000}
    assert time.monotonic() < until


def test_what_went_before_forgetting_was_noted_is_found_by_the_migration(
    chat: StandaloneChat,
) -> None:
    told, answers = chain(chat)
    passage = Passage.objects.create(user=chat.user, reference="", text="Read.")
    fields = {
        "context": [{"kind": "chat", "id": answers[0].pk}],
        "role": Role.ASSISTANT,
        "user": chat.user,
    }
    elsewhere = passage.messages.create(content="Biscuit, in a passage.", **fields)
    told.delete()
    sql("DELETE FROM forgotten_messages")  # as the triggers of before left it
    assert those_forgotten(*answers[1:]) == []
    for model in MODELS.values():
        NoteTaintedAnswers(model.memory_table).forwards(connection)
    assert sql("SELECT id FROM forgotten_messages") == [(answers[0].pk * 2,)]
    assert those_forgotten(*answers) == sorted(one.content for one in answers[:-1])
    assert those_forgotten(elsewhere) == ["Biscuit, in a passage."]
