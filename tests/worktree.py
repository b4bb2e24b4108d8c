"""An earlier commit of this repository, for rehearsals and benchmarks that run old code."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

GIT = ("git", "-C", str(ROOT))


@contextlib.contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A folder with the commit's files, removed at the end. CalledProcessError: no such commit."""
    folder = Path(tempfile.mkdtemp(prefix="verse-old-"))
    try:
        subprocess.run([*GIT, "worktree", "add", "--quiet", "--detach", folder, commit], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*GIT, "worktree", "remove", "--force", folder], check=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
