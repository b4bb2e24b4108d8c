"""Each misbehaviour, byte by byte."""

import json

import openai
import pytest

from fake_openai import (
    Answer,
    Behaviour,
    CutAfter,
    Drop,
    Empty,
    EndsWithoutDone,
    ErrorEvent,
    FakeOpenAI,
    Garbled,
    Hang,
    HangAfter,
    Html,
    Refuse,
    RefuseByContent,
    Trickle,
)
from fake_openai.tests.support import (
    chat_request,
    chunks_of,
    client_of,
    json_of,
    read_answer,
    streamed_text,
)


def answer_of(behaviour: Behaviour, *, stream: bool = True) -> tuple[bytes, str]:
    """The bytes of an answer, and why it ended."""
    with FakeOpenAI() as fake:
        fake.chat.default = behaviour
        with chat_request(fake, stream=stream) as sock:
            return read_answer(sock)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("behaviour", "end"),
    [
        (HangAfter("Some words"), "silence"),
        (CutAfter("Some words"), "rst"),
        (CutAfter("Some words", reset=False), "fin"),
        (EndsWithoutDone("Some words"), "end"),
    ],
)
def test_an_answer_stops_half_way(behaviour: Behaviour, end: str, stream: bool) -> None:
    answer, ending = answer_of(behaviour, stream=stream)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"words" in answer
    assert b"[DONE]" not in answer
    assert b'"usage"' not in answer
    assert ending == end


@pytest.mark.parametrize(("behaviour", "end"), [(Drop(), "rst"), (Drop(reset=False), "fin")])
def test_an_answer_has_no_bytes(behaviour: Behaviour, end: str) -> None:
    assert answer_of(behaviour) == (b"", end)


def test_a_hanging_answer_has_no_bytes() -> None:
    with FakeOpenAI() as fake:
        fake.chat.default = Hang()
        with chat_request(fake) as sock:
            fake.wait_for(lambda: fake.chat.requests)
            assert read_answer(sock, first_byte_s=0.2) == (b"", "silence")


def test_a_refusal_has_openais_form_and_our_message() -> None:
    answer, _ = answer_of(Refuse(429, message="canary-7", headers={"Retry-After": "2"}))
    assert b"HTTP/1.1 429 Too Many Requests" in answer
    assert b"Retry-After: 2\r\n" in answer
    assert json_of(answer)["error"] == {
        "message": "canary-7",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }


def test_openais_client_recognises_refusals() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.script(Refuse(429, "insufficient_quota"), RefuseByContent(), Refuse(503))
        with pytest.raises(openai.RateLimitError) as quota:
            streamed_text(client)
        assert (quota.value.code, quota.value.type) == ("insufficient_quota", "insufficient_quota")
        with pytest.raises(openai.BadRequestError) as content:
            streamed_text(client)
        assert content.value.code == "content_filter"
        with pytest.raises(openai.InternalServerError):
            streamed_text(client)


def test_html_has_status_200() -> None:
    answer, _ = answer_of(Html())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: text/html" in answer
    assert b"<h1>" in answer


@pytest.mark.parametrize("stream", [True, False])
def test_garbled_json_does_not_parse(stream: bool) -> None:
    answer, end = answer_of(Garbled(), stream=stream)
    events = b"".join(chunks_of(answer)).strip().split(b"\n\n")
    broken = [event.removeprefix(b"data: ") for event in events if event != b"data: [DONE]"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken[-1])
    assert end == "end"


def test_empty_has_no_content() -> None:
    assert chunks_of(answer_of(Empty())[0]) == [b"data: [DONE]\n\n"]
    body = b"".join(chunks_of(answer_of(Empty(), stream=False)[0]))
    assert json.loads(body)["choices"][0]["message"]["content"] == ""


def test_a_trickle_sends_one_byte_at_a_time() -> None:
    assert {len(chunk) for chunk in chunks_of(answer_of(Trickle("Slow", every_s=0))[0])} == {1}
    answer, end = answer_of(Trickle("Slow", every_s=60))
    assert (chunks_of(answer), end) == ([b"d"], "silence")


def test_an_error_event_ends_a_stream() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.default = ErrorEvent("Some words", message="canary-8")
        with pytest.raises(openai.APIError, match="canary-8"):
            streamed_text(client)
        with chat_request(fake) as sock:
            assert b"words" in read_answer(sock)[0]


def test_a_broken_behaviour_fails_the_test_that_used_it() -> None:
    fake = FakeOpenAI()
    fake.start()
    fake.chat.default = Answer("x", tokens_per_s="fast")  # type: ignore[arg-type]  # the bug
    with chat_request(fake) as sock:
        assert read_answer(sock)[1] == "rst"
    with pytest.raises(RuntimeError, match="behaviour"):
        fake.stop()
