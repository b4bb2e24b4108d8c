"""Reads settings from environment variables with django-environ; refuses values that are unusable.

django-environ casts leniently ("maybe" is false, "$20" is 20), so each form is checked first. A
refusal is one line: docs/promises.md, "Settings".
"""

import json
import math
import platform
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import environ
import psycopg
from psycopg.conninfo import conninfo_to_dict

from verse.broker_url import BROKER_URL, is_broker_url
from verse.database_parameters import find_refused_parameter, is_usable
from verse.secret_file import load_or_create_secret

DAY_S = 86_400
E5 = "multilingual-e5-small"
BUNDLED_MODELS = ("minilm+use", "all-MiniLM-L6-v2", E5)  # retrieval/embeddings/bundled_models.py
SECONDS = {"s": 1, "sec": 1, "min": 60, "hour": 3600, "day": DAY_S}
BOOLEANS = ("true", "1", "yes", "on", "false", "0", "no", "off")
# A value that may be a credential is not shown: the usual beginning of an API key, the user part
# of a URL, a parameter with such a name.
SECRET_LOOK = re.compile(r"sk-|[^/]@|(pass(word)?|key|token|secret)=", re.IGNORECASE)
# Django's database settings, and libpq's parameters with the same meaning.
LIBPQ_PARAMETERS = {
    "NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"
}  # fmt: skip
DATABASE_URL = "a PostgreSQL URL such as postgresql://user:password@host:5432/name"
PROTOCOLS = ["http/protobuf", *(["grpc"] if find_spec("grpc") else [])]  # grpc needs a package
_ways = ("always_on", "always_off", "traceidratio")
SAMPLERS = [*(f"parentbased_{way}" for way in _ways), *_ways]  # OpenTelemetry's, the default first
ENDPOINTS = ("/chat/completions", "/embeddings")  # of OpenAI's API


@dataclass(frozen=True)
class Rate:
    """At most ``limit`` events in any ``seconds`` seconds."""

    limit: int
    seconds: int


