"""What `docker build` and `docker run` do with our Dockerfile, done by hand: a stand-in where there is no engine.

The steps are the file's own, read by tests/dockerfile.py. Not the same as in a container: the base image is a copy of
the Python that runs the tests, on this machine's system; ``/app`` is a folder under /tmp; what is read-only there has
no write permission here.
"""

import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from tests import dockerfile
from tests.dockerfile import Instruction
from tests.support import ROOT, clean_environment

# How this machine reaches the package index:
NETWORK = re.compile(r"pip_.*|(https?|no|all)_proxy|ssl_cert_(file|dir)", re.IGNORECASE)
WRITABLE = ".verse"  # within WORKDIR
NOT_OF_A_BASE_IMAGE = shutil.ignore_patterns(
    "site-packages", "dist-packages", "test", "idlelib", "__pycache__"
)


class Image:
    """The image that the Dockerfile describes, in a folder of its own under /tmp; ``remove`` takes it away."""

    def __init__(self, **arguments: str) -> None:
        """Build it with these build arguments. AssertionError: a step failed; its output is the message."""
        self.folder = Path(tempfile.mkdtemp(prefix="verse-image-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.root = self.folder / "root"
        self.stage = ""
        self._arguments = arguments
        try:
            for one in dockerfile.read(ROOT / "Dockerfile"):
                getattr(self, f"_{one.name.lower()}")(one)
            self._make_read_only()
        except BaseException:
            self.remove()
            raise

    def start(self, *command: str, log: Path, **environment: str) -> "subprocess.Popen[bytes]":
        """A container: ``command``, else the image's own, as its account, with its environment and these settings."""
        with log.open("ab") as out:
            return subprocess.Popen(
                [*as_process_1(self.user), *(command or self.command)],
                cwd=self.workdir, env=self.environment | environment, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip

    def run(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """`docker exec`, or a container that ends by itself: what it printed, and how it ended."""
        return subprocess.run(
            [*as_account(self.user), *command], cwd=self.workdir, env=self.environment | environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120,
        )  # fmt: skip

    def remove(self) -> None:
        """Delete the folder."""
        subprocess.run(["chmod", "-R", "u+w", self.folder], check=False, capture_output=True)
        shutil.rmtree(self.folder)

    def _from(self, one: Instruction) -> None:
        if self.root.exists():
            self.root.rename(self.folder / self.stage)
        self.stage = one.value.partition(" AS ")[2] or "last"
        self.workdir = self.root
        self.user = "0:0"
        copy_interpreter(self.root / "usr/local")
        path = os.pathsep.join(
            (str(self.root / "usr/local/bin"), "/usr/local/bin", "/usr/bin", "/bin")
        )
        network = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
        self._network = network | {"LD_LIBRARY_PATH": str(self.root / "usr/local/lib")}
        self.environment = {"PATH": path, "HOME": str(self.root), "LANG": "C.UTF-8"}
        self.environment["LD_LIBRARY_PATH"] = str(self.root / "usr/local/lib")
        self._build_arguments: dict[str, str] = {}

    def _arg(self, one: Instruction) -> None:
        name, _, default = one.value.partition("=")
        self._build_arguments[name] = self._arguments.get(name, default)

    def _env(self, one: Instruction) -> None:
        before = dict(self.environment)
        for pair in shlex.split(one.value):
            name, _, value = pair.partition("=")
            self.environment[name] = string.Template(self._here(value)).substitute(before)

    def _workdir(self, one: Instruction) -> None:
        self._name_of_workdir = one.value
        self.workdir = self.root / one.value.lstrip("/")
        self.workdir.mkdir(parents=True, exist_ok=True)

    def _copy(self, one: Instruction) -> None:
        *sources, target = shlex.split(one.value)
        stage = one.flags.get("from")
        for source in sources:
            if stage:
                copy_tree(self.folder / stage / source.lstrip("/"), self.workdir / target)
            elif source == ".":
                copy_tree(ROOT, self.folder / "context", rules=(ROOT / ".dockerignore").read_text())
                subprocess.run(
                    ["chmod", "-R", one.flags["chmod"], self.folder / "context"], check=True
                )
                copy_tree(self.folder / "context", self.workdir / target)
            else:
                shutil.copy(ROOT / source, self.workdir / target)

    def _run(self, one: Instruction) -> None:
        command = self._here(one.value)
        if os.geteuid() != 0:  # who is not root can give no file away
            command = re.sub(r" -[og] \d+", "", command)
        done = subprocess.run(
            ["sh", "-ec", command], cwd=self.workdir, env=self._network | self.environment | self._build_arguments,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{one.value}\n{done.stdout}"

    def _user(self, one: Instruction) -> None:
        self.user = one.value

    def _expose(self, one: Instruction) -> None:
        self.port = one.value

    def _healthcheck(self, one: Instruction) -> None:
        self.healthcheck = dockerfile.exec_form(one.value.removeprefix("CMD "))

    def _cmd(self, one: Instruction) -> None:
        self.command = dockerfile.exec_form(one.value)

    def _here(self, text: str) -> str:
        """Paths below WORKDIR, as they are on this machine."""
        return re.sub(rf"(?<![\w.-]){self._name_of_workdir}(?![\w-])", str(self.workdir), text)

    def _make_read_only(self) -> None:
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.workdir:
                folders.remove(WRITABLE)
            for path in (Path(folder), *(Path(folder) / name for name in files)):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & ~0o222)


def copy_tree(source: Path, target: Path, rules: str = "") -> None:
    """All below ``source`` that .dockerignore's ``rules`` do not leave out; links stay links."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        relative = Path(folder).relative_to(source)
        return [
            name
            for name in names
            if rules and dockerfile.is_left_out((relative / name).as_posix(), rules)
        ]

    shutil.copytree(source, target, symlinks=True, ignore=left_out, dirs_exist_ok=True)


def copy_interpreter(target: Path) -> None:
    """The stand-in for the base image: this Python with its standard library and pip, no package."""
    version = f"python3.{sys.version_info.minor}"
    shutil.copytree(
        sysconfig.get_path("stdlib"), target / "lib" / version, ignore=NOT_OF_A_BASE_IMAGE
    )
    (target / "bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), target / "bin/python")
    for library in Path(sysconfig.get_config_var("LIBDIR")).glob(f"lib{version}*.so*"):
        shutil.copy(library, target / "lib")
    subprocess.run(
        [target / "bin/python", "-m", "ensurepip"], check=True, capture_output=True,
        env=clean_environment(LD_LIBRARY_PATH=str(target / "lib")),
    )  # fmt: skip


def as_account(user: str) -> list[str]:
    """The beginning of a command that is run by this uid:gid, without any group or privilege; ours where not root."""
    if os.geteuid() != 0:
        return []
    uid, gid = user.split(":")
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]


def as_process_1(user: str) -> list[str]:
    """The same for a process that is number 1 of its own namespace, where this machine allows one."""
    return [
        *(["unshare", "--pid", "--fork", "--kill-child"] if may_unshare() else []),
        *as_account(user),
    ]


@cache
def may_unshare() -> bool:
    """Whether this machine lets us begin a namespace of processes."""
    tried = ["unshare", "--pid", "--fork", "--kill-child", "true"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(tried, capture_output=True).returncode == 0
    )
