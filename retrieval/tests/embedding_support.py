"""Shared by the tests of embeddings: settings for a fake service, and a clock set by tests."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from pytest_django import Settings

from fake_openai import FakeOpenAI
from fake_openai.vectors import vector_of
from retrieval.embeddings import embedding_service
from retrieval.vectors import DIMENSIONS, Vector

KEY = "sk-test-0123456789abcdefghij"


class Clock:
    """A clock in seconds that only a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def lead_to(fake: FakeOpenAI, settings: Settings) -> None:
    """Use the fake server for OpenAI's embeddings."""
    settings.EMBEDDINGS = "openai"
    settings.EMBEDDING_MODEL = "text-embedding-3-small"
    settings.EMBEDDING_TIMEOUT_S = 5.0
    settings.OPENAI_BASE_URL = fake.base_url
    settings.OPENAI_API_KEY = KEY


@contextmanager
def fresh(fake: FakeOpenAI) -> Iterator[FakeOpenAI]:
    """Reset the fake server and the embedding service, before and after."""
    fake.reset()
    embedding_service.reset()
    yield fake
    embedding_service.reset()
    fake.reset()


def expected(text: str) -> Vector:
    """The fake server's vector of the text."""
    return np.array(vector_of(text, DIMENSIONS), np.float32)


def texts_of_calls(fake: FakeOpenAI) -> list[list[str]]:
    """The texts of each embedding request so far."""
    return [request.texts for request in fake.embeddings.requests]
