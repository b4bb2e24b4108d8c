"""OpenAI's own Python client against a real server: answers, streams, tools, images, errors."""

from typing import Any

import pytest

from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI

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
