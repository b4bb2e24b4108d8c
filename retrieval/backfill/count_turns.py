"""Counts what answers cost that a worker has embedded, towards the daily limits of their users."""

from collections import Counter
from collections.abc import Collection, Sequence

from retrieval import token_usage
from retrieval.backfill.pending import Row, Text
from retrieval.embeddings.batching import truncate
from retrieval.token_usage import Tokens


def count_answers(rows: Sequence[Row], bought: Collection[Text]) -> None:
    """Count the tokens of those rows that are answers and were bought. One statement a user.

    By our tokenizer: the service counts a call, not its texts.
    """
    answers = {row.text for row in rows if not row.by_user} & set(bought)
    tokens: Counter[int] = Counter()
    for user_id, content in answers:
        tokens[user_id] += truncate(content).tokens
    for user_id in sorted(tokens):
        token_usage.add(user_id, Tokens(embedding_tokens=tokens[user_id]))
