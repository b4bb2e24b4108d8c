"""Who is given memories, and the fuse: the table rag_rollout."""

from retrieval.doctor.report import Check, Finding, failed, passed
from retrieval.rollout import state

ROLLOUT = "python manage.py rag_rollout"


def fuse_is_whole() -> Finding:
    """The state of rag_rollout; FAIL once its fuse has blown, until a state is set again."""
    current = state.read()
    if current.blown_at:
        when = f"{current.blown_at:%Y-%m-%d %H:%M} UTC"
        reason = f"the fuse blew at {when}: {current.blown_reason}; no user is given memories"
        return failed(reason, f"{ROLLOUT} on")
    return passed(f"rag_rollout is {current.name}")


def checks() -> list[Check]:
    return [Check("rollout.fuse", fuse_is_whole)]
