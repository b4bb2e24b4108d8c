"""rag_doctor's database.rights: does the servers' role have every right that memory needs?"""

from collections.abc import Iterator

import numpy as np
import pytest
from django.db import connection
from pytest_django import Settings

from retrieval.doctor.report import Status
from retrieval.recall import min_similarity
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import Question, rank_messages
from retrieval.tests.doctor_support import MODEL, FaultyDatabase, assert_fix_works

pytestmark = [pytest.mark.newest_schema]  # roles are the whole server's
ROLE = "doctor_server"
FUNCTION = "FUNCTION message_terms(bigint, text, timestamptz)"
# What the statement takes away, and what the printed fix must name.
REVOKED = {
    f"SELECT ON message_memories FROM {ROLE}": "message_memories",
    f"SELECT ON search_configs FROM {ROLE}": "search_configs",
    f"UPDATE (min_similarity) ON embedding_models FROM {ROLE}": "min_similarity",
    f"UPDATE (measured_at) ON embedding_models FROM {ROLE}": "measured_at",
    f"INSERT ON forgotten_messages FROM {ROLE}": "forgotten_messages",
    f"UPDATE ON chat_messages FROM {ROLE}": "chat_messages",
    f"EXECUTE ON {FUNCTION} FROM {ROLE}, PUBLIC": "message_terms",
    f"USAGE ON SCHEMA public FROM {ROLE}, PUBLIC": "public",
    f"USAGE ON SCHEMA apart FROM {ROLE}": "apart",
}


@pytest.fixture
def role(faulty: FaultyDatabase, settings: Settings) -> Iterator[str]:
    """The role of DATABASE_URL, without any right; the extension is in a schema of its own."""
    faulty.run(f"DROP ROLE IF EXISTS {ROLE}")
    faulty.run(f"CREATE ROLE {ROLE}; CREATE SCHEMA apart; ALTER EXTENSION vector SET SCHEMA apart")
    settings.SERVER_DATABASE = settings.SERVER_DATABASE | {"USER": ROLE}
    yield ROLE
    connection.close()
    faulty.run(f"GRANT USAGE ON SCHEMA public TO PUBLIC; GRANT EXECUTE ON {FUNCTION} TO PUBLIC")
    faulty.run(f"ALTER EXTENSION vector SET SCHEMA public; DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")
    faulty.run("DROP SCHEMA apart")


def test_a_role_with_the_printed_grants_can_recall(
    role: str, faulty: FaultyDatabase, settings: Settings
) -> None:
    finding = assert_fix_works(faulty, "database.rights", "FAIL", settings)
    assert "GRANT USAGE ON SCHEMA" in finding.fix
    ((user_id,),) = faulty.run("SELECT min(user_id) FROM message_memories")
    faulty.run(f"SET ROLE {role}")
    assert faulty.run("SELECT count(*) FROM message_memories WHERE bits IS NULL") == [(0,)]
    embedding = np.ones(1536, np.float32)
    assert len(rank_messages(Question("Which dog?", Scope(user_id), embedding, MODEL)))
    min_similarity.measure(seconds=0)


@pytest.mark.parametrize("revoked", REVOKED)
def test_each_missing_right_fails_and_is_named(
    revoked: str, role: str, faulty: FaultyDatabase, settings: Settings
) -> None:
    faulty.apply_fix(faulty.check("database.rights"), settings)
    assert faulty.check("database.rights").status is Status.PASS
    faulty.run(f"REVOKE {revoked}")
    finding = assert_fix_works(faulty, "database.rights", "FAIL", settings)
    assert REVOKED[revoked] in finding.fix
