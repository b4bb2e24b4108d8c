"""Reads the file ``.env`` with django-environ."""

import io
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import environ

logger = logging.getLogger(__name__)

# NAME=value. Spaces around both and a comment after them are allowed; django-environ would take
# them as part of the value, or log the line, which may contain a secret.
LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>\w+)\s*=\s*
    (?P<value>'[^']*'|"(?:[^"\\]|\\.)*"|.*?)
    (?:\s+\#.*)?\s*""",
    re.VERBOSE,
)
REFERENCE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")  # ${NAME} or ${NAME:-default}


class EnvFile(environ.Env):  # type: ignore[misc]
    """``read_env`` stores into ENVIRON, by default the process's environment."""

    ENVIRON: ClassVar[dict[str, str]]


def read_env_file(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings in the file; {} if there is no file. Raises SystemExit if it cannot be read.

    A ``${NAME}`` is replaced with an earlier setting of the file, or a variable of the environment.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError) as error:
        raise SystemExit(
            f"Verse cannot start: {path} cannot be read ({type(error).__name__})"
        ) from error
    EnvFile.ENVIRON = {}
    EnvFile.read_env(io.StringIO("\n".join(_settings(path, content))))
    settings: dict[str, str] = {}
    for name, value in EnvFile.ENVIRON.items():
        settings[name] = _replace_references(value, {**environment, **settings})
    return settings


def _replace_references(value: str, known: Mapping[str, str]) -> str:
    return REFERENCE.sub(lambda match: known.get(match[1], match[2] or ""), value)


def _settings(path: Path, content: str) -> Iterator[str]:
    """Each setting as NAME=value, without spaces and comments around them."""
    for number, line in enumerate(content.splitlines(), 1):
        setting = LINE.fullmatch(line)
        if setting:
            yield f"{setting['name']}={setting['value']}"
        elif line.strip() and not line.lstrip().startswith("#"):
            logger.warning("%s: line %d is ignored, it is not NAME=value", path, number)
