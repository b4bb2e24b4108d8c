"""Indexes: both HNSW ones, recall's own, what a killed build has left, and who builds or drops one the hard way."""

import re

from django.db import connection

from retrieval.doctor.expected import shared, vector_indexes
from retrieval.doctor.queries import rows
from retrieval.doctor.report import Check, Finding, failed, passed, warning
from retrieval.models import message_tables
from retrieval.schema import extension, indexes

# REINDEX CONCURRENTLY that is killed leaves x_ccnew or x_ccold; CREATE INDEX CONCURRENTLY an invalid x.
INVALID = """
    SELECT c.relname, t.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
    WHERE i.indrelid = ANY (SELECT pg_catalog.to_regclass(one) FROM pg_catalog.unnest(%s::text[]) one)
        AND (NOT i.indisvalid OR NOT i.indisready OR c.relname ~ '_cc(new|old)[0-9]*$')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.relid = i.indrelid)
    ORDER BY c.relname
"""
# trap.3: relname and indexrelname.
USED = """
    SELECT s.relname, s.indexrelname, pg_catalog.pg_size_pretty(pg_catalog.pg_relation_size(s.indexrelid)), s.idx_scan
    FROM pg_catalog.pg_stat_user_indexes s WHERE s.indexrelname = ANY (%s) ORDER BY s.indexrelname
"""
METHOD = """
    SELECT a.amname, o.opcname, pg_catalog.pg_get_indexdef(c.oid, 1, true)
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_am a ON a.oid = c.relam JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
    WHERE i.indexrelid = pg_catalog.to_regclass(%s) AND i.indrelid = pg_catalog.to_regclass(%s)
"""
# Who holds, or waits for, a lock of this mode on one of our tables or their indexes.
LOCKS = """
    SELECT DISTINCT l.pid, l.granted,
        round(extract(epoch FROM clock_timestamp() - coalesce(l.waitstart, a.xact_start))::numeric, 1)
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid) JOIN pg_catalog.pg_class c
        ON c.oid = l.relation LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
    WHERE l.mode = %s AND l.pid <> pg_catalog.pg_backend_pid() AND c.relkind = ANY (%s)
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        AND coalesce(i.indrelid, c.oid) = ANY (SELECT pg_catalog.to_regclass(t) FROM pg_catalog.unnest(%s::text[]) t)
    ORDER BY 3 DESC
"""
LEFT = re.compile("_cc(new|old)[0-9]*$")
LOCKED_S = 0.5  # a lock asked for as retrieval.schema.locks does is given up after 0.3 s


def ours() -> list[str]:
    """The tables of messages and recall's own."""
    return [*(one.table for one in message_tables()), "message_memories"]


def are_valid() -> Finding:
    """checklist.4; recall's own are looked at by index.recall."""
    wrong, fixes = [], []
    for table, index in vector_indexes():
        if mended := _mend(table, index):
            wrong.append(f"{index.name} is missing, invalid, or not for cosine distance")
            fixes += mended
    known = {index.name for _, index in vector_indexes()}
    for name, _ in rows(INVALID, [ours()]):
        if name not in known | set(_recalls()):
            wrong.append(f"{name} is what a build that was ended has left")
            fixes.append(
                _drop(name) if LEFT.search(name) else f"REINDEX INDEX CONCURRENTLY {name};"
            )
    if wrong:
        return failed("; ".join(wrong), "\n".join(fixes))
    return passed(", ".join(f"{name}, {size}" for _, name, size, _ in rows(USED, [sorted(known)])))


def _mend(table: str, index: indexes.VectorIndex) -> list[str]:
    """What makes the index right; nothing where it is."""
    vector = extension.schema(connection)
    made = (
        f"CREATE INDEX CONCURRENTLY {index.name} ON {table} USING hnsw (embedding {vector}.vector_cosine_ops) "
        f"WITH (m = {index.m}, ef_construction = {index.ef_construction});"
    )
    if rows(METHOD, [index.name, table]) != [("hnsw", "vector_cosine_ops", "embedding")]:
        return [_drop(index.name), made]
    invalid = [name for name, _ in rows(INVALID, [[table]])]
    return [f"REINDEX INDEX CONCURRENTLY {index.name};"] if index.name in invalid else []


