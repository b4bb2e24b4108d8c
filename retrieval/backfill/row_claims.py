"""The pending rows of one table that this process has claimed."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from django.db import Error

from retrieval.backfill import pending
from retrieval.backfill.claims import Claims
from retrieval.backfill.pending import Row
from retrieval.db import NoMemory
from retrieval.message_tables import MessageTable, unpack_ref


@dataclass(frozen=True)
class RowClaims:
    """Claims rows of the table by their packed refs."""

    table: MessageTable
    claims: Claims

    def claim(self, refs: Iterable[int]) -> list[Row]:
        """Those of the messages that no other process embeds, nor has embedded meanwhile.

        They are read after they are claimed. Three statements at most.
        """
        claimed = self.claims.take(list(refs))
        if not claimed:
            return []
        try:
            rows = pending.pending_among(self.table, [pk for _, pk in map(unpack_ref, claimed)])
        except Error:
            with suppress(Error, NoMemory):
                self.claims.release(list(claimed))
            raise
        self.claims.release(list(claimed - set(self._refs(rows))))
        return rows

    def release(self, rows: Sequence[Row], *, but: Sequence[Row] = ()) -> None:
        """End the claims on the rows, ``but`` those excepted. One statement at most."""
        self.claims.release(list(set(self._refs(rows)) - set(self._refs(but))))

    def _refs(self, rows: Sequence[Row]) -> list[int]:
        return [self.table.pack_ref(row.pk) for row in rows]
