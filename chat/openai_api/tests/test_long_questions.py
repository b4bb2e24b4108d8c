"""A user's long questions to /v1 are saved one after the other, as those to the API are."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from chat.answers import long_messages
from chat.answers.long_messages import LONG_CHARS
from chat.openai_api.tests.support import Bearer, texts, user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
SHORT = ["One", "Two", "Three"]


def test_a_pause_follows_a_long_question(bearer: Bearer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_messages, "PAUSE_S", 5.0 / LONG_CHARS)
    first, second = ("x" * (LONG_CHARS + n) for n in (1, 2))

    def ask_second() -> int:
        try:
            return bearer.ask(user(second)).status
        finally:
            connection.close()

    bearer.ask(user(first))
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(ask_second)
        for text in SHORT:
            bearer.ask(user(text))
        assert reply.result() == 200
    assert [text for text in texts() if not text.startswith("You said")] == [first, *SHORT, second]
