"""Ways to find messages for a question, each as a list of refs, best first."""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection

from benchmarks.memory_sets import Person
from chat.memory.recall import search
from retrieval.embeddings import get_embeddings_batch
from retrieval.recall.candidates import Scope
from retrieval.recall.content_words import plain

LIMIT = 25
RANK_OFFSET = 10  # of reciprocal rank fusion; 60, which is usual, finds less here
K1, B = 1.2, 0.75  # BM25's usual constants
UNSPACED = re.compile("[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af]+")
# Locks nothing.
LEXEMES = """
    SELECT lexeme, cardinality(positions) FROM unnest(to_tsvector('english', %(text)s))
"""
FindRefs = Callable[[str], list[str]]  # a question → refs, best first


@dataclass
class SearchablePerson:
    """A person whose messages can be searched in every way."""

    person: Person
    user: User
    vectors: np.ndarray

    def __post_init__(self) -> None:
        self.refs = [message.ref for message in self.person.messages]
        self._asked_at = {question.text: question.asked_at for question in self.person.questions}
        self._words = [words_of(message.content) for message in self.person.messages]
        self._frequency = Counter(word for words in self._words for word in words)
        self._mean_length = sum(map(Counter.total, self._words)) / len(self._words)

    def verse_recall(self, question: str) -> list[str]:
        """Verse's recall, as ``GET /api/memory/search/`` uses it, with the settings in force."""
        scope = Scope(self.user.pk, asked_at=self._asked_at[question])
        memories = search(question, scope, limit=LIMIT).memories
        return self._refs([(memory.message.content, memory) for memory in memories])

    def words_alone(self, question: str) -> list[str]:
        """Verse's recall without embeddings."""
        before, settings.EMBEDDINGS = settings.EMBEDDINGS, "none"
        try:
            return self.verse_recall(question)
        finally:
            settings.EMBEDDINGS = before

    def bm25(self, question: str) -> list[str]:
        """Okapi BM25, with stems and stop words of English, and pairs of unspaced characters."""
        wanted, total = words_of(question), len(self.refs)
        scores = np.zeros(total)
        for place, words in enumerate(self._words):
            norm = K1 * (1 - B + B * words.total() / self._mean_length)
            for word in wanted.keys() & words.keys():
                others = total - self._frequency[word] + 0.5
                idf = math.log(1 + others / (self._frequency[word] + 0.5))
                scores[place] += idf * words[word] * (K1 + 1) / (words[word] + norm)
        order = np.argsort(-scores, kind="stable")
        return [self.refs[place] for place in order if scores[place] > 0]

    def dense(self, question: str) -> list[str]:
        """All messages, ordered by the cosine of their vector and the question's."""
        order = np.argsort(-(self.vectors @ get_embeddings_batch([question])[0]), kind="stable")
        return [self.refs[place] for place in order]

    def fusion(self, question: str) -> list[str]:
        """Reciprocal rank fusion of BM25 and the cosine."""
        scores: Counter[str] = Counter()
        for refs in (self.bm25(question), self.dense(question)):
            for rank, ref in enumerate(refs, 1):
                scores[ref] += 1 / (RANK_OFFSET + rank)  # type: ignore[assignment]
        return [ref for ref, _ in scores.most_common()]

    def _refs(self, results: list[tuple[str, object]]) -> list[str]:
        """The refs of the messages with these contents. Equal contents get their refs in order."""
        by_content: dict[str, list[str]] = {}
        for message in self.person.messages:
            by_content.setdefault(message.content, []).append(message.ref)
        return [by_content[content].pop(0) for content, _ in results]

    def ways(self) -> dict[str, FindRefs]:
        return {
            "Verse": self.verse_recall,
            "Verse, words alone": self.words_alone,
            "rank fusion": self.fusion,
            "BM25": self.bm25,
            "cosine": self.dense,
        }


def words_of(text: str) -> Counter[str]:
    """How often the text has each stem, and each pair of characters of a script without spaces."""
    text = plain(text)
    pairs = [run[at : at + 2] for run in UNSPACED.findall(text) for at in range(len(run))]
    with connection.cursor() as cursor:
        cursor.execute(LEXEMES, {"text": UNSPACED.sub(" ", text)})
        return Counter(dict(cursor.fetchall())) + Counter(pairs)
