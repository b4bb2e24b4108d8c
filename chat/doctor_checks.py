"""What ``rag_doctor`` looks at in the chat: whose key, whose memories."""

import secrets
from dataclasses import dataclass

import numpy as np
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction

from chat.memory.recall import can_recall, find_memories
from chat.memory.recalled import MODELS
from chat.models import Message, Passage, Role, StandaloneChat
from retrieval.db import execute
from retrieval.doctor.check_messages import stored_model
from retrieval.doctor.check_schema import has_tables_and_functions
from retrieval.doctor.queries import limits
from retrieval.doctor.report import Check, Finding, failed, passed, skipped, warning
from retrieval.message_tables import unpack_ref
from retrieval.recall.candidates import Scope, recall
from retrieval.vectors import Vector

LIVE_USERS = 20  # who are asked for the canaries too
LIVE = "SELECT user_id FROM message_memories GROUP BY user_id ORDER BY random() LIMIT %(users)s"
EMBED = "UPDATE {table} SET embedding = %(embedding)b WHERE id = %(id)s"


def keys_are_apart() -> Finding:
    """checklist.9, trap.10."""
    if settings.LLM != "openai" or settings.EMBEDDINGS != "openai":
        return passed("the language model and the embeddings are not both behind a key")
    if settings.OPENAI_API_KEY and settings.LLM_API_KEY == settings.OPENAI_API_KEY:
        return warning(
            "the language model has the key of the embeddings: taking OPENAI_API_KEY away would end the chat too",
            "LLM_API_KEY=another key",
        )
    return passed("taking OPENAI_API_KEY away leaves the language model what it has")


@dataclass
class Canary:
    """A user who is there for the check only, and what they have said: of both kinds, with one vector."""

    user_id: int
    word: str
    vector: Vector
    references: set[int]


def canaries_stay_apart() -> Finding:
    """``--isolation``: two users who say the same but for a word, recalled for each other and for live users.

    Written in one transaction that is rolled back; nobody else sees them. It holds no row that was there; some ids
    of the sequences are used up.
    """
    if not can_recall():
        return skipped("memory is off with these settings or in this database", "RAG_ENABLED=true")
    with limits(reading=False):
        first, second = _canary("heron"), _canary("heron")
        finding = _look(first, second)
        transaction.set_rollback(True)
    return finding


def _canary(animal: str) -> Canary:
    """A user with a chat and a passage, each with a message; embedded where a model is current."""
    word = "canary" + secrets.token_hex(8)
    user = get_user_model().objects.create(username=word, is_active=False)
    vector = np.random.default_rng(secrets.randbits(64)).standard_normal(1536).astype(np.float32)
    made = Canary(user.pk, word, vector, set())
    for conversation in (
        StandaloneChat.objects.create(user=user),
        Passage.objects.create(user=user, reference=word, text=word),
    ):
        said: Message = conversation.messages.create(
            user=user, role=Role.USER, content=f"The {animal} is called {word}."
        )
        made.references.add(said.memory_table.pack_ref(said.pk))
        if stored_model():
            execute(
                EMBED.replace("{table}", said.memory_table.table),
                {"embedding": vector, "id": said.pk},
            )
    return made


def _look(first: Canary, second: Canary) -> Finding:
    live = [
        user
        for (user,) in execute(LIVE, {"users": LIVE_USERS})
        if user not in (first.user_id, second.user_id)
    ]
    asked, missed = 0, False
    for canary in (first, second):
        for user_id in (first.user_id, second.user_id, *live):
            found = _recalled(user_id, canary)
            asked += 1
            if any(owner != user_id for owner in _owners(found)):
                return failed(
                    "recall for one user gave a message of another's: turn it off now", _mended()
                )
            if user_id == canary.user_id and not found >= canary.references:
                missed = True
    if missed:
        return warning(
            "a user's own message was not recalled, so nothing is proved about others'", _mended()
        )
    return passed(
        f"two canaries asked for by {len(live)} live users and each other, {asked} recalls: none strayed"
    )


def _recalled(user_id: int, canary: Canary) -> set[int]:
    """All that recall, by words and by meaning, gives this user for the canary's words; and what a turn shows."""
    question, scope = f"What is the heron {canary.word} called?", Scope(user_id)
    ranked = recall(question, scope, embedding=canary.vector, model=stored_model() or "")
    shown = find_memories(question, scope, canary.vector, limit=settings.RAG_CONTEXT_LIMIT).memories
    return {one.reference for one in ranked} | {memory.ref for memory in shown}


def _owners(references: set[int]) -> set[int]:
    """The users of messages by the message tables themselves, not by recall's copies."""
    found: set[int] = set()
    for number, model in MODELS.items():
        pks = [pk for one, pk in map(unpack_ref, references) if one == number]
        found.update(model._default_manager.filter(pk__in=pks).values_list("user_id", flat=True))
    return found


def _mended() -> str:
    """Functions that are not this version's are the likeliest cause; else recall is turned off."""
    return has_tables_and_functions().fix or "RAG_ENABLED=false"


def checks() -> list[Check]:
    """The chat's."""
    return [
        Check("checklist.9", keys_are_apart),
        Check("trap.10", keys_are_apart),
        Check("isolation.canaries", canaries_stay_apart, option="isolation", alone=True),
    ]
