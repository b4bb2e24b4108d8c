"""Which chat a turn belongs to: by number, by the client's own id, by its texts, or a new one."""

import pytest
from django.contrib.auth.models import User
from psycopg import sql

from chat import client_chats
from chat.client_chats import find_chat
from chat.models import StandaloneChat
from chat.openai_api import outlines
from chat.openai_api.client_ids import CLIENT_HEADERS
from chat.openai_api.tests.support import Bearer, assistant, stored, texts, user
from chat.openai_api.text_turns import digest_of, normal
from fake_openai import Answer, FakeOpenAI
from retrieval.queries import execute, rows

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
FIRST = (user("One"), assistant("You said: One"))
MANY = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT user_id, id, 'user', 'Number ' || n, now()
    FROM standalone_chats, generate_series(1, 500) n WHERE id = %(chat)s
"""
SECOND = (user("Two"), assistant("You said: Two"))
DIGESTS = sql.SQL("SELECT content, {digest} FROM unnest(%(texts)s::text[]) AS texts (content)")


def test_a_chat_is_named_by_its_number(bearer: Bearer, alice: User) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    by_header = bearer.ask(user("One"), headers={"X-Verse-Chat": str(chat.pk)})
    by_metadata = bearer.ask(*FIRST, user("Two"), metadata={"chat_id": str(chat.pk)})
    assert by_header.chat == by_metadata.chat == chat.pk
    assert texts(chat.pk) == ["One", "You said: One", "Two", "You said: Two"]


@pytest.mark.parametrize("number", ["999999999", "99999999999999999999999999"])
def test_a_number_that_is_nobodys_is_404(number: str, bearer: Bearer) -> None:
    reply = bearer.ask(user("One"), headers={"X-Verse-Chat": number})
    assert (reply.status, reply.code) == (404, "not_found")
    assert stored() == []


def test_another_users_chat_is_404(bearer: Bearer, bob: User) -> None:
    chat = StandaloneChat.objects.create(user=bob)
    foreign = bearer.ask(user("One"), headers={"X-Verse-Chat": str(chat.pk)})
    missing = bearer.ask(user("One"), headers={"X-Verse-Chat": "999999999"})
    assert (foreign.status, foreign.body) == (missing.status, missing.body)
    off = {"X-Verse-Chat": str(chat.pk), "X-Verse-Memory": "off"}
    assert bearer.ask(user("One"), headers=off).status == 404
    assert stored() == []


@pytest.mark.parametrize("header", CLIENT_HEADERS)
def test_a_clients_own_id_means_one_chat(header: str, bearer: Bearer) -> None:
    first = bearer.ask(user("One"), headers={header: "7f-a"})
    second = bearer.ask(*FIRST, user("Two"), headers={header: "7f-a"})
    other = bearer.ask(user("One"), headers={header: "7f-b"})
    assert first.chat == second.chat != other.chat
    assert find_chat(bearer.user.pk, "7f-a") == first.chat


def test_an_id_in_the_metadata_means_one_chat(bearer: Bearer) -> None:
    first = bearer.ask(user("One"), metadata={"chat_id": "7f-a"})
    assert bearer.ask(*FIRST, user("Two"), metadata={"chat_id": "7f-a"}).chat == first.chat


def test_an_id_is_no_error_without_its_table(bearer: Bearer) -> None:
    headers = {"X-Verse-Client-Chat": "a"}
    first = bearer.ask(user("One"), headers=headers)
    execute("ALTER TABLE client_chats RENAME TO removed_client_chats")
    try:
        second = bearer.ask(*FIRST, user("Two"), headers=headers)
    finally:
        execute("ALTER TABLE removed_client_chats RENAME TO client_chats")
        client_chats._table.forget()  # as after a minute
    assert second.status == 200
    assert second.chat != first.chat  # as on a schema before the table


def test_two_users_may_have_the_same_id(bearer: Bearer, bob: User) -> None:
    headers = {"X-Verse-Client-Chat": "same"}
    mine, theirs = (
        bearer.ask(user("One"), headers=headers),
        Bearer(bob).ask(user("One"), headers=headers),
    )
    assert mine.chat != theirs.chat
    assert find_chat(bob.pk, "same") == theirs.chat


def test_an_id_whose_chat_was_deleted_means_a_new_one(bearer: Bearer) -> None:
    headers = {"X-Verse-Client-Chat": "a"}
    first = bearer.ask(user("One"), headers=headers)
    StandaloneChat.objects.all().delete()
    assert find_chat(bearer.user.pk, "a") is None
    assert bearer.ask(user("One"), headers=headers).chat != first.chat


def test_a_history_without_an_id_is_found_by_its_texts(bearer: Bearer) -> None:
    first = bearer.ask(user("One"))
    assert bearer.ask(*FIRST, user("Two")).chat == first.chat
    assert bearer.ask(*FIRST, *SECOND, user("Three")).chat == first.chat


def test_the_last_turns_of_a_chat_are_enough(bearer: Bearer) -> None:
    first = bearer.ask(user("One"))
    bearer.ask(*FIRST, user("Two"))
    assert bearer.ask(*SECOND, user("Three")).chat == first.chat


def test_another_users_texts_are_not_found(bearer: Bearer, bob: User) -> None:
    first = bearer.ask(user("One"))
    assert Bearer(bob).ask(*FIRST, user("Two")).chat != first.chat


def test_the_newest_chat_with_these_texts_is_meant(bearer: Bearer) -> None:
    bearer.ask(user("One"))
    newest = bearer.ask(user("One"))
    assert bearer.ask(*FIRST, user("Two")).chat == newest.chat


def test_two_conversations_that_begin_alike_are_two_chats(bearer: Bearer) -> None:
    assert bearer.ask(user("Hi")).chat != bearer.ask(user("Hi")).chat


def test_line_ends_and_space_at_the_ends_do_not_count(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Answer("One,\ntwo.\n"))
    first = bearer.ask(user(" Count\nto two "))
    again = bearer.ask(user("Count\r\nto two"), assistant("One,\r\ntwo."), user("More"))
    assert again.chat == first.chat


def test_a_backslash_and_other_scripts_are_found(bearer: Bearer) -> None:
    text = "C:\\temp\\101 \\x41 – Größe 你好 🦊"
    first = bearer.ask(user(text))
    assert bearer.ask(user(text), assistant(f"You said: {text}"), user("More")).chat == first.chat


def test_digests_agree_on_every_ascii_character_at_the_ends() -> None:
    characters = [chr(number) for number in range(1, 128)]  # PostgreSQL's texts have no NUL
    ends = [text for end in characters for text in (end, f"{end}text", f"text{end}")]
    digests = rows(DIGESTS.format(digest=outlines.DIGEST), {"texts": ends})
    assert len(digests) == len(ends)
    assert [text for text, digest in digests if bytes(digest) != digest_of(normal(text))] == []


@pytest.mark.parametrize("headers", [{}, {"X-Verse-Client-Chat": "7f-a"}])
def test_texts_with_a_v_at_an_end_are_found(
    headers: dict[str, str], bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Answer("It is now a csv"), Answer("vielen Dank"), Answer("Again"))
    history = [user("convert it to csv")]
    first = bearer.ask(*history, headers=headers)
    history += [assistant("It is now a csv"), user("very nice, thank you")]
    assert bearer.ask(*history, headers=headers).chat == first.chat
    assert bearer.ask(*history, headers=headers).chat == first.chat  # regenerated
    history.append(assistant("Again"))
    assert bearer.ask(*history, user("More"), headers=headers).chat == first.chat
    shown = [message["content"] for message in history]
    assert texts() == [*shown, "More", "You said: More"]


def test_tools_images_and_system_do_not_count(bearer: Bearer) -> None:
    first = bearer.ask(user("One"))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = (
        {"role": "system", "content": "Be short."},
        user([{"type": "text", "text": "One"}, image]),
        assistant(None, tool_calls=[call]),
        {"role": "tool", "tool_call_id": "1", "content": "12:00"},
        assistant("You said: One"),
    )
    assert bearer.ask(*messages, user("Two")).chat == first.chat


def test_a_resent_beginning_of_an_answer_is_equal(bearer: Bearer) -> None:
    first = bearer.ask(user("One"))
    cut = bearer.ask(user("One"), assistant("You sa"), user("Two"))
    assert cut.chat == first.chat
    nothing = bearer.ask(user("One"), assistant("You sa"), user("Two"), user("Three"))
    assert nothing.chat == first.chat
    assert bearer.ask(user("One"), assistant("I sa"), user("Four")).chat != first.chat


def test_a_message_alone_in_a_named_chat_gets_the_stored_history(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    first = bearer.ask(user("One"))
    second = bearer.ask(user("Two"), headers={"X-Verse-Chat": str(first.chat)})
    assert second.chat == first.chat
    prompt = fake_openai.chat.requests[-1].messages
    assert [part["content"] for part in prompt[1:]] == ["One", "You said: One", "Two"]


def test_of_a_history_never_seen_only_the_turn_is_stored(bearer: Bearer) -> None:
    reply = bearer.ask(user("Zero"), assistant("Nothing."), user("One"))
    assert texts(reply.chat) == ["One", "You said: One"]


def test_a_title_is_the_first_line_of_the_question(bearer: Bearer) -> None:
    bearer.ask(user(f"\n{'x' * 90}\nmore"))
    assert StandaloneChat.objects.get().title == "x" * 80


def test_the_digest_is_looked_up_in_the_index(bearer: Bearer) -> None:
    bearer.ask(user("One"))
    execute(MANY, {"chat": StandaloneChat.objects.get().pk})
    execute("ANALYZE standalone_chats, standalone_chat_messages")
    execute("SET enable_seqscan = off")
    params = {"user": bearer.user.pk, "digest": b"0" * 16, "max_messages": 5, "max_chats": 5}
    plan = "\n".join(
        line for (line,) in rows("EXPLAIN " + outlines.STATEMENTS["chats_with"], params)
    )
    assert "standalone_messages_text" in plan, plan
    assert "Filter: " not in plan, plan  # the index has the digest, nothing is computed