def _drop(name: str) -> str:
    return f'DROP INDEX CONCURRENTLY IF EXISTS "{name}";'


def _recalls() -> dict[str, str]:
    """Recall's own indexes, and what builds each under traffic."""
    return {
        one.name: one.statement.replace(
            "INDEX IF NOT EXISTS", "INDEX CONCURRENTLY IF NOT EXISTS"
        ).rstrip(";")
        + ";"
        for one in shared("INDEX")
    }


def missing_of_recall() -> list[str]:
    """What builds the indexes of recall's own table that are missing or invalid."""
    found = _recalls()
    there = {
        name
        for (name,) in rows(
            "SELECT indexname FROM pg_catalog.pg_indexes WHERE indexname = ANY (%s)", [list(found)]
        )
    }
    bad = {name for name, _ in rows(INVALID, [ours()])}
    fixes = []
    for name, made in found.items():
        if name in bad:
            fixes += [_drop(name), made]
        elif name not in there:
            fixes.append(made)
    return fixes


def recall_has_its_own() -> Finding:
    """Without them recall is right, and slow."""
    fixes = missing_of_recall()
    if fixes:
        return failed(
            "recall's own table lacks a valid index: recall and the backfill are slow",
            "\n".join(fixes),
        )
    return passed(f"{len(_recalls())} indexes of recall's own tables")


def are_told_by_their_names() -> Finding:
    """trap.3, trap.14."""
    wanted = {index.name for _, index in vector_indexes()}
    found = {(table, name) for table, name, _, _ in rows(USED, [sorted(wanted)])}
    lost = sorted(wanted - {name for _, name in found})
    if lost:
        fixes = [
            fix
            for table, index in vector_indexes()
            if index.name in lost
            for fix in _mend(table, index)
        ]
        return failed(f"pg_stat_user_indexes does not know {', '.join(lost)}", "\n".join(fixes))
    return passed(", ".join(f"{name} on {table}" for table, name in sorted(found)))


def times_used() -> Finding:
    """trap.26."""
    used = ", ".join(
        f"{name} {times:,}"
        for _, name, _, times in rows(USED, [[one.name for _, one in vector_indexes()]])
    )
    return passed(
        f"times used: {used or 'no index'}; 0 is no fault: criterion.3 and criterion.4 are the measure"
    )


def none_is_built_the_hard_way() -> Finding:
    """trap.8: SHARE is the lock of CREATE INDEX; no statement of Verse's asks for it."""
    return _locks("ShareLock", "r", "a CREATE INDEX without CONCURRENTLY holds up writes")


def nobody_waits_behind_a_change() -> Finding:
    """trap.11."""
    return _locks(
        "AccessExclusiveLock",
        "r",
        "a change of a table holds everybody up, or waits with everybody behind it",
    )


def none_is_dropped_the_hard_way() -> Finding:
    """trap.18."""
    return _locks(
        "AccessExclusiveLock",
        "i",
        "a DROP INDEX without CONCURRENTLY (or a REINDEX) holds its table",
    )


def _locks(mode: str, kind: str, words: str) -> Finding:
    found = [
        (pid, granted, s)
        for pid, granted, s in rows(LOCKS, [mode, [kind], ours()])
        if s >= LOCKED_S
    ]
    if not found:
        return passed("nobody does so now")
    who = ", ".join(
        f"process {pid} {'holds' if granted else 'waits for'} the lock, {s} s"
        for pid, granted, s in found
    )
    fixes = [
        f"SELECT pg_terminate_backend({pid});" for pid in dict.fromkeys(pid for pid, _, _ in found)
    ]
    return warning(f"{words}: {who}", "\n".join(fixes))


CHECKS = [
    Check("checklist.4", are_valid),
    Check("trap.3", are_told_by_their_names),
    Check("trap.8", none_is_built_the_hard_way),
    Check("trap.11", nobody_waits_behind_a_change),
    Check("trap.18", none_is_dropped_the_hard_way),
    Check("trap.26", times_used),
    Check("index.recall", recall_has_its_own),
]
