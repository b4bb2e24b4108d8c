"""OpenAI's own Python client against a real server: answers, streams, tools, images, errors."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from openai import (
    APIError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
)

from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, CutAfter, Deltas, FakeOpenAI, Refuse

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def ask(client: Any, *messages: Any, **more: Any) -> Any:
    """The answer, with the response's headers as ``headers``."""
    raw = client.chat.completions.with_raw_response.create(
        **{"model": "verse", "messages": list(messages)} | more
    )
    answer = raw.parse()
    answer.chat = raw.headers.get("X-Verse-Chat")
    return answer


def stored(chat: Any = None) -> list[tuple[str, str]]:
    messages = StandaloneChatMessage.objects.in_order()
    if chat:
        messages = messages.filter(conversation_id=chat)
    return list(messages.values_list("role", "content"))


def test_a_whole_answer_is_given_and_stored(client: Any, openai_server: FakeOpenAI) -> None:
    openai_server.chat.script(Answer("Hello, Alice."))
    answer = ask(client, user("Hello there,\nit is me"))
    assert answer.choices[0].message.content == "Hello, Alice."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 0
    assert stored(answer.chat) == [
        ("user", "Hello there,\nit is me"),
        ("assistant", "Hello, Alice."),
    ]
    assert StandaloneChat.objects.get().title == "Hello there,"


def test_the_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["verse", "verse-nomemory"]
    assert client.models.retrieve("verse").id == "verse"


def test_a_streamed_answer_comes_in_pieces(client: Any, openai_server: FakeOpenAI) -> None:
    openai_server.chat.script(Answer("One two three."))
    chunks = list(
        client.chat.completions.create(
            model="verse",
            messages=[user("Count")],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "One two three."
    assert chunks[-1].usage is not None
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert stored() == [("user", "Count"), ("assistant", "One two three.")]


def test_a_conversation_sent_anew_stays_one_chat(client: Any) -> None:
    messages = [user("First")]
    for question in ("Second", "Third"):
        answer = ask(client, *messages)
        messages += [assistant(answer.choices[0].message.content), user(question)]
    ask(client, *messages)
    assert [text for _, text in stored()] == [
        *("First", "You said: First", "Second", "You said: Second"),
        *("Third", "You said: Third"),
    ]
    assert StandaloneChat.objects.count() == 1


def test_calls_of_tools_are_parsed_by_the_client(client: Any, openai_server: FakeOpenAI) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "clock"}}
    arguments = {"index": 0, "function": {"arguments": '{"zone": "UTC"}'}}
    deltas = Deltas(({"tool_calls": [call]}, {"tool_calls": [arguments]}), "tool_calls")
    openai_server.chat.script(deltas, deltas, Answer("It is noon."))
    tools = [{"type": "function", "function": {"name": "clock"}}]
    whole = ask(client, user("What time is it?"), tools=tools)
    (parsed,) = whole.choices[0].message.tool_calls
    assert (parsed.function.name, parsed.function.arguments) == ("clock", '{"zone": "UTC"}')
    with client.chat.completions.stream(
        model="verse", messages=[user("What time is it?")], tools=tools
    ) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.tool_calls[0].function.arguments == '{"zone": "UTC"}'
    result = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}
    messages = [user("What time is it?"), whole.choices[0].message.to_dict(), result]
    assert ask(client, *messages, tools=tools).choices[0].message.content == "It is noon."
    assert stored() == [("user", "What time is it?"), ("assistant", "It is noon.")]


def test_an_image_is_passed_on(client: Any, openai_server: FakeOpenAI) -> None:
    url = "data:image/png;base64," + "A" * 2_000_000
    image = {"type": "image_url", "image_url": {"url": url}}
    ask(client, user([{"type": "text", "text": "What is it?"}, image]))
    content = openai_server.chat.requests[-1].messages[-1]["content"]
    assert content[1]["image_url"]["url"] == url
    assert stored()[0] == ("user", "What is it?")


def test_reasoning_is_an_extra_field(client: Any, openai_server: FakeOpenAI) -> None:
    openai_server.chat.script(Deltas(({"reasoning_content": "Hm."}, {"content": "Hi."})))
    message = ask(client, user("Hello")).choices[0].message
    assert (message.reasoning_content, message.content) == ("Hm.", "Hi.")


def test_the_clients_errors_are_those_of_openai(
    client: Any, client_of: Any, bob: User, openai_server: FakeOpenAI
) -> None:
    with pytest.raises(NotFoundError) as unknown:
        ask(client, user("Hello"), model="gpt-4")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(BadRequestError) as two:
        ask(client, user("Hello"), n=2)
    assert (two.value.code, two.value.param) == ("invalid", "n")
    chat = ask(client_of(bob), user("Hello")).chat
    with pytest.raises(NotFoundError):
        ask(client, user("Hello"), extra_headers={"X-Verse-Chat": chat})
    openai_server.chat.script(Refuse(401), CutAfter("So far"))
    with pytest.raises(InternalServerError) as refused:
        ask(client, user("Hello"))
    assert (refused.value.status_code, refused.value.code) == (502, "llm_error")
    with pytest.raises(APIError, match="broke off"):
        list(client.chat.completions.create(model="verse", messages=[user("Hi")], stream=True))
    wrong = client.with_options(api_key="wrong")
    with pytest.raises(AuthenticationError):
        wrong.models.list()
