"""The items of the checklist and the traps that no statement can check: advice for the operator."""

from functools import partial

from retrieval.doctor.criteria import CHECKLIST, TRAPS
from retrieval.doctor.fixes import COST, DOCTOR
from retrieval.doctor.report import Check, information, skipped

# What the operator has to look at, with commands that help.
BY_HAND = {
    "checklist.1": (
        "pg_dump -Fc --file=verse.dump service=verse",
        "createdb --maintenance-db=service=verse-admin --owner=verse verse_restored",
        # As an administrator: the dump creates the extension.
        'pg_restore --exit-on-error -d "service=verse-admin dbname=verse_restored" verse.dump',
    ),
    "checklist.10": ("crontab -l | grep --extended-regexp 'rag_doctor|rag_status'",),
    "checklist.12": (f"{DOCTOR} --report > production.md",),
    "trap.16": ("PGPASSFILE=~/.pgpass pg_dump -Fc --file=verse.dump service=verse",),
    "trap.20": ("read https://openai.com/enterprise-privacy/ or what your own service says",),
    "trap.24": ("kubectl apply -f deploy/kubernetes/jobs/backfill.yaml",),
}
# What there is to know; nothing to look at.
INFO = {
    "trap.2": (
        "SELECT round(100.0 * count(embedding) / NULLIF(count(*), 0), 2) FROM chat_messages;",
    ),
    "trap.15": (COST,),
    "trap.22": (COST,),
}


def checks() -> list[Check]:
    texts = CHECKLIST | TRAPS
    return [
        Check(
            name,
            partial(skipped, f"by hand: {texts[name]}", *fix),
            subject="Nothing: to be checked by hand.",
        )
        for name, fix in BY_HAND.items()
    ] + [
        Check(name, partial(information, texts[name], *fix), subject="Nothing: advice.")
        for name, fix in INFO.items()
    ]
