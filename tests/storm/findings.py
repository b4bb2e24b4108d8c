"""Violated rules, and what is counted on the way."""

import threading
from collections import Counter
from dataclasses import dataclass, field

from tests.storm.marks import user_of, users_in


@dataclass(frozen=True)
class Finding:
    """A rule that was violated. ``user`` is a number; ``message`` a mark, an id, or ""."""

    rule: str
    user: int | None
    message: int | str | None
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: user {self.user}, message {self.message}: {self.detail}"


@dataclass
class Findings:
    """Shared by all users and checks. Thread-safe."""

    violations: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rule: str, user: int | None, message: int | str | None, detail: str) -> None:
        with self._lock:
            self.violations.append(Finding(rule, user, message, detail))

    def count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def check_isolation(self, user: int, text: str, *, where: str) -> None:
        """Nothing that the user is given was written by, or for, another user."""
        for other in users_in(text) - {user}:
            self.add("only own texts", user, "", f"a text of user {other} in {where}")

    def check_prompt(self, marks: list[str]) -> None:
        """A prompt holds the texts of one user."""
        users = {user_of(mark) for mark in marks}
        if len(users) > 1:
            self.add("only own texts", None, marks[0], f"texts of users {users} in a prompt")