@dataclass
class Environment:
    """Typed access to ``values``; an empty string counts as unset.

    Each method returns the default if the variable is unset. It raises SystemExit with one line if
    the value cannot be used: start-up ends with exit code 1 and no traceback.
    """

    values: Mapping[str, str | None]
    secrets: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._env = environ.Env()
        # django-environ would replace "$NAME" with the variable NAME; a password can begin with $.
        self._env.escape_proxy = True
        self._env.ENVIRON = {
            name: value.strip().replace("$", r"\$")
            for name, value in self.values.items()
            if value and value.strip()
        }

    def text(self, name: str, default: str = "") -> str:
        """Any text, without surrounding white space."""
        return str(self._env.str(name, default))

    def secret(self, name: str) -> str:
        """A key; '' if unset. Printable ASCII without spaces, because HTTP headers contain it."""
        value = self.text(name)
        if value:
            self.secrets.add(value)
        if not re.fullmatch(r"[!-~]*", value):
            self.refuse(name, "printable ASCII characters without spaces", show=False)
        return value

    def hosts(self, name: str, default: str) -> list[str]:
        """Comma-separated host names without scheme or port."""
        hosts = self._parts(name, default)
        if not all(re.fullmatch(r"\*|[\w.-]+|\[[0-9a-fA-F:.]+\]", host) for host in hosts):
            self.refuse(name, "host names without scheme or port, such as chat.example.com")
        return hosts

    def origins(self, name: str) -> list[str]:
        """Comma-separated origins, each with its scheme."""
        origins = self._parts(name)
        if not all(re.fullmatch(r"https?://[^/\s]+", origin) for origin in origins):
            self.refuse(name, "origins with their scheme, such as https://chat.example.com")
        return origins

    def json_object(self, name: str) -> dict[str, Any]:
        """A JSON object; {} if unset."""
        try:
            value = json.loads(self.text(name, "{}"))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self.refuse(name, 'a JSON object such as {"temperature": 0.2}')
        return value

    def choice(self, name: str, default: str, allowed: Collection[str]) -> str:
        """One of ``allowed``, in lower case."""
        value = self.text(name, default).lower()
        return value if value in allowed else self.refuse(name, " or ".join(allowed))

    def bundled_model(self, name: str) -> str:
        """One of BUNDLED_MODELS. Without the C library or processor for E5, that is refused."""
        value = self.text(name)
        if value not in BUNDLED_MODELS:
            self.refuse(name, " or ".join(BUNDLED_MODELS))
        is_glibc = platform.libc_ver()[0] == "glibc"
        if value == E5 and not (platform.machine() == "x86_64" and is_glibc):
            self.refuse(name, f"minilm+use on this machine; {E5} needs x86-64 and glibc")
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        if self.text(name, str(default)).lower() not in BOOLEANS:
            self.refuse(name, "true or false")
        return bool(self._env.bool(name, default))

    def integer(
        self, name: str, default: int, *, minimum: int = 1, maximum: int = 1_000_000_000
    ) -> int:
        value = self.text(name, str(default))
        if not re.fullmatch(r"-?[0-9]{1,18}", value) or not minimum <= int(value) <= maximum:
            self.refuse(name, f"a whole number from {minimum} to {maximum}")
        return int(self._env.int(name, default))

    def limit(self, name: str, *, maximum: int = 1_000_000_000_000_000) -> int | None:
        """A whole number, 1 or more; None if unset: no limit."""
        return self.integer(name, 1, maximum=maximum) if self.text(name) else None

    def seconds(self, name: str, default: float) -> float:
        """Seconds, above 0 and at most a day."""
        allowed = f"seconds, above 0, at most {DAY_S}"
        return self._number(name, lambda number: 0 < number <= DAY_S, allowed) or float(default)

    def dollars(self, name: str, default: float | None = None) -> float | None:
        """US dollars, 0 or more."""
        dollars = self._number(name, lambda number: number >= 0, "US dollars, 0 or more")
        return default if dollars is None else dollars

    def similarity(self, name: str) -> float | None:
        """A cosine similarity from -1 to 1; None if unset."""
        allowed = "a cosine similarity from -1 to 1"
        return self._number(name, lambda number: -1 <= number <= 1, allowed)

    def rate(self, name: str, default: str) -> Rate | None:
        """A rate such as 60/min; None for ``off``."""
        value = self.text(name, default).lower()
        if value == "off":
            return None
        match = re.fullmatch(r"([1-9][0-9]{0,4})/(s|sec|min|hour|day)", value)
        if not match:
            self.refuse(name, "off, or a rate such as 60/min (s, min, hour or day; at most 99999)")
        return Rate(int(match[1]), SECONDS[match[2]])

    def url(self, name: str, default: str = "", *, like: str = "https://api.openai.com/v1") -> str:
        """An http or https URL, to which names of endpoints are added, without its last slash."""
        value, allowed = self.text(name), f"a URL such as {like}"
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # an invalid port
            usable = False
        if value and (not usable or re.search(r"\s", value)):
            self.refuse(name, allowed)
        if re.search(r"[?#]", value) or value.rstrip("/").endswith(ENDPOINTS):
            self.refuse(name, f"{allowed}, without a query and without {ENDPOINTS[0]} at its end")
        return value.rstrip("/") or default

    def broker(self, name: str) -> str:
        """A URL of Redis or of a broker that speaks AMQP; '' if unset. It may hold a password."""
        self.secrets.add(value := self.text(name))
        if value and not is_broker_url(value):
            self.refuse(name, BROKER_URL, show=False)
        return value

    def database(self, name: str) -> dict[str, Any] | None:
        """A PostgreSQL URL as a Django database; None if unset.

        Query parameters such as sslmode become libpq options. Never shown: it has a password.
        """
        url = self.text(name)
        if not url:
            return None
        if not url.startswith(("postgres://", "postgresql://")):
            self._refuse_database(name)
        # For django-environ, not for libpq, an unquoted "?" in a password would begin the query.
        user, at, address = url.rpartition("@")
        quoted = user.replace("?", "%3F") + at + address
        try:
            database = environ.Env.db_url_config(quoted, engine="pooled_postgres")
            options = conninfo_to_dict(url)
        except (ValueError, psycopg.Error):
            self._refuse_database(name)
        if not options.get("dbname") or not is_usable(options) or find_refused_parameter(url):
            self._refuse_database(name)
        self.secrets.add(str(options.get("password") or ""))
        # libpq is right where the two differ: hosts in the query, "+" in names, lists of ports.
        for setting, parameter in LIBPQ_PARAMETERS.items():
            database[setting] = options.pop(parameter, "")
        return {**database, "OPTIONS": options}

    def secret_key(self, name: str, path: Path, *, may_generate: bool) -> str:
        """The key that signs sessions; if unset, one that is generated and stored in ``path``."""
        if value := self.secret(name):
            return value
        if not may_generate:
            allowed = (
                "a long random text; it must be set where DEBUG is off and DATABASE_URL is set"
            )
            self.refuse(name, allowed, show=False)
        return load_or_create_secret(path)

    def refuse(self, name: str, allowed: str, *, show: bool = True) -> NoReturn:
        """End start-up with one line: the variable, its value unless it may be secret, the rule."""
        value = self.text(name)
        may_be_secret = SECRET_LOOK.search(value) or any(s and s in value for s in self.secrets)
        shown = f"={value[:100]!r}" if show and not may_be_secret else ""
        raise SystemExit(f"Verse cannot start: {name}{shown} cannot be used; allowed: {allowed}")

    def _number(self, name: str, fits: Callable[[float], bool], allowed: str) -> float | None:
        value = self.text(name)
        try:
            # Not django-environ's own cast for float, which drops letters and refuses 1e-5.
            number = float(value or "0")
        except ValueError:
            number = math.nan
        if value and not (math.isfinite(number) and fits(number)):
            self.refuse(name, allowed)
        return number if value else None

    def _parts(self, name: str, default: str = "") -> list[str]:
        parts = self._env.get_value(name, cast=list, default=default, parse_default=True)
        return [part.strip() for part in parts if part.strip()]

    def _refuse_database(self, name: str) -> NoReturn:
        allowed = find_refused_parameter(self.text(name)) or DATABASE_URL
        self.refuse(name, allowed, show=False)
