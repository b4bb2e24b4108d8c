"""Each misbehaviour, as a client that sees every byte sees it."""

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
from fake_openai.tests.support import asked, chunks_of, client_of, everything, json_of, said


def seen(behaviour: Behaviour, *, stream: bool = True) -> tuple[bytes, str]:
    """The bytes of an answer, and how it ended."""
    with FakeOpenAI() as fake:
        fake.chat.default = behaviour
        with asked(fake, stream=stream) as sock:
            return everything(sock)


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
    answer, how = seen(behaviour, stream=stream)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"words" in answer
    assert b"[DONE]" not in answer
    assert b'"usage"' not in answer
    assert how == end


@pytest.mark.parametrize(
    ("behaviour", "end"), [(Hang(), "silence"), (Drop(), "rst"), (Drop(reset=False), "fin")]
)
def test_no_byte_of_an_answer_comes(behaviour: Behaviour, end: str) -> None:
    assert seen(behaviour) == (b"", end)


def test_a_refusal_is_openais_error_with_our_words() -> None:
    answer, _ = seen(Refuse(429, message="canary-7", headers={"Retry-After": "2"}))
    assert b"HTTP/1.1 429 Too Many Requests" in answer
    assert b"Retry-After: 2\r\n" in answer
    assert json_of(answer)["error"] == {
        "message": "canary-7",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }


def test_refusals_are_what_openais_client_makes_of_them() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.script(Refuse(429, "insufficient_quota"), RefuseByContent(), Refuse(503))
        with pytest.raises(openai.RateLimitError) as quota:
            said(client)
        assert (quota.value.code, quota.value.type) == ("insufficient_quota", "insufficient_quota")
        with pytest.raises(openai.BadRequestError) as content:
            said(client)
        assert content.value.code == "content_filter"
        with pytest.raises(openai.InternalServerError):
            said(client)


def test_html_comes_with_status_200() -> None:
    answer, _ = seen(Html())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: text/html" in answer
    assert b"<h1>" in answer


@pytest.mark.parametrize("stream", [True, False])
def test_garbled_json_does_not_parse(stream: bool) -> None:
    answer, end = seen(Garbled(), stream=stream)
    events = b"".join(chunks_of(answer)).strip().split(b"\n\n")
    broken = [event.removeprefix(b"data: ") for event in events if event != b"data: [DONE]"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken[-1])
    assert end == "end"


def test_empty_has_no_content() -> None:
    assert chunks_of(seen(Empty())[0]) == [b"data: [DONE]\n\n"]
    body = b"".join(chunks_of(seen(Empty(), stream=False)[0]))
    assert json.loads(body)["choices"][0]["message"]["content"] == ""


def test_a_trickle_is_one_byte_at_a_time() -> None:
    assert {len(chunk) for chunk in chunks_of(seen(Trickle("Slow", every_s=0))[0])} == {1}
    answer, end = seen(Trickle("Slow", every_s=0.5))
    assert (chunks_of(answer), end) == ([b"d"], "silence")


def test_an_error_comes_in_the_middle_of_a_stream() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.default = ErrorEvent("Some words", message="canary-8")
        with pytest.raises(openai.APIError, match="canary-8"):
            said(client)
        with asked(fake) as sock:
            assert b"words" in everything(sock)[0]


def test_a_broken_behaviour_fails_the_test_that_used_it() -> None:
    fake = FakeOpenAI()
    fake.start()
    fake.chat.default = Answer("x", tokens_per_s="fast")  # type: ignore[arg-type]  # the mistake
    with asked(fake) as sock:
        assert everything(sock)[1] == "rst"
    with pytest.raises(RuntimeError, match="behaviour"):
        fake.stop()
