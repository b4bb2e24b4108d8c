"""Answers of every form that servers send, in pieces of every size."""

import json
from typing import Any

import pytest

from chat.answers.completion_parser import CompletionParser
from chat.answers.errors import CompletionError
from chat.answers.event_stream_parser import EventStreamParser
from chat.answers.reasoning import Piece

# The examples of https://html.spec.whatwg.org/multipage/server-sent-events.html, and its rules.
STREAMS: list[tuple[bytes, list[str]]] = [
    (b"data: one\n\n", ["one"]),
    (b"data:one\n\n", ["one"]),
    (b"data:  one\n\n", [" one"]),
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", ["YHOO\n+2\n10"]),
    (b": comment\n\ndata: first\nid: 1\n\ndata:second\nid\n\ndata:  third\n\n",
     ["first", "second", " third"]),
    (b"data\n\ndata\ndata\n\ndata:", ["", "\n"]),
    (b"data:test\n\ndata: test\n\n", ["test", "test"]),
    (b"data: one\r\n\r\ndata: two\r\rdata: three\n\n", ["one", "two", "three"]),
    (b"data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
    (b"\xef\xbb\xbfdata: one\n\n", ["one"]),
    (b"data: one\n\n\xef\xbb\xbfdata: two\n\n", ["one"]),
    (b"event: ping\nretry: 10\nother: x\ndatax: y\ndata : z\n\n", []),
    (b"data: no end", []),
    (b"data: no empty line\n", []),
    ("data: a\u2028b\u2029c\x85d\x0be\x0cf\x1c\n\n".encode(),
     ["a\u2028b\u2029c\x85d\x0be\x0cf\x1c"]),
    ("data: é🦊\n\n".encode(), ["é🦊"]),
    (b"data: \xff\xfe\n\n", ["\ufffd\ufffd"]),
    (b"data: a:b: c\n\n", ["a:b: c"]),
    (b"\n\n\ndata: late\n\n", ["late"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), STREAMS)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_events_are_split_as_the_standard_says(body: bytes, expected: list[str], size: int) -> None:
    parser = EventStreamParser(max_event_bytes=10_000)
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    assert [event for chunk in chunks for event in parser.feed(chunk)] == expected


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    parser = EventStreamParser(max_event_bytes=100_000)
    for _ in range(99):
        parser.feed(b"x" * 1000)
    with pytest.raises(ValueError, match="does not end"):
        parser.feed(b"x" * 2000)


def events(*deltas: Any, end: str | None = "stop", done: bool = True) -> bytes:
    """A stream of these deltas (texts are contents), and its end."""
    contents = ({"content": delta} if isinstance(delta, str) else delta for delta in deltas)
    choices: list[Any] = [{"index": 0, "delta": delta} for delta in contents]
    if end:
        choices.append({"index": 0, "delta": {}, "finish_reason": end})
    chunks = [json.dumps({"choices": [choice]}) for choice in choices] + ["[DONE]"] * done
    return "".join(f"data: {chunk}\n\n" for chunk in chunks).encode()


def whole(message: Any, **more: Any) -> bytes:
    """One JSON object in spite of ``stream``."""
    return json.dumps({"choices": [{"message": message, **more}]}).encode()


def first_event_ends(text: str) -> bytes:
    chunk = {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


THOUGHT = Piece("Answer.", "Thinking")
FORMS: dict[str, tuple[bytes, Piece, str | None]] = {
    "text": (events("Hel", "lo"), Piece("Hello"), "stop"),
    "no finish_reason": (events("Hello", end=None), Piece("Hello"), None),
    "no [DONE]": (events("Hello", done=False), Piece("Hello"), "stop"),
    "finish_reason first": (first_event_ends("Hello"), Piece("Hello"), "stop"),
    "no space": (events("Hello").replace(b"data: ", b"data:"), Piece("Hello"), "stop"),
    "parts": (events({"content": [{"type": "text", "text": "Hel"}, {"text": "lo"}]}),
              Piece("Hello"), "stop"),
    "parts as texts": (events({"content": ["Hel", "lo"]}), Piece("Hello"), "stop"),
    "thinking part": (
        events({"content": [{"type": "thinking", "thinking": [{"text": "Thinking"}]}]}, "Answer."),
        THOUGHT, "stop"),
    "refusal": (events({"content": None, "refusal": "I cannot."}), Piece("I cannot."), "stop"),
    "reasoning_content": (events({"reasoning_content": "Thinking"}, "Answer."), THOUGHT, "stop"),
    "reasoning": (events({"reasoning": "Thinking", "content": ""}, "Answer."), THOUGHT, "stop"),
    "both": (events({"reasoning": "Thinking", "reasoning_content": "Thinking"}, "Answer."),
             THOUGHT, "stop"),
    "think": (events("<thi", "nk>Think", "ing</th", "ink>\n\n", "Answer."), THOUGHT, "stop"),
    "think after space": (events("\n <think>Thinking</think>Answer."), THOUGHT, "stop"),
    "think never closes": (events("<think>Thinking", " on"), Piece("", "Thinking on"), "stop"),
    "think is cut": (events("<think>Thinking</thi"), Piece("", "Thinking</thi"), "stop"),
    "think in code": (events("```\n<think>x</think>\n```"), Piece("```\n<think>x</think>\n```"),
                      "stop"),
    "think later": (events("See <think>"), Piece("See <think>"), "stop"),
    "nearly think": (events("<th", "ird>"), Piece("<third>"), "stop"),
    "only a beginning": (events("<thi"), Piece("<thi"), "stop"),
    "second think": (events("<think>Thinking</think>Answer.<think>"),
                     Piece("Answer.<think>", "Thinking"), "stop"),
    "surrogates": (events("a\ud83e", "\udd8ab"), Piece("a🦊b"), "stop"),
    "lone surrogate": (events("a\ud83e", "b\udd8a"), Piece("a\ufffdb\ufffd"), "stop"),
    "half at the end": (events("a\ud83e"), Piece("a\ufffd"), "stop"),
    "nul": (events("a\x00b"), Piece("a\ufffdb"), "stop"),
    "length": (events("Hello", end="length"), Piece("Hello"), "length"),
    "object": (whole({"content": "Hello"}), Piece("Hello"), None),
    "object with parts": (whole({"content": [{"type": "text", "text": "Hello"}]},
                                finish_reason="length"), Piece("Hello"), "length"),
    "object with reasoning": (whole({"content": "Answer.", "reasoning_content": "Thinking"}),
                              THOUGHT, None),
    "object after space": (b" \r\n" + whole({"content": "Hello"}), Piece("Hello"), None),
    "odd events": (b'data: {"choices": []}\n\ndata: {"choices": null}\n\ndata: {}\n\n'
                   b'data: {"choices": [null]}\n\ndata: {"choices": [{"delta": null}]}\n\n'
                   b'data: {"choices": [{"delta": {"content": 5}}]}\n\n' + events("Hello"),
                   Piece("Hello"), "stop"),
    "empty finish_reason": (
        b'data: {"choices": [{"delta": {"content": "Hel"}, "finish_reason": ""}]}\n\n'
        + events("lo"), Piece("Hello"), "stop"),
    "100,000 empty deltas": (events("") * 20 + events("Hello"), Piece("Hello"), "stop"),
}  # fmt: skip


def parse(body: bytes, size: int) -> tuple[Piece, CompletionParser]:
    """The whole answer, the body given in chunks of this size."""
    parser = CompletionParser(key="sk-secret-0123")
    pieces: list[Piece] = []
    for at in range(0, len(body), size):
        pieces += parser.feed(body[at : at + size])
    pieces += parser.end()
    text = "".join(piece.text for piece in pieces)
    return Piece(text, "".join(piece.reasoning for piece in pieces)), parser


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_every_form_of_an_answer_is_read(form: str, size: int) -> None:
    body, expected, finish_reason = FORMS[form]
    answer, parser = parse(body, size)
    assert answer == expected
    assert parser.is_complete
    assert parser.finish_reason == finish_reason


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'data: {"error": {"code": "overloaded", "message": "secret"}}\n\n',
            "error (overloaded).",
        ),
        (b'{"error": {"code": 503}}', "error (503)."),
        (b'{"error": {"code": "a b", "type": "x"}}', "error."),
        (b'{"error": {"code": "sk-secret-0123"}}', "error."),
        (b'data: {"error": "out of memory"}\n\n', "error."),
        (b'data: {"object": "error", "code": 400, "message": "m"}\n\n', "error (400)."),
    ],
)
def test_an_error_inside_an_answer_names_its_code_only(body: bytes, message: str) -> None:
    with pytest.raises(CompletionError) as raised:
        parse(body, 1000)
    assert str(raised.value).endswith(message)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Sign in</html>", b"data: ", b": comment\n\n", events("Hi", end=None, done=False)],
)
def test_a_body_that_breaks_off_is_not_complete(body: bytes) -> None:
    assert not parse(body, 1000)[1].is_complete


@pytest.mark.parametrize("body", [b'data: {"choices": [{"del\n\n', b"data: []\n\n", b'{"choices'])
def test_an_invalid_event_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse(body, 1000)
