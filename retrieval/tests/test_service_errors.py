"""Refusals of services: what is shown of them, and what they say about the request."""

import pytest

from retrieval.service_errors import parse_service_error

KEY = "sk-abcdefgh-0123456789"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"code": "invalid_api_key"}}', "status 400 (invalid_api_key)"),
        (b'{"error": {"code": "DeploymentNotFound"}}', "status 400 (DeploymentNotFound)"),
        (b'{"error": {"code": 400}}', "status 400 (400)"),
        (b'[{"error": {"code": 400, "status": "INVALID_ARGUMENT"}}]', "status 400 (400)"),
        (b'{"object": "error", "code": 40001}', "status 400 (40001)"),
        (b'{"error": {"code": null}}', "status 400"),
        (b'{"error": {"code": "two words"}}', "status 400"),
        (b'{"error": {"code": "%s"}}' % (b"x" * 61), "status 400"),
        (b'{"error": {"code": "sk-abcdefgh-0123456789"}}', "status 400"),
        (b'{"error": {"code": "bad_sk-abcdefgh"}}', "status 400"),
        (b'{"error": {"code": ["a"]}}', "status 400"),
        (b'{"error": "no"}', "status 400"),
        (b'{"error": null}', "status 400"),
        (b"[]", "status 400"),
        (b"<html>", "status 400"),
        (b"[" * 100_000, "status 400"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_code_is_shown_only_where_it_cannot_hold_a_secret(body: bytes, reason: str) -> None:
    assert parse_service_error(400, body, key=KEY).reason == reason


@pytest.mark.parametrize(
    ("status", "message", "is_too_long"),
    [
        (400, "This model's maximum context length is 8192 tokens.", True),
        (400, "'max_tokens' is too large: 1024. This model's maximum context length is 8192", True),
        (400, "the request exceeds the available context size. try increasing it", True),
        (400, "the model is loaded with context length of only 4096 tokens", True),
        (400, "prompt is too long: 9000 tokens > 8192 maximum", True),
        (400, "The input token count (9000) exceeds the maximum number of tokens allowed", True),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 2048", True),
        (413, "Request too large for model", True),
        (400, "context_length_exceeded", True),
        (500, "This model's maximum context length is 8192 tokens.", False),
        (429, "Request too large for model: limit 6000 tokens per minute", False),
        (400, "max_tokens is too large: 9000. This model supports at most 4096", False),
        (400, "System role not supported", False),
        (400, "Unsupported parameter: 'max_tokens'", False),
    ],
)  # fmt: skip
def test_a_refusal_as_too_long_is_understood(status: int, message: str, is_too_long: bool) -> None:
    assert parse_service_error(status, message.encode(), key="").is_too_long is is_too_long


def test_a_parameter_is_named_as_a_whole_word() -> None:
    error = parse_service_error(400, b"Use 'max_completion_tokens', no System role", key="")
    assert not error.names("max_tokens")
    assert error.names("system")
    assert not parse_service_error(500, b"system", key="").names("system")
