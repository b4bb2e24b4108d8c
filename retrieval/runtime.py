"""What a process remembers between calls, and how tests make it forget."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_forget_functions: list[Callable[[], object]] = []


def on_reset(forget: Callable[[], object]) -> None:
    """Let ``reset`` call this function too."""
    _forget_functions.append(forget)


def reset() -> None:
    """For tests and benchmarks: forget what was looked up, counted or opened in this process."""
    for forget in _forget_functions:
        forget()


class Expiring(Generic[T]):
    """A value that was looked up, valid for some seconds. Threads read and replace it at once."""

    def __init__(self) -> None:
        self._value_until: tuple[T, float] | None = None
        on_reset(self.forget)

    def get(self) -> T | None:
        """The value, None if there is none or it has expired."""
        value_until = self._value_until
        if value_until is None or time.monotonic() >= value_until[1]:
            return None
        return value_until[0]

    def set(self, value: T, *, seconds: float) -> T:
        self._value_until = value, time.monotonic() + seconds
        return value

    def forget(self) -> None:
        self._value_until = None
