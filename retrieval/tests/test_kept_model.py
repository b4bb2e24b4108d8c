"""A database keeps the bundled model that filled it, until ``rag_model use``."""

from io import StringIO

import pytest
from django.core.management import call_command
from pytest_django import Settings

from retrieval import current_model, runtime
from retrieval.doctor.check_vectors import stored_model_is_configured
from retrieval.doctor.report import Status
from retrieval.embeddings import embedding_service
from retrieval.embeddings.bundled_models import DEFAULT, E5, MINILM

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]


@pytest.fixture(autouse=True)
def local(settings: Settings) -> None:
    """The settings leave the model to the database."""
    settings.EMBEDDINGS, settings.EMBEDDING_MODEL = "local", "text-embedding-3-small"


def rag_model(*arguments: str) -> str:
    out = StringIO()
    call_command("rag_model", *arguments, stdout=out)
    return out.getvalue()


def test_an_empty_database_gets_the_newest_bundled_model() -> None:
    assert embedding_service.model_name() == DEFAULT


@pytest.mark.soak
def test_a_database_keeps_the_earlier_bundled_model_until_use() -> None:
    current_model.check_model(MINILM)
    assert embedding_service.model_name() == embedding_service.configured_name() == MINILM
    vector = embedding_service.get_embedding("My dog is called Biscuit.")
    assert not vector[384:].any()
    assert f"The bundled model is now {DEFAULT}." in rag_model()
    finding = stored_model_is_configured()
    assert (finding.status, f"rag_model use changes to {DEFAULT}" in finding.detail) == (
        Status.PASS,
        True,
    )
    assert f"From {MINILM} to {DEFAULT}" in rag_model("use", "--yes")
    assert embedding_service.model_name() == DEFAULT
    current_model.check_model(DEFAULT)


def test_the_setting_goes_before_the_stored_model(settings: Settings) -> None:
    current_model.check_model(MINILM)
    settings.EMBEDDING_MODEL = "multilingual-e5-small"
    assert embedding_service.model_name() == E5
    with pytest.raises(current_model.ModelMismatch, match="EMBEDDING_MODEL=all-MiniLM-L6-v2"):
        current_model.check_model(E5)
    assert stored_model_is_configured().status is Status.FAIL


def test_another_process_follows_a_switch_without_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    current_model.check_model(MINILM)
    assert embedding_service.model_name() == MINILM
    current_model.switch(DEFAULT)
    runtime.reset()
    with pytest.raises(current_model.ModelMismatch):
        current_model.check_model(MINILM)  # read before the switch
    assert embedding_service.model_name() == DEFAULT
    assert caplog.records == []


def test_a_database_of_another_service_gets_the_default() -> None:
    current_model.check_model("text-embedding-3-small")
    assert embedding_service.model_name() == DEFAULT
