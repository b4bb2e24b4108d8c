"""The chat's checks of ``rag_doctor``: keys, answers, and recall that keeps users apart."""

import secrets
from dataclasses import dataclass

import numpy as np
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction

from chat.doctor_answers import answers_succeed, chat_works
from chat.doctor_retention import retention_runs
from chat.memory.recall import can_recall, find_memories
from chat.memory.recalled import MODELS
from chat.models import Passage, Role, StandaloneChat
from retrieval.doctor.check_schema import tables_and_functions_exist
from retrieval.doctor.database import limited_transaction, stored_model
from retrieval.doctor.fixes import SET_KEY
from retrieval.doctor.report import Check, Finding, failed, passed, skipped, warning
from retrieval.message_tables import unpack_ref
from retrieval.queries import rows
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import Question, rank_messages
from retrieval.vectors import Vector

MIN_SHOWN_KEY = 16  # characters; of a shorter key, four would be too large a part
LIVE_USERS = 20  # whose recall is tried, too
SAMPLE_USERS = "SELECT user_id FROM message_memories GROUP BY user_id ORDER BY random() LIMIT %s"
QUESTION = "What is the heron {word} called?"


def keys_are_set() -> Finding:
    """OPENAI_API_KEY if embeddings need it, and that the language model has another key."""
    if settings.EMBEDDINGS == "openai" and not settings.OPENAI_API_KEY:
        return warning("no OPENAI_API_KEY: nothing is embedded, and memory is off", SET_KEY)
    return keys_are_separate()


def keys_are_separate() -> Finding:
    """The keys of embeddings and language model, by their last characters; WARN if it is one."""
    embeddings = settings.OPENAI_API_KEY if settings.EMBEDDINGS == "openai" else ""
    model = settings.LLM_API_KEY if settings.LLM == "openai" else ""
    keys = f"embeddings: {_masked(embeddings)}, language model: {_masked(model)}"
    if embeddings and model == embeddings:
        return warning(
            f"{keys}: one key for both, and removing OPENAI_API_KEY would stop the chat too",
            "LLM_API_KEY=another key",
        )
    return passed(f"{keys}; they share none")


def _masked(key: str) -> str:
    """Enough to tell two keys apart, and too little to use: docs/security.md."""
    if not key:
        return "no key"
    return f"key ...{key[-4:]}" if len(key) >= MIN_SHOWN_KEY else "a key too short to show"


@dataclass
class Canary:
    """A user who exists only during the check, with a message of each kind and one vector."""

    user_id: int
    word: str
    vector: Vector
    refs: set[int]


def recall_keeps_users_apart() -> Finding:
    """Recall for two new users with almost equal messages, and for live users.

    Everything is written in one transaction that is rolled back, so no other session sees it. It
    locks no existing row, and uses up some ids of the sequences.
    """
    if not can_recall():
        return skipped("memory is off with these settings or in this database", "RAG_ENABLED=true")
    with limited_transaction(read_only=False):
        finding = _try_recall([_create_canary(), _create_canary()])
        transaction.set_rollback(True)
    return finding


def _create_canary() -> Canary:
    """A user with a chat and a passage, each with a message; embedded if a model is current."""
    word = "canary" + secrets.token_hex(8)
    user = get_user_model().objects.create(username=word, is_active=False)
    vector = np.random.default_rng(secrets.randbits(64)).standard_normal(1536).astype(np.float32)
    refs = set()
    for conversation in (
        StandaloneChat.objects.create(user=user),
        Passage.objects.create(user=user, reference=word, text=word),
    ):
        message = conversation.messages.create(
            user=user, role=Role.USER, content=f"The heron is called {word}."
        )
        refs.add(message.memory_table.pack_ref(message.pk))
        if stored_model():
            conversation.messages.filter(pk=message.pk).update(embedding=vector)
    return Canary(user.pk, word, vector, refs)


def _try_recall(canaries: list[Canary]) -> Finding:
    new_users = [canary.user_id for canary in canaries]
    live_users = [user for (user,) in rows(SAMPLE_USERS, [LIVE_USERS]) if user not in new_users]
    own_missing = False
    for canary in canaries:
        for user_id in (*new_users, *live_users):
            refs = _recalled(user_id, canary)
            if _owners(refs) - {user_id}:
                return failed(
                    "recall for one user returned a message of another: turn it off now", _fix()
                )
            if user_id == canary.user_id and not refs >= canary.refs:
                own_missing = True
    if own_missing:
        return warning(
            "a user's own message was not recalled, so nothing is proved about others'", _fix()
        )
    total = len(canaries) * (len(new_users) + len(live_users))
    return passed(
        f"two new users' messages, recalled for each other and for {len(live_users)} live users "
        f"({total} recalls): no user got another's message"
    )


def _recalled(user_id: int, canary: Canary) -> set[int]:
    """The refs that recall ranks for this user by words and by meaning, and those a turn shows."""
    question, scope = QUESTION.format(word=canary.word), Scope(user_id)
    ranked = rank_messages(Question(question, scope, canary.vector, stored_model() or ""))
    # Read-only for live users: to propagate their edits would lock rows until the rollback.
    limit, read_only = settings.RAG_CONTEXT_LIMIT, user_id != canary.user_id
    shown = find_memories(question, scope, canary.vector, limit=limit, read_only=read_only).memories
    return {*ranked.refs.tolist(), *(memory.ref for memory in shown)}


def _owners(refs: set[int]) -> set[int]:
    """The users of messages by the message tables themselves, not by recall's copies."""
    owners: set[int] = set()
    for kind_bit, model in MODELS.items():
        pks = [pk for bit, pk in map(unpack_ref, refs) if bit == kind_bit]
        owners.update(model._default_manager.filter(pk__in=pks).values_list("user_id", flat=True))
    return owners


def _fix() -> str:
    """Functions that are not this version's are the likeliest cause; else turn recall off."""
    return tables_and_functions_exist().fix or "RAG_ENABLED=false"


def checks() -> list[Check]:
    return [
        Check("criterion.4", chat_works),
        Check("checklist.3", keys_are_set),
        Check("checklist.6", answers_succeed),
        Check("trap.10", keys_are_separate),
        Check("retention.runs", retention_runs),
        Check(
            "isolation.canaries", recall_keeps_users_apart, option="isolation", in_transaction=False
        ),
    ]
