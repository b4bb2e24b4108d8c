"""Requests that are no turns, calls of tools, and the model without memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import Settings

from chat.memory.embed import finish_embedding_jobs
from chat.models import StandaloneChat, StandaloneChatMessage
from chat.openai_api import tasks
from chat.openai_api.tests.support import Bearer, Message, Reply, assistant, stored, texts, user
from chat.personal_data import erase
from chat.services import ChatService
from fake_openai import Answer, Deltas, FakeOpenAI
from retrieval import token_usage
from retrieval.forgetting import tainted_on_older_schema
from tests.support import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
TITLE = """### Task:
Generate a concise, 3-5 word title with an emoji summarizing the chat history.
### Guidelines:
- Keep it simple.
### Chat History:
<chat_history>
USER: My zebra lives in Trieste
</chat_history>"""
FROM_DOCUMENTS = """### Task:
Respond to the user query using the provided context, incorporating inline citations.
<context>Zebras eat grass.</context>
What does it eat?"""
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "clock", "arguments": ""}}
MORE = {"index": 0, "function": {"arguments": '{"zone": "UTC"}'}}
TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}]
CALLS = Deltas(({"tool_calls": [CALL]}, {"tool_calls": [MORE]}), "tool_calls")
WHOLE_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "clock", "arguments": '{"zone": "UTC"}'},
}
RESULT: Message = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


TASKS: dict[str, tuple[list[Message], dict[str, str]]] = {
    "the header": ([user("A title, please")], {"X-Verse-Memory": "off"}),
    "the header in capitals": ([user("A title, please")], {"X-Verse-Memory": "OFF"}),
    "Open WebUI's header": ([user("A title, please")], {"X-OpenWebUI-Task": "title_generation"}),
    "Open WebUI's template": ([user(TITLE)], {}),
    "a temporary chat": ([user("Hello")], {"X-OpenWebUI-Chat-Id": "local:7f"}),
    **{text[:30]: ([user("Hi"), user(f"{text} \n…")], {}) for text in tasks.LAST_MESSAGE},
    **{text[:30]: ([system(f"{text} …"), user("Hi")], {}) for text in tasks.SYSTEM_MESSAGE},
}


@pytest.mark.parametrize("name", TASKS)
def test_a_request_that_is_no_turn_is_answered_and_not_stored(
    name: str, bearer: Bearer, remembering: FakeOpenAI
) -> None:
    messages, headers = TASKS[name]
    reply = bearer.ask(*messages, headers=headers)
    assert (reply.status, reply.chat) == (200, None)
    assert reply.text.startswith("You said: ")
    assert (stored(), StandaloneChat.objects.count()) == ([], 0)
    assert remembering.embeddings.requests == []


def test_a_request_that_is_no_turn_is_passed_on_whole(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    messages = [system("Be short."), user("A title, please")]
    bearer.ask(*messages, headers={"X-Verse-Memory": "off"}, temperature=0.1)
    fields = fake_openai.chat.requests[-1].fields
    assert fields["temperature"] == 0.1
    assert fields["messages"][0]["content"].startswith("Be short.")
    assert fields["messages"][1:] == messages[1:]


def test_the_results_of_tools_can_be_sent_again_with_their_key(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    calls = assistant(None, tool_calls=[WHOLE_CALL])
    messages = (user("What time is it?"), calls, RESULT)
    headers = {"Idempotency-Key": "key"}
    first = bearer.ask(*messages, headers=headers)
    again = bearer.ask(*messages, headers=headers)
    assert (again.chat, again.text) == (first.chat, first.text)
    assert len(fake_openai.chat.requests) == 1


@pytest.mark.parametrize("question", ["x" * 32_001, "a\0b"])
def test_a_question_that_cannot_be_stored_is_answered_with_its_tools(
    question: str, bearer: Bearer
) -> None:
    reply = bearer.ask(user(question), assistant(None, tool_calls=[WHOLE_CALL]), RESULT)
    assert (reply.status, reply.chat, stored()) == (200, None, [])


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        (FROM_DOCUMENTS, {}),
        ("### Task: write a title", {}),
        ("Generate a title for my book", {}),
        ("Hello", {"X-OpenWebUI-Task": ""}),
        ("Hello", {"X-Verse-Memory": "on"}),
    ],
)
def test_what_is_no_known_task_is_a_turn(
    text: str, headers: dict[str, str], bearer: Bearer
) -> None:
    assert bearer.ask(user(text), headers=headers).chat is not None
    assert texts() == [text, f"You said: {text}"]


def test_calls_of_tools_alone_are_given_and_not_stored(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(CALLS, Answer("It is noon."))
    reply = bearer.ask(user("What time is it?"), tools=TOOLS)
    choice = reply.body["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert choice["message"]["tool_calls"] == [WHOLE_CALL]
    assert (reply.chat, stored(), StandaloneChat.objects.count()) == (None, [], 0)
    assert fake_openai.chat.requests[-1].fields["tools"] == TOOLS

    calls = assistant(None, tool_calls=[WHOLE_CALL])
    done = bearer.ask(user("What time is it?"), calls, RESULT, tools=TOOLS)
    assert texts(done.chat) == ["What time is it?", "It is noon."]
    sent = fake_openai.chat.requests[-1].messages[1:]
    assert sent == [user("What time is it?"), calls, RESULT]
    history = (user("What time is it?"), calls, RESULT, assistant("It is noon."))
    assert bearer.ask(*history, user("Thanks"), tools=TOOLS).chat == done.chat
    assert len(stored()) == 4


def test_text_before_a_call_is_replaced_by_the_answer(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(
        Deltas(({"content": "Let me look."}, {"tool_calls": [CALL]}), "tool_calls"),
        Answer("It is noon."),
    )
    first = bearer.ask(user("What time is it?"), tools=TOOLS)
    assert texts(first.chat) == ["What time is it?", "Let me look."]
    calls = assistant("Let me look.", tool_calls=[WHOLE_CALL])
    done = bearer.ask(
        user("What time is it?"),
        calls,
        RESULT,
        tools=TOOLS,
        headers={"X-Verse-Chat": str(first.chat)},
    )
    assert texts(done.chat) == ["What time is it?", "It is noon."]
    assert done.chat == first.chat


def test_a_question_with_tools_that_is_answered_is_stored_with_its_vector(
    bearer: Bearer, remembering: FakeOpenAI
) -> None:
    bearer.ask(user("My zebra lives in Trieste"), tools=TOOLS)
    finish_embedding_jobs()
    chat = StandaloneChat.objects.get()
    assert [message.embedding is None for message in chat.messages.in_order()] == [False, False]
    texts_bought = [text for call in remembering.embeddings.requests for text in call.texts]
    assert len(texts_bought) == len(set(texts_bought)) == 2


def test_calls_of_tools_are_streamed(bearer: Bearer, fake_openai: FakeOpenAI) -> None:
    fake_openai.chat.script(CALLS)
    events = bearer.events(user("What time is it?"), tools=TOOLS)
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert calls == [CALL, MORE]
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert events[-1] == "[DONE]"
    assert stored() == []


def ask_slowly(
    bearer: Bearer, fake: FakeOpenAI, body: dict[str, Any], meanwhile: Callable[[], object]
) -> Reply:
    """The reply to a question with tools, whose answer begins after ``meanwhile``."""
    fake.chat.script(Answer("Trieste, I think.", first_token_s=1.0))
    calls = len(fake.chat.requests)

    def post() -> Reply:
        try:
            return bearer.post({"model": "verse", "tools": TOOLS} | body)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        posted = pool.submit(post)
        wait_for(lambda: len(fake.chat.requests) > calls)
        meanwhile()
        return posted.result()


@pytest.mark.parametrize("stream", [True, False])
def test_a_chat_deleted_before_the_first_word_is_a_404(
    stream: bool, bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Answer("Hello!"))
    chat = bearer.ask(user("Hello")).chat
    messages = [user("Hello"), assistant("Hello!"), user("What time is it?")]
    reply = ask_slowly(
        bearer,
        fake_openai,
        {"messages": messages, "stream": stream},
        StandaloneChat.objects.filter(pk=chat or 0).delete,
    )
    assert (reply.status, reply.code) == (404, "not_found")
    assert stored() == []


def test_an_erasure_before_the_first_word_is_final(
    bearer: Bearer, fake_openai: FakeOpenAI, alice: User
) -> None:
    fake_openai.chat.script(Answer("Good."))
    bearer.ask(user("My zebra lives in Trieste"))
    body = {"messages": [user("Where does my zebra live?")]}
    reply = ask_slowly(bearer, fake_openai, body, lambda: erase(alice.pk))
    assert (reply.status, reply.code) == (404, "not_found")
    assert stored() == []
    assert not StandaloneChat.objects.exists()
    bearer.ask(user("A later one"), tools=TOOLS)
    assert texts()[0] == "A later one"


def test_an_edit_before_the_first_word_taints_the_answer(
    bearer: Bearer, fake_openai: FakeOpenAI, remembering: FakeOpenAI, alice: User
) -> None:
    fake_openai.chat.script(Answer("Good."))
    number = bearer.ask(user("My zebra lives in Trieste")).chat
    chat = StandaloneChat.objects.get(pk=number or 0)
    message = chat.messages.get(role="user")
    chat.messages.filter(role="assistant").delete()  # its taint would reach the new answer, too
    body = {"messages": [user("Where does my zebra live?")]}
    edit = partial(ChatService(chat).edit, message, "My zebra lives in Udine")
    reply = ask_slowly(bearer, fake_openai, body, edit)
    assert reply.status == 200
    answer = StandaloneChatMessage.objects.get(conversation_id=reply.chat, role="assistant")
    assert message.pk in [given.get("id") for given in answer.context]
    ref = answer.memory_table.pack_ref(answer.pk)
    assert tainted_on_older_schema(alice.pk, [ref]) == {ref}


def test_half_a_character_in_a_call_is_joined_with_its_other_half(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    halves = [{"index": 0, "function": {"arguments": half}} for half in ('"\ud83d', '\ude00"')]
    odd = {"index": [1], "id": "c2", "function": {"name": "x", "arguments": "\ud83d"}}
    calls = Deltas(({"tool_calls": [CALL]}, *({"tool_calls": [half]} for half in halves)))
    fake_openai.chat.script(calls, calls, Deltas(({"tool_calls": [odd]},), "tool_calls"))
    events = bearer.events(user("What time is it?"), tools=TOOLS)
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    sent = [call["function"] for delta in deltas for call in delta.get("tool_calls", [])]
    whole = bearer.ask(user("What time is it?"), tools=TOOLS).body["choices"][0]["message"]
    assert "".join(function.get("arguments", "") for function in sent) == '"\ud83d\ude00"'
    assert whole["tool_calls"][0]["function"]["arguments"] == '"😀"'
    lone = bearer.ask(user("What time is it?"), tools=TOOLS).body["choices"][0]["message"]
    assert lone["tool_calls"][0]["function"]["arguments"] == "\ufffd"


def test_a_conversation_that_ends_with_an_answer_is_not_stored(
    bearer: Bearer, remembering: FakeOpenAI
) -> None:
    bearer.ask(user("My zebra lives in Trieste"))
    finish_embedding_jobs()
    before = stored()
    reply = bearer.ask(user("Where does my zebra live?"), assistant("It lives in"))
    assert (reply.chat, stored()) == (None, before)
    prompt = remembering.chat.requests[-1].messages
    assert "My zebra lives in Trieste" in prompt[1]["content"]
    assert prompt[-1] == assistant("It lives in")


def test_an_image_without_text_is_answered_and_not_stored(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    fake_openai.chat.script(Answer("A zebra."))
    assert bearer.ask(user([image])).text == "A zebra."
    assert fake_openai.chat.requests[-1].messages[-1]["content"] == [image]
    assert stored() == []


def test_an_image_is_passed_on_and_its_question_stored(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    bearer.ask(user([{"type": "text", "text": "What is it?"}, image]))
    assert fake_openai.chat.requests[-1].messages[-1]["content"][1] == image
    assert texts() == ["What is it?", "You said: What is it?\n"]


def test_the_model_without_memory_makes_a_chat_without(
    bearer: Bearer, remembering: FakeOpenAI
) -> None:
    reply = bearer.ask(user("My zebra lives in Trieste"), model="verse-nomemory")
    assert StandaloneChat.objects.get().memory is False
    again = bearer.ask(
        user("My zebra lives in Trieste"),
        assistant("You said: My zebra lives in Trieste"),
        user("Good"),
        model="verse-nomemory",
    )
    assert again.chat == reply.chat
    finish_embedding_jobs()
    assert remembering.embeddings.requests == []


def test_the_model_without_memory_leaves_other_chats_alone(
    bearer: Bearer, remembering: FakeOpenAI, alice: User
) -> None:
    first = bearer.ask(user("My zebra lives in Trieste"))
    finish_embedding_jobs()
    calls = len(remembering.embeddings.requests)
    headers = {"X-Verse-Chat": str(first.chat)}
    reply = bearer.ask(user("Where is it?"), model="verse-nomemory", headers=headers)
    assert (reply.status, reply.chat, len(stored())) == (200, None, 2)
    assert len(remembering.embeddings.requests) == calls


def test_the_rate_limit_counts_what_is_not_stored(bearer: Bearer, settings: Any) -> None:
    settings.THROTTLE_MESSAGES = Rate()
    headers = {"X-Verse-Memory": "off"}
    assert bearer.ask(user("A title"), headers=headers).status == 200
    refused = bearer.ask(user("A title"), headers=headers)
    assert (refused.status, refused.code) == (429, "throttled")
    assert "Retry-After" in refused.headers


class Rate:
    """One message a minute."""

    limit = 1
    seconds = 60


def test_what_is_not_stored_is_counted_to_the_token(
    bearer: Bearer, remembering: FakeOpenAI
) -> None:
    remembering.chat.script(Answer("Zebra in Trieste"), CALLS)
    bearer.ask(user("A title, please"), headers={"X-Verse-Memory": "off"})
    bearer.ask(user("What time is it in Trieste?"), tools=TOOLS)
    finish_embedding_jobs()
    assert stored() == []
    day = token_usage.report(bearer.user.pk).day
    title = remembering.chat.requests[0].usage or {}
    assert day.prompt_tokens > title["prompt_tokens"]
    assert day.completion_tokens > title["completion_tokens"]
    (question,) = remembering.embeddings.requests
    assert day.embedding_tokens == (question.usage or {})["prompt_tokens"]


def test_the_daily_limit_is_an_error_that_no_client_tries_again(
    bearer: Bearer, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    first = bearer.ask(user("Hello"), headers={"Idempotency-Key": "first"})
    settings.DAILY_TOKENS_PER_USER = 1
    calls = len(fake_openai.chat.requests)
    for more in ({"headers": {"X-Verse-Memory": "off"}}, {"tools": TOOLS}, {}):
        reply = bearer.ask(user("Once more"), **more)
        assert (reply.status, reply.code) == (429, "daily_limit")
        assert int(reply.headers["Retry-After"]) > 0
        assert reply.headers["x-should-retry"] == "false"
    assert len(fake_openai.chat.requests) == calls
    again = bearer.ask(user("Hello"), headers={"Idempotency-Key": "first"})
    assert again.text == first.text
