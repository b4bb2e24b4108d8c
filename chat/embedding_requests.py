"""What an operator asks to be embedded: it begins in the background, and the request returns."""

from collections.abc import Sequence

from django.contrib.auth.models import User

from chat.memory import embed_chosen
from chat.models import Message
from retrieval import audit, db
from retrieval.embeddings.errors import EmbeddingError


class CannotEmbed(Exception):
    """Why nothing can be embedded, for the operator."""


def request_embedding(model: type[Message], ids: Sequence[int], *, retry: bool, by: User) -> None:
    """Embed those of the messages that are pending; ``retry``: those that failed before, too.

    A line in the audit log. Raises CannotEmbed, and then does nothing.
    """
    try:
        embed_chosen.check_model()
    except EmbeddingError as error:
        raise CannotEmbed(str(error)) from error
    except db.NoMemory as error:
        raise CannotEmbed("the database has no memory yet: run manage.py migrate") from error
    act = "retry failed" if retry else "embed now"
    audit.record(by, f"{act}: {len(ids)} {model._meta.verbose_name_plural}")
    embed_chosen.start(model.memory_table, ids, retry=retry)
