"""Reads a Dockerfile and .dockerignore. What ours do not use is an error."""

import json
import re
from pathlib import Path
from typing import NamedTuple

KNOWN = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}


class Instruction(NamedTuple):
    """``COPY --from=x a b``: name ``COPY``, flags ``{"from": "x"}``, value ``a b``."""

    name: str
    flags: dict[str, str]
    value: str


def read(path: Path) -> list[Instruction]:
    """The file's instructions in order. Raises ValueError for one that is not in KNOWN."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [instruction(line) for line in logical if line.strip()]


def instruction(line: str) -> Instruction:
    """An instruction from a line whose continuation lines are joined."""
    name, _, rest = line.strip().partition(" ")
    if name not in KNOWN:
        raise ValueError(
            f"{name} is not supported: add it to tests/dockerfile.py and tests/image.py"
        )
    flags = {}
    while match := re.match(r"--([\w-]+)=(\S+)\s+", rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(name, flags, rest.strip())


def stages(instructions: list[Instruction]) -> list[list[Instruction]]:
    """The instructions of each stage, its FROM first."""
    split: list[list[Instruction]] = []
    for step in instructions:
        if step.name == "FROM":
            split.append([])
        split[-1].append(step)
    return split


def exec_form(value: str) -> list[str]:
    """The words of ``["program", "argument"]``. ValueError: the shell form, which adds a shell."""
    words = json.loads(value)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"not the exec form: {value}")
    return words


def value_of(stage: list[Instruction], name: str) -> str:
    """The value of the stage's only instruction of this name. ValueError: not exactly one."""
    (value,) = [step.value for step in stage if step.name == name]
    return value


def is_left_out(path: str, rules: str) -> bool:
    """Whether .dockerignore excludes the relative ``path``. The last matching rule decides."""
    excluded = False
    for rule in rules.splitlines():
        pattern = rule.strip().lstrip("!").rstrip("/")
        if pattern and not rule.startswith("#") and _covers(pattern, path):
            excluded = not rule.startswith("!")
    return excluded


def _covers(pattern: str, path: str) -> bool:
    parts = [r"(?:.*/)?" if part == "**/" else "[^/]*" if part == "*" else re.escape(part)
             for part in re.split(r"(\*\*/|\*)", pattern)]  # fmt: skip
    return re.fullmatch("".join(parts) + "(?:/.*)?", path) is not None
