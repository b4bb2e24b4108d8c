"""Which messages this process embeds: no other buys them at the same time.

A claim is a row of ``embedding_claims`` that ends by itself 30 s after its process was killed. A
thread renews it meanwhile, so a process that waits for the service keeps what it has claimed. A row
that the process could not delete, because the database was away, is not renewed.
"""

import secrets
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta

from django.db import Error, connection
from django.db.models.functions import Now

from retrieval import db
from retrieval.later_table import LaterTable
from retrieval.queue_models import EmbeddingClaim

CLAIM_S = 30.0  # docs/promises.md: a dead worker's messages are embedded within 60 s
RENEW_S = 10.0
PURGE_AFTER_S = 3600.0  # claims of processes that were killed
# Of the command that holds BACKFILL_LOCK, so there is one at a time: it takes over at once what a
# killed one has claimed.
BACKFILL_HOLDER = 0
# In the order of ids: two processes cannot deadlock. Locks: the rows that it inserts or changes.
# No commit of a claim waits for the disk: a crash of the database server makes claims worthless.
TAKE = """
    INSERT INTO embedding_claims AS c (id, holder, until)
    SELECT id, %(holder)s, now() + %(claim)s FROM unnest(%(refs)s::bigint[]) id
    WHERE set_config('synchronous_commit', 'off', true) IS NOT NULL ORDER BY id
    ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until
        WHERE c.until <= now()
    RETURNING c.id
"""
RELEASE = """
    DELETE FROM embedding_claims WHERE id = ANY (%(refs)s::bigint[]) AND holder = %(holder)s
        AND set_config('synchronous_commit', 'off', true) IS NOT NULL
"""
_table = LaterTable(EmbeddingClaim._meta.db_table)


class Claims:
    """The claims of one process, or of its ``holder``. A context manager: leaving it ends them.

    On a schema before chat 0019_embed_queue every message counts as claimed.
    """

    def __init__(self, holder: int | None = None) -> None:
        self._holder = secrets.randbits(63) if holder is None else holder
        self._held: set[int] = set()  # refs
        self._left = threading.Event()
        self._lock = threading.Lock()  # renewing and releasing at once could deadlock
        self._thread = threading.Thread(target=self._renew_until_left, name="claims", daemon=True)

    def __enter__(self) -> "Claims":
        self.release_all()
        purge()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()
        with suppress(Error):
            self.release_all()

    def take(self, refs: Collection[int]) -> set[int]:
        """Claim those of the messages that no process has claimed. One statement, or two.

        What the caller read of them before is old: another process may have embedded them since.
        """
        if not refs or not _table.may_write():
            return set(refs)
        claim = timedelta(seconds=CLAIM_S)
        params = {"refs": list(refs), "holder": self._holder, "claim": claim}
        taken = {ref for (ref,) in db.execute(TAKE, params)}
        with self._lock:
            self._held |= taken
        return taken

    def release(self, refs: Sequence[int]) -> None:
        """End the claims on these messages; after their vectors are committed. One statement."""
        if refs and _table.may_write():
            with self._lock:
                self._held -= set(refs)
                db.execute(RELEASE, {"refs": list(refs), "holder": self._holder})

    def release_all(self) -> None:
        """End all claims of this process. One statement."""
        if _table.may_write():
            with self._lock:
                self._held.clear()
                EmbeddingClaim.objects.filter(holder=self._holder).delete()

    def _renew_until_left(self) -> None:
        while not self._left.wait(RENEW_S):
            with suppress(Error):
                self.renew()
            connection.close()

    def renew(self) -> None:
        """Keep the claims for another CLAIM_S. One statement, or two; none without a claim."""
        with self._lock:
            if self._held and _table.may_write():
                until = Now() + timedelta(seconds=CLAIM_S)
                claims = EmbeddingClaim.objects.filter(holder=self._holder)
                claims.filter(id__in=self._held).update(until=until)


def purge() -> None:
    """Delete what killed processes have left. One statement, on a table of some hundred rows."""
    if _table.may_write():
        ended = Now() - timedelta(seconds=PURGE_AFTER_S)
        EmbeddingClaim.objects.filter(until__lt=ended).delete()


def has_table() -> bool:
    """Whether messages can be claimed: not before chat 0019_embed_queue."""
    return _table.may_write()
