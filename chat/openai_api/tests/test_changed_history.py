"""What a client changes: the question again, an earlier message, an answer that failed."""

import pytest

from chat.client_chats import find_chat
from chat.memory.embed import finish_embedding_jobs
from chat.memory.state import memory_state
from chat.models import StandaloneChat, StandaloneChatMessage
from chat.openai_api.tests.support import Bearer, assistant, stored, texts, user
from fake_openai import Answer, CutAfter, FakeOpenAI, Refuse
from retrieval.backfill import backfill

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
FIRST = (user("One"), assistant("You said: One"))
SECOND = (user("Two"), assistant("You said: Two"))
OWN = {"X-Verse-Client-Chat": "mine"}


@pytest.mark.parametrize("headers", [OWN, {}], ids=["by id", "by texts"])
def test_the_same_question_again_replaces_the_answer(
    headers: dict[str, str], bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    first = bearer.ask(user("One"), headers=headers)
    bearer.ask(*FIRST, user("Two"), headers=headers)
    fake_openai.chat.script(Answer("Another."))
    again = bearer.ask(*FIRST, user("Two"), headers=headers)
    assert (again.chat, again.text) == (first.chat, "Another.")
    assert texts() == ["One", "You said: One", "Two", "Another."]


def test_the_first_question_again_replaces_its_answer(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    first = bearer.ask(user("One"), headers=OWN)
    fake_openai.chat.script(Answer("Another."))
    assert bearer.ask(user("One"), headers=OWN).chat == first.chat
    assert texts() == ["One", "Another."]


def test_the_same_words_after_the_answer_are_another_turn(bearer: Bearer) -> None:
    first = bearer.ask(user("One"), headers=OWN)
    assert bearer.ask(*FIRST, user("One"), headers=OWN).chat == first.chat
    assert texts() == ["One", "You said: One"] * 2


@pytest.mark.parametrize("headers", [OWN, {}], ids=["by id", "by texts"])
def test_a_changed_question_makes_a_branch(headers: dict[str, str], bearer: Bearer) -> None:
    first = bearer.ask(user("One"), headers=headers)
    bearer.ask(*FIRST, user("Two"), headers=headers)
    branch = bearer.ask(*FIRST, user("Two!"), headers=headers)
    assert branch.chat != first.chat
    assert texts(first.chat) == ["One", "You said: One", "Two", "You said: Two"]
    assert texts(branch.chat) == ["One", "You said: One", "Two!", "You said: Two!"]
    history = (user("Two!"), assistant("You said: Two!"))
    assert bearer.ask(*FIRST, *history, user("Three"), headers=headers).chat == branch.chat


def test_the_clients_own_id_means_the_branch(bearer: Bearer) -> None:
    bearer.ask(user("One"), headers=OWN)
    branch = bearer.ask(user("Won"), headers=OWN)
    assert find_chat(bearer.user.pk, "mine") == branch.chat
    assert texts(branch.chat) == ["Won", "You said: Won"]


def test_a_changed_answer_makes_a_branch_with_the_changed_text(bearer: Bearer) -> None:
    first = bearer.ask(user("One"), headers=OWN)
    branch = bearer.ask(user("One"), assistant("I said so."), user("Two"), headers=OWN)
    assert branch.chat != first.chat
    assert texts(branch.chat) == ["One", "I said so.", "Two", "You said: Two"]


def test_copies_are_neither_embedded_nor_recalled(bearer: Bearer, remembering: FakeOpenAI) -> None:
    bearer.ask(user("The zebra lives in Trieste"), headers=OWN)
    branch = bearer.ask(
        user("The zebra lives in Trieste"), assistant("Noted."), user("Good"), headers=OWN
    )
    finish_embedding_jobs()
    backfill(batch_size=100)
    copies = StandaloneChatMessage.objects.filter(conversation_id=branch.chat).in_order()[:2]
    assert [copy.content for copy in copies] == ["The zebra lives in Trieste", "Noted."]
    assert {copy.embedding for copy in copies} == {None}
    state = memory_state(bearer.user.pk)
    assert (state["pending"], state["messages"]) == (0, 4)
    bearer.ask(user("Where does the zebra live?"))
    prompt = remembering.chat.requests[-1].prompt_text
    assert prompt.count("user:\nThe zebra lives in Trieste") == 1
    assert "Noted." not in prompt


@pytest.mark.parametrize("behaviour", [Refuse(500), CutAfter("So far")])
def test_the_same_request_after_a_failure_takes_its_place(
    behaviour: object, bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(behaviour)  # type: ignore[arg-type]
    assert bearer.ask(user("One")).status == 502
    again = bearer.ask(user("One"))
    assert again.text == "You said: One"
    assert texts() == ["One", "You said: One"]
    assert StandaloneChat.objects.count() == 1


@pytest.mark.parametrize("headers", [OWN, {}], ids=["by id", "by texts"])
@pytest.mark.parametrize("has_turn_before", [True, False])
def test_a_conversation_goes_on_after_its_last_question_failed(
    has_turn_before: bool, headers: dict[str, str], bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    before = FIRST if has_turn_before else ()
    if has_turn_before:
        bearer.ask(user("One"), headers=headers)
    fake_openai.chat.script(Refuse(500))
    bearer.ask(*before, user("Two"), headers=headers)
    chat = StandaloneChat.objects.get()
    third = bearer.ask(*before, user("Two"), user("Three"), headers=headers)
    assert third.chat == chat.pk
    assert texts()[-4:] == ["Two", "", "Three", "You said: Three"]


@pytest.mark.parametrize("headers", [OWN, {}], ids=["by id", "by texts"])
@pytest.mark.parametrize("has_turn_before", [True, False])
@pytest.mark.parametrize("left", ["", "So"])
def test_what_a_dead_process_has_not_saved_makes_a_branch(
    left: str,
    has_turn_before: bool,
    headers: dict[str, str],
    bearer: Bearer,
) -> None:
    """The client has seen more of the answer than was saved."""
    before = FIRST if has_turn_before else ()
    if has_turn_before:
        bearer.ask(user("One"), headers=headers)
    bearer.ask(*before, user("Two"), headers=headers)
    lost = {"content": left, "status": "interrupted", "error": "interrupted"}
    StandaloneChatMessage.objects.filter(content="You said: Two").update(**lost)
    shown = (*before, user("Two"), assistant("So far"))
    third = bearer.ask(*shown, user("Three"), headers=headers)
    contents = [message["content"] for message in shown]
    assert texts(third.chat) == [*contents, "Three", "You said: Three"]


def test_messages_that_are_no_longer_sent_stay(bearer: Bearer) -> None:
    first = bearer.ask(user("One"), headers=OWN)
    bearer.ask(*FIRST, user("Two"), headers=OWN)
    third = bearer.ask(*SECOND, user("Three"), headers=OWN)
    assert third.chat == first.chat
    assert len(stored()) == 6
