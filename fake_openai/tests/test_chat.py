"""Good completions, read by OpenAI's own client and byte by byte."""

import time

import openai
import pytest

from fake_openai import CONTROLS, Answer, Big, Controls, Echo, FakeOpenAI, Refuse
from fake_openai.tests.support import chat_request, chunks_of, client_of, read_answer, streamed_text

ODD = "  Two  spaces,\na line, 🦊🐕‍🦺 emoji, é, 漢字, line\u2028and\x85ends, trailing \n\n"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(ODD),
        Answer(ODD, line_end="\r\n", comments=True, null_deltas=True),
        Answer(ODD, split_bytes=7),
        Answer(ODD, split_bytes=1, line_end="\r\n", comments=True),
        Answer(ODD, tokens_per_s=500),
        Answer(ODD, words_per_delta=3, first_token_s=0.02),
        Answer(""),
    ],
)
def test_a_stream_contains_the_text(answer: Answer) -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.default = answer
        assert streamed_text(client) == answer.text
        assert fake.chat.requests[0].outcome == "answered"


def test_an_answer_without_streaming_contains_the_text() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.default = Answer(ODD, finish_reason="length")
        answer = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi there"}]
        )
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ODD, "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


def test_a_stream_has_role_finish_reason_and_usage() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.script(Answer("One two three."))
        chunks = list(
            client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "Hi"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:4]] == ["One", " two", " three."]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_chunks_are_split_inside_a_character() -> None:
    with FakeOpenAI() as fake:
        fake.chat.default = Answer("🦊" * 20, split_bytes=7)
        with chat_request(fake) as sock:
            chunks = chunks_of(read_answer(sock)[0])
    assert {len(chunk) for chunk in chunks[:-1]} == {7}
    with pytest.raises(UnicodeDecodeError):
        [chunk.decode() for chunk in chunks]


def test_words_arrive_at_the_configured_speed() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.default = Answer("one two three four five", first_token_s=0.1, tokens_per_s=20)
        begun = time.monotonic()
        streamed_text(client)
    assert time.monotonic() - begun >= 0.3  # 0.1 s, then four pauses of 0.05 s


def test_big_answers_and_control_characters_arrive_unchanged() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.script(Big(1_000_000), Controls())
        assert len(streamed_text(client)) == 1_000_000
        assert streamed_text(client) == CONTROLS


def test_scripts_answer_in_order_then_the_default_then_an_echo() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.script(Answer("first"), Refuse(500))
        fake.chat.default = Answer("later")
        fake.chat.when("dog", Answer("woof"))
        assert streamed_text(client) == "first"
        assert streamed_text(client, "my dog") == "woof"
        with pytest.raises(openai.InternalServerError):
            streamed_text(client)
        assert (streamed_text(client), fake.chat.script_left) == ("later", 0)
        fake.reset()
        assert streamed_text(client, "my dog") == "You said: my dog"
        assert len(fake.requests) == 1


def test_an_echo_has_the_requested_length() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.default = Echo(tokens=100)
        assert len(streamed_text(client).split()) == 100


def test_a_refused_request_without_messages_consumes_no_behaviour() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.script(Answer("still here"))
        with pytest.raises(openai.BadRequestError, match="messages"):
            client.chat.completions.create(model="m", messages=[])
        assert streamed_text(client) == "still here"


def test_requests_are_recorded() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        client.chat.completions.create(
            model="m",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
            ],
        )
        request = fake.chat.requests[0]
    assert (request.prompt_text, request.last_user_text) == ("Be brief.\nHi", "Hi")
    assert request.headers["authorization"] == "Bearer sk-any"
    assert (request.body["model"], request.messages[0]["role"], request.texts) == (
        "m",
        "system",
        [],
    )
    assert request.seconds is not None
    assert request.seconds < 1
