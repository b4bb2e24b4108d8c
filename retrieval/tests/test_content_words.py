"""The words of a question that carry content, by the language of its function words."""

import pytest

from embedded_postgres.programs import bin_folder
from retrieval.recall.content_words import (
    WORD,
    content_words,
    function_words,
    guess_language,
    plain,
)

CONTENT = {
    "Can you remind me what the name of my dentist was?": "name dentist",
    "Wie hoch war nochmal die Miete für unsere neue Wohnung?": "hoch Miete neue Wohnung",
    "¿Cuánto pagábamos de alquiler por el piso de Lugo?": "pagábamos alquiler piso Lugo",
    "Rappelle-moi le prix du gilet que j'ai acheté pour ma sœur": "prix gilet acheté sœur",
    "Quanto costa l'affitto della nostra casa?": "costa affitto casa",
    "我们家的房贷利率是多少？": "家 房贷利率",
    "会議はいつですか": "会議はいつですか",  # Japanese: the characters are not function words
    "Was war im März mit Oma?": "März Oma march",
    "八月去哪里了？": "八月去 august",
    "What about it?": "",
    "dental insurance": "dental insurance",
    "dog": "dog",  # in Danish it means "yet"
    "son": "son",  # in Spanish "are", in French "his"
    "🦊 🦊": "",
    "שלום עולם": "שלום עולם",
    "SELECT count(*) FROM t;": "SELECT count",
}


@pytest.mark.parametrize("question", CONTENT)
def test_function_words_of_a_questions_own_language_are_left_out(question: str) -> None:
    assert WORD.findall(content_words(question)) == CONTENT[question].split()


@pytest.mark.parametrize(
    ("language", "text"),
    {
        "english": "When is the appointment with the dentist?",
        "german": "Wann ist der Termin bei dem Zahnarzt?",
        "spanish": "¿Cuándo es la cita con el dentista?",
        "french": "C'est quand, le rendez-vous chez le dentiste ?",
        "dutch": "Wanneer is de afspraak met de tandarts?",
        "russian": "Когда у меня приём у врача?",
        "": "Zahnarzt dentist dentiste 牙医",
    }.items(),
)
def test_the_language_is_that_of_the_function_words(language: str, text: str) -> None:
    assert guess_language(text) == language


@pytest.mark.parametrize(
    "text", ["", " ", "x" * 32_000, "的" * 32_000, "a b " * 8_000, "\x00", "\ud800"]
)
def test_any_text_is_accepted(text: str) -> None:
    assert content_words(text).count("\n") == text.count("\n")


def test_the_function_words_are_postgresqls_stop_words() -> None:
    folder = bin_folder(16).parent / "share/postgresql/tsearch_data"
    for name, words in function_words().items():
        assert words == {plain(word) for word in (folder / f"{name}.stop").read_text().split()}
    assert len(function_words()) == 14
