"""Read settings from environment variables; refuse a value that cannot be used with one helpful line."""

import math
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import dotenv
import psycopg
from psycopg.conninfo import conninfo_to_dict

DAY_S = 86_400
SECONDS = {"s": 1, "sec": 1, "min": 60, "hour": 3600, "day": DAY_S}
# Anything that may be a credential is not repeated: an API key's usual beginning, a URL's user part or parameter.
SECRET_LOOK = re.compile(r"sk-|[^/]@|(pass(word)?|key|token|secret)=", re.IGNORECASE)
SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}  # libpq's


@dataclass(frozen=True)
class Rate:
    """At most ``limit`` events in any ``seconds`` seconds."""

    limit: int
    seconds: int


@dataclass
class Environment:
    """Typed access to ``values``; an empty string counts as unset.

    Each reader returns the default where the variable is unset. A value that cannot be used raises
    SystemExit with one line: start-up ends with exit code 1 and no traceback.
    """

    values: Mapping[str, str | None]
    secrets: set[str] = field(default_factory=set)

    def text(self, name: str, default: str = "") -> str:
        """Any text, without the white space around it."""
        return (self.values.get(name) or "").strip() or default

    def secret(self, name: str) -> str:
        """A key: printable ASCII without spaces, since it travels in an HTTP header; '' where unset."""
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

    def choice(self, name: str, default: str, allowed: Collection[str]) -> str:
        """One of ``allowed``, in lower case."""
        value = self.text(name, default).lower()
        return value if value in allowed else self.refuse(name, " or ".join(allowed))

    def switch(self, name: str, *, default: bool) -> bool:
        """True or false."""
        words = {"true": True, "1": True, "yes": True, "on": True}
        words |= {"false": False, "0": False, "no": False, "off": False}
        value = self.text(name, str(default)).lower()
        return words[value] if value in words else self.refuse(name, "true or false")

    def integer(self, name: str, default: int, *, least: int = 1, most: int = 1_000_000_000) -> int:
        """A whole number from ``least`` to ``most``."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"-?[0-9]{1,18}", value) or not least <= int(value) <= most:
            self.refuse(name, f"a whole number from {least} to {most}")
        return int(value)

    def seconds(self, name: str, default: float) -> float:
        """Seconds, above 0 and at most a day."""
        return self._number(
            name, default, lambda number: 0 < number <= DAY_S, f"seconds, above 0, at most {DAY_S}"
        )

    def dollars(self, name: str, default: float | None) -> float | None:
        """US dollars, 0 or more; None where unset and without a default."""
        if not self.text(name) and default is None:
            return None
        return self._number(name, default or 0, lambda number: number >= 0, "US dollars, 0 or more")

    def similarity(self, name: str) -> float | None:
        """A cosine similarity from -1 to 1; None where unset."""
        if not self.text(name):
            return None
        return self._number(
            name, 0, lambda number: -1 <= number <= 1, "a cosine similarity from -1 to 1"
        )

    def rate(self, name: str, default: str) -> Rate | None:
        """A rate such as 60/min; None for ``off``."""
        value = self.text(name, default).lower()
        if value == "off":
            return None
        match = re.fullmatch(r"([1-9][0-9]{0,4})/(s|sec|min|hour|day)", value)
        if not match:
            self.refuse(name, "off, or a rate such as 60/min (s, min, hour or day; at most 99999)")
        return Rate(int(match[1]), SECONDS[match[2]])

    def url(self, name: str, default: str = "") -> str:
        """An http or https URL without its last slash; ``default`` where unset."""
        value = self.text(name)
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is none
            usable = False
        if value and (not usable or re.search(r"\s", value)):
            self.refuse(name, "a URL such as https://api.openai.com/v1")
        return value.rstrip("/") or default

    def database(self, name: str) -> dict[str, Any] | None:
        """A PostgreSQL URL as a Django database; None where unset.

        Query parameters (sslmode, connect_timeout, …) become libpq options. The value is never
        shown: it holds a password.
        """
        value = self.text(name)
        if not value:
            return None
        if not value.startswith(("postgres://", "postgresql://")):
            self._refuse_database(name)
        try:
            parts = conninfo_to_dict(value)
        except psycopg.Error:
            self._refuse_database(name)
        if not parts.get("dbname") or not _is_usable(parts):
            self._refuse_database(name)
        self.secrets.add(str(parts.get("password") or ""))
        return {
            "ENGINE": "pooled_postgres",
            "NAME": parts.pop("dbname"),
            "USER": parts.pop("user", ""),
            "PASSWORD": parts.pop("password", ""),
            "HOST": parts.pop("host", ""),
            "PORT": parts.pop("port", ""),
            "OPTIONS": parts,
        }

    def secret_key(self, name: str, kept_in: Path, *, may_generate: bool) -> str:
        """The site's signing key; a generated one is kept in the file ``kept_in`` (mode 0600)."""
        value = self.secret(name)
        if value:
            return value
        if not may_generate:
            self.refuse(
                name,
                "a long random text; it must be set where DEBUG is off and DATABASE_URL is set",
                show=False,
            )
        return kept_secret(kept_in)

    def refuse(self, name: str, allowed: str, *, show: bool = True) -> NoReturn:
        """End start-up with one line: the variable, its value unless that may be a secret, what is allowed."""
        value = self.text(name)
        hidden = (
            not show or SECRET_LOOK.search(value) or any(s and s in value for s in self.secrets)
        )
        shown = "" if hidden else f"={value[:100]!r}"
        raise SystemExit(f"Verse cannot start: {name}{shown} cannot be used; allowed: {allowed}")

    def _number(
        self, name: str, default: float, fits: Callable[[float], bool], allowed: str
    ) -> float:
        try:
            number = float(self.text(name, str(default)))
        except ValueError:
            number = math.nan
        return number if math.isfinite(number) and fits(number) else self.refuse(name, allowed)

    def _parts(self, name: str, default: str = "") -> list[str]:
        return [part.strip() for part in self.text(name, default).split(",") if part.strip()]

    def _refuse_database(self, name: str) -> NoReturn:
        self.refuse(
            name, "a PostgreSQL URL such as postgresql://user:password@host:5432/name", show=False
        )


def _is_usable(parts: Mapping[str, Any]) -> bool:
    """What libpq would refuse only when it connects: a port that is none, an unknown sslmode."""
    ports = str(parts.get("port") or "5432").split(",")  # one per host
    numbers = all(
        re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65_536 for port in ports if port
    )
    return numbers and parts.get("sslmode", "prefer") in SSL_MODES


def read_file(path: Path) -> dict[str, str | None]:
    """The settings in the file ``path``, none where there is no file. SystemExit: it cannot be read."""
    try:
        return dotenv.dotenv_values(path)
    except (OSError, UnicodeError) as error:
        raise SystemExit(
            f"Verse cannot start: {path} cannot be read ({type(error).__name__})"
        ) from error


def kept_secret(path: Path, *, length: int = 48) -> str:
    """The secret in the file ``path``; where there is none, a new one of ``length`` random bytes.

    Two processes that start at once get the same: the file appears whole or not at all. SystemExit: it can
    neither be read nor made.
    """
    try:
        return _kept_secret(path, length)
    except OSError as error:
        raise SystemExit(
            f"Verse cannot start: {path}, made where it is missing: {error.strerror}"
        ) from error


def _kept_secret(path: Path, length: int) -> str:
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(length))
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass  # another process was first; its secret is read below
        finally:
            draft.unlink()
    return path.read_text().strip()
