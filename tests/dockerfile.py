"""A Dockerfile and its .dockerignore, read: as much of their language as ours use; the rest is an error."""

import json
import re
from pathlib import Path
from typing import NamedTuple

KNOWN = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}


class Instruction(NamedTuple):
    """``COPY --from=packages a b``: name ``COPY``, flags ``{"from": "packages"}``, value ``a b``."""

    name: str
    flags: dict[str, str]
    value: str


def read(path: Path) -> list[Instruction]:
    """The file's instructions in order. ValueError: one that is not in KNOWN."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [instruction(line) for line in logical if line.strip()]


def instruction(line: str) -> Instruction:
    """One line, already joined with the lines it goes on in."""
    name, _, rest = line.strip().partition(" ")
    if name not in KNOWN:
        raise ValueError(
            f"{name} is not understood here: teach it to tests/dockerfile.py and tests/image.py"
        )
    flags = {}
    while match := re.match(r"--([\w-]+)=(\S+)\s+", rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(name, flags, rest.strip())


def stages(instructions: list[Instruction]) -> list[list[Instruction]]:
    """The instructions of each stage, its FROM first."""
    found: list[list[Instruction]] = []
    for one in instructions:
        if one.name == "FROM":
            found.append([])
        found[-1].append(one)
    return found


def exec_form(value: str) -> list[str]:
    """The words of ``["program", "argument"]``. ValueError: the shell form, which puts a shell before the program."""
    words = json.loads(value)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"not the exec form: {value}")
    return words


def value_of(stage: list[Instruction], name: str) -> str:
    """The value of the stage's one instruction of this name. ValueError: none, or more than one."""
    (found,) = [one.value for one in stage if one.name == name]
    return found


def is_left_out(path: str, rules: str) -> bool:
    """Whether .dockerignore keeps ``path`` (relative, with ``/``) out: the last rule that fits decides."""
    out = False
    for rule in rules.splitlines():
        pattern = rule.strip().lstrip("!").rstrip("/")
        if pattern and not rule.startswith("#") and _covers(pattern, path):
            out = not rule.startswith("!")
    return out


def _covers(pattern: str, path: str) -> bool:
    parts = [r"(?:.*/)?" if part == "**/" else "[^/]*" if part == "*" else re.escape(part)
             for part in re.split(r"(\*\*/|\*)", pattern)]  # fmt: skip
    return re.fullmatch("".join(parts) + "(?:/.*)?", path) is not None
