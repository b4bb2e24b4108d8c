"""The traps of circulating guides: which of them a database or a setting can be in, and where each is looked at.

=====  ==================================================  ==========================================
trap   looked at                                           where
=====  ==================================================  ==========================================
1      sizes of the newest vectors                         messages.vectors_have_their_size
2      shares of both tables, empty ones too               messages.shares_are_told
3      the view's columns, by asking it                    indexes.are_told_by_their_names
4      a vector sent and read back                         recall.vectors_are_sent_as_bytes
5      recall and time, measured                           recall.Measurement
6      shared_preload_libraries, before a restart too      extension.is_not_preloaded
7      whether it is made, and who could                   extension.may_be_made
8      SHARE locks on our tables now                       indexes.none_is_built_the_hard_way
9      sequences behind the ids                            messages.sequences_are_ahead
10     equal keys                                          chat.doctor_checks
11     ACCESS EXCLUSIVE held or waited for now             indexes.nobody_waits_behind_a_change
12     columns that are gone though their migration stays  here, columns_are_there
13     columns' types by format_type                       schema.has_columns
14     both tables and both indexes                        here, both_are_seen
15     the estimate                                        messages.backfill_has_its_price
16     nothing: a file, a process of yours                 SKIP
17     applied migrations that this version does not know  wayback
18     ACCESS EXCLUSIVE on an index now                    indexes.none_is_dropped_the_hard_way
19     migrations not applied                              wayback.all_applied
20     nothing: another's page                             SKIP
21     azure.extensions, where there is such a setting     extension.is_listed_by_azure
22     nothing: advice                                     SKIP
23     which of the three states this is                   extension.speaks_its_words
24     nothing: how a job is begun                         SKIP
25     name and version                                    extension.name_and_version
26     times used, beside what is measured                 indexes.times_used
=====  ==================================================  ==========================================

checklist.10, the backup, is SKIP for the same reason as trap.16. A SKIP has the right form in ``detail``.
"""

from collections.abc import Callable

from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from retrieval.doctor.check_indexes import are_valid
from retrieval.doctor.check_rollback import labels
from retrieval.doctor.check_schema import COLUMN, has_columns
from retrieval.doctor.criteria import CHECKLIST, TRAPS
from retrieval.doctor.expected import vector_indexes
from retrieval.doctor.queries import rows
from retrieval.doctor.report import Check, Finding, Status, failed, passed, skipped
from retrieval.models import message_tables

BY_HAND = {
    "checklist.10": "pg_dump -Fc --file=verse.dump service=verse\ncreatedb verse_restored\n"
    "pg_restore --no-owner --dbname=verse_restored verse.dump",
    "trap.16": "PGPASSFILE=~/.pgpass pg_dump -Fc --file=verse.dump service=verse",
    "trap.20": "",
    "trap.22": "",
    "trap.24": "kubectl apply -f deploy/kubernetes/jobs/backfill.yaml",
}


def columns_are_there() -> Finding:
    """trap.12."""
    gone = [one.table for one in message_tables() if not rows(COLUMN, [one.table])]
    applied = [
        key for key in MigrationRecorder(connection).applied_migrations() if key[0] in labels()
    ]
    if gone and len(applied) > len(labels()):
        label = min(labels())
        return failed(
            f"dropped, though their migration is applied: embedding of {', '.join(gone)}. Messages are kept; they "
            "are embedded anew",
            f"python manage.py migrate {label} 0001_initial\npython manage.py migrate\n"
            "python manage.py backfill_embeddings",
        )
    there = [f"{one.table}.embedding" for one in message_tables() if one.table not in gone]
    return passed(f"it would drop {', '.join(there)}: migrate back first, then drop it without CASCADE" if there else
                  "no column depends on the extension")  # fmt: skip


def both_are_seen() -> Finding:
    """trap.14."""
    for found in (has_columns(), are_valid()):
        if found.status is not Status.PASS:
            return found
    tables, indexes = (
        ", ".join(one.table for one in message_tables()),
        ", ".join(one.name for _, one in vector_indexes()),
    )
    return passed(f"looked at {tables}; {indexes}")


def _by_hand(name: str) -> Callable[[], Finding]:
    words = (CHECKLIST | TRAPS)[name]
    return lambda: skipped(f"by hand: {words}", BY_HAND[name])


CHECKS = [
    Check("trap.12", columns_are_there),
    Check("trap.14", both_are_seen),
    *(Check(name, _by_hand(name)) for name in BY_HAND),
]
