"""A real HTTP server for OpenAI's protocol that can misbehave. Independent of Django and Verse."""

from fake_openai.behaviours import (
    Behaviour,
    CutAfter,
    Drop,
    Empty,
    EndsWithoutDone,
    ErrorEvent,
    Garbled,
    Hang,
    HangAfter,
    Html,
    Refuse,
    RefuseByContent,
    Trickle,
)
from fake_openai.chat import CONTROLS, Answer, Big, Controls, Echo
from fake_openai.embeddings import Lie, LieKind, Vectors
from fake_openai.record import RecordedRequest
from fake_openai.server import FakeOpenAI
from fake_openai.servers import (
    Deltas,
    NanFor,
    NoDimensions,
    NoSystem,
    Raw,
    Redirect,
    StrictRoles,
    Unsupported,
    Window,
    WithoutIndex,
)

__all__ = [
    "CONTROLS",
    "Answer",
    "Behaviour",
    "Big",
    "Controls",
    "CutAfter",
    "Deltas",
    "Drop",
    "Echo",
    "Empty",
    "EndsWithoutDone",
    "ErrorEvent",
    "FakeOpenAI",
    "Garbled",
    "Hang",
    "HangAfter",
    "Html",
    "Lie",
    "LieKind",
    "NanFor",
    "NoDimensions",
    "NoSystem",
    "Raw",
    "RecordedRequest",
    "Redirect",
    "Refuse",
    "RefuseByContent",
    "StrictRoles",
    "Trickle",
    "Unsupported",
    "Vectors",
    "Window",
    "WithoutIndex",
]
