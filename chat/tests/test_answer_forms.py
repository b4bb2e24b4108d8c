"""Answers in any form of the protocol: endings, reasoning, answers without a word, cut ones."""

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.model_server_support import post, prompts, stream
from fake_openai import (
    Answer,
    FakeOpenAI,
    Raw,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("unlimited"),
]


@pytest.mark.parametrize(
    "ending", ["data:[DONE]\n\n", 'data: {"choices":[{"finish_reason":"stop"}]}\n\n']
)
def test_an_answer_ends_while_the_connection_stays_open(
    ending: str, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    text = 'data: {"choices":[{"delta":{"content":"Hello."}}]}\n\n'
    fake_openai.chat.default = Raw((text + ending).encode(), keep_open=True)
    response = post(client, chat)
    assert response.status_code == 201
    assert response.data["assistant_message"]["content"] == "Hello."


def test_reasoning_is_shown_and_never_stored_or_sent_back(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Answer("<think>\nA greeting.\n</think>\n\nGood day."))
    events = stream(client, chat)
    reasoning = "".join(data["text"] for name, data in events if name == "reasoning")
    assert reasoning == "\nA greeting.\n"
    names = [name for name, _ in events]
    assert names == sorted(names, key=["context", "reasoning", "delta", "done"].index)
    answer = StandaloneChatMessage.objects.get(role="assistant")
    assert (answer.content, answer.status) == ("Good day.", "complete")
    post(client, chat)
    assert "greeting" not in str(prompts(fake_openai)[-1])


def test_reasoning_counts_against_silence(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_TIMEOUT_S = 2
    fake_openai.chat.default = Answer("<think>" + "hm " * 45 + "</think> Yes.", tokens_per_s=15)
    assert post(client, chat).data["assistant_message"]["content"] == "Yes."


@pytest.mark.parametrize("text", ["<think>It never", "<think>It</think>", " \n"])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_an_answer_without_a_word_is_failed_and_its_key_tries_again(
    text: str, reason: str, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Answer(text, finish_reason=reason))
    failed = post(client, chat, headers={"Idempotency-Key": "k"})
    assert (failed.status_code, failed.data["code"]) == (502, "llm_error")
    assert StandaloneChatMessage.objects.get(role="assistant").status == "failed"
    assert post(client, chat, headers={"Idempotency-Key": "k"}).status_code == 201


@pytest.mark.parametrize("reason", ["length", "content_filter", "stop"])
def test_a_cut_answer_is_complete_and_carries_the_reason(
    reason: str, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    expected = None if reason == "stop" else reason
    fake_openai.chat.script(*[Answer("So far", finish_reason=reason)] * 2)
    response = post(client, chat)
    assert response.status_code == 201
    answer = response.json()["assistant_message"]
    assert (answer["status"], answer.get("finish_reason")) == ("complete", expected)
    address = f"/api/chats/{chat.pk}/messages/{answer['id']}/"
    assert client.get(address).json() == answer
    assert "finish_reason" not in response.json()["user_message"]
    done = stream(client, chat)[-1][1]["assistant_message"]
    assert done.get("finish_reason") == expected
    again = client.post(f"/api/chats/{chat.pk}/messages/{done['id']}/regenerate/")
    assert "finish_reason" not in again.json()["assistant_message"]
