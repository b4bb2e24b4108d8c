"""In which language words are recalled: a text search configuration of PostgreSQL's, kept as a row in the database.

Words are stored stemmed, so the configuration belongs to the data, like the embedding model: every row of recall's
table tells by which one it was made. ``rag_text use`` changes it, ``backfill_embeddings`` makes the rows anew.
"""

from dataclasses import dataclass

from django.db import transaction

from retrieval import db

DEFAULT = "english"  # docs/decisions/0010-hybrid-recall.md, "Languages"
# A message's day is among its words, "3 may 2024", in the configuration's language; where it is not here, English.
MONTHS = {
    "english": "january february march april may june july august september october november december",
    "danish": "januar februar marts april maj juni juli august september oktober november december",
    "dutch": "januari februari maart april mei juni juli augustus september oktober november december",
    "finnish": "tammikuu helmikuu maaliskuu huhtikuu toukokuu kesäkuu heinäkuu elokuu syyskuu lokakuu marraskuu"
    " joulukuu",
    "french": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "german": "januar februar märz april mai juni juli august september oktober november dezember",
    "italian": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "norwegian": "januar februar mars april mai juni juli august september oktober november desember",
    "portuguese": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "russian": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "spanish": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "swedish": "januari februari mars april maj juni juli augusti september oktober november december",
    "turkish": "ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık",
}
QUALIFIED = """
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.cfgname)
    FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
    WHERE pg_catalog.pg_ts_config_is_visible(c.oid) AND c.cfgname = %(name)s
"""
KNOWN = "SELECT cfgname FROM pg_catalog.pg_ts_config c WHERE pg_catalog.pg_ts_config_is_visible(c.oid) ORDER BY cfgname"
ADD = """
    INSERT INTO search_configs (config, months) VALUES (%(config)s, %(months)s)
    ON CONFLICT (config) DO UPDATE SET months = excluded.months
"""
CURRENT = "SELECT id, config FROM search_configs WHERE current"
COUNT = """
    SELECT count(*) FILTER (WHERE p.search_config_id = t.id), count(*) FILTER (WHERE p.search_config_id IS DISTINCT FROM t.id)
    FROM message_memories p, search_configs t WHERE t.current
"""


class UnknownText(Exception):
    """No text search configuration of this database; the words say which there are."""


@dataclass(frozen=True)
class State:
    """The configuration in force, how many messages were made by it, and how many by another."""

    config: str
    made: int
    other: int


def state() -> State:
    """Two statements, the second reads recall's table. Raises NoMemory."""
    ((_, config),) = db.execute(CURRENT, {})
    ((made, other),) = db.execute(COUNT, {})
    return State(str(config).removeprefix("pg_catalog."), int(made), int(other))


def use(name: str) -> None:
    """Word questions and new messages by this configuration from now on. Raises UnknownText, NoMemory.

    Lock: two rows of a table that only recall reads, for one short transaction.
    """
    config = qualified(name)
    with transaction.atomic():
        db.execute(ADD, {"config": config, "months": months_of(name)})
        db.execute(
            "UPDATE search_configs SET current = false WHERE current AND config <> %(config)s",
            {"config": config},
        )
        db.execute(
            "UPDATE search_configs SET current = true WHERE config = %(config)s", {"config": config}
        )


def qualified(name: str) -> str:
    """The configuration's name with its schema, for SQL that knows no search_path. One statement or two."""
    found = db.execute(QUALIFIED, {"name": name})
    if not found:
        known = ", ".join(row[0] for row in db.execute(KNOWN, {}))
        raise UnknownText(f"this database has no text search configuration {name}; it has {known}")
    return str(found[0][0])


def months_of(name: str) -> list[str]:
    """The twelve months' names."""
    return MONTHS.get(name, MONTHS["english"]).split()
