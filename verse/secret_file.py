"""A random secret in a file: generated once, then the same for each process."""

import secrets
from pathlib import Path


def load_or_create_secret(path: Path, *, length: int = 48) -> str:
    """The secret in the file; if there is none, a new one of ``length`` random bytes.

    Processes that start at the same time get the same secret: the file appears complete or not at
    all. Raises SystemExit with one line if the file can be neither read nor created.
    """
    try:
        if not path.exists():
            _create(path, secrets.token_urlsafe(length))
        return path.read_text().strip()
    except OSError as error:
        raise SystemExit(
            f"Verse cannot start: {path}, made where it is missing: {error.strerror}"
        ) from error


def _create(path: Path, secret: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(secret)
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass  # another process was first; the caller reads its secret
    finally:
        draft.unlink()
