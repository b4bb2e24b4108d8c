"""The language of recall by words: a text search configuration of PostgreSQL, in a database row.

Words are stored stemmed, so the configuration belongs to the data, like the embedding model: every
row of message_memories says which one made it. ``rag_text use`` changes it, then
``backfill_embeddings`` makes the other rows again.
"""

from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, Q

from retrieval import db
from retrieval.models import MessageMemory, SearchConfig

DEFAULT = "english"  # docs/decisions/0010-hybrid-recall.md, "Languages"
# A message's day is among its words, as "3 may 2024", in the configuration's language; English for
# configurations that are not listed.
MONTHS = {
    "english": "january february march april may june"
    " july august september october november december",
    "danish": "januar februar marts april maj juni juli august september oktober november december",
    "dutch": "januari februari maart april mei juni"
    " juli augustus september oktober november december",
    "finnish": "tammikuu helmikuu maaliskuu huhtikuu toukokuu kesäkuu"
    " heinäkuu elokuu syyskuu lokakuu marraskuu joulukuu",
    "french": "janvier février mars avril mai juin"
    " juillet août septembre octobre novembre décembre",
    "german": "januar februar märz april mai juni juli august september oktober november dezember",
    "italian": "gennaio febbraio marzo aprile maggio giugno"
    " luglio agosto settembre ottobre novembre dicembre",
    "norwegian": "januar februar mars april mai juni"
    " juli august september oktober november desember",
    "portuguese": "janeiro fevereiro março abril maio junho"
    " julho agosto setembro outubro novembro dezembro",
    "russian": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "spanish": "enero febrero marzo abril mayo junio"
    " julio agosto septiembre octubre noviembre diciembre",
    "swedish": "januari februari mars april maj juni"
    " juli augusti september oktober november december",
    "turkish": "ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık",
}
# Locks nothing.
QUALIFIED_NAME = """
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.cfgname)
    FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
    WHERE pg_catalog.pg_ts_config_is_visible(c.oid) AND c.cfgname = %(name)s
"""
ALL_NAMES = """
    SELECT cfgname FROM pg_catalog.pg_ts_config c
    WHERE pg_catalog.pg_ts_config_is_visible(c.oid) ORDER BY cfgname
"""


class UnknownConfig(Exception):
    """No text search configuration of this database has that name; lists those there are."""


@dataclass(frozen=True)
class ConfigCounts:
    """The current configuration; how many messages were made by it, and how many by others."""

    config: str
    current: int
    other: int


def count_by_config() -> ConfigCounts:
    """Two statements, the second reads message_memories. Raises NoMemory."""
    with db.require_memory():
        config = SearchConfig.objects.get(current=True)
        rows = MessageMemory.objects.aggregate(
            all=Count("pk"), current=Count("pk", filter=Q(search_config=config.pk))
        )
    name = config.config.removeprefix("pg_catalog.")
    return ConfigCounts(name, rows["current"], rows["all"] - rows["current"])


def switch(name: str) -> None:
    """Index questions and new messages by this configuration. Raises UnknownConfig, NoMemory.

    Locks two rows of search_configs, for one short transaction.
    """
    config = qualified(name)
    with transaction.atomic(), db.require_memory():
        configs = SearchConfig.objects
        configs.bulk_create(
            [SearchConfig(config=config, months=months_of(name))],
            update_conflicts=True,
            unique_fields=["config"],
            update_fields=["months"],
        )
        configs.filter(current=True).exclude(config=config).update(current=False)
        configs.filter(config=config).update(current=True)


def qualified(name: str) -> str:
    """The configuration's name with its schema. One statement, two if it is unknown."""
    rows = db.execute(QUALIFIED_NAME, {"name": name})
    if not rows:
        names = ", ".join(row[0] for row in db.execute(ALL_NAMES, {}))
        raise UnknownConfig(
            f"this database has no text search configuration {name}; it has {names}"
        )
    return str(rows[0][0])


def months_of(name: str) -> list[str]:
    """The names of the twelve months."""
    return MONTHS.get(name, MONTHS["english"]).split()
