"""Does by hand what `docker build` and `docker run` do with our Dockerfile.

For tests without a container engine. tests/dockerfile.py reads the steps. Differences from a
container: the base image is a copy of the Python that runs the tests, on this machine's system;
``/app`` is a folder under /tmp; what is read-only in a container has no write permission.
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

# Variables that the package installer needs to reach its index.
NETWORK = re.compile(r"pip_.*|(https?|no|all)_proxy|ssl_cert_(file|dir)", re.IGNORECASE)
WRITABLE = ".verse"  # within WORKDIR
NOT_OF_A_BASE_IMAGE = shutil.ignore_patterns(
    "site-packages", "dist-packages", "test", "idlelib", "__pycache__"
)


class Image:
    """The image that the Dockerfile describes, in a folder under /tmp."""

    def __init__(self, **arguments: str) -> None:
        """Build with these build arguments. AssertionError: a step failed, with its output."""
        self.folder = Path(tempfile.mkdtemp(prefix="verse-image-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.root = self.folder / "root"
        self.stage = ""
        self._arguments = arguments
        try:
            for step in dockerfile.read(ROOT / "Dockerfile"):
                getattr(self, f"_{step.name.lower()}")(step)
            self._make_read_only()
        except BaseException:
            self.remove()
            raise

    def start(self, *command: str, log: Path, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a container with ``command``, or with the image's own."""
        with log.open("ab") as out:
            return subprocess.Popen(
                [*as_process_1(self.user), *(command or self.command)],
                cwd=self.workdir,
                env=self.environment | environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def run(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, like `docker exec` or `docker run`."""
        return subprocess.run(
            [*as_account(self.user), *command],
            cwd=self.workdir,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )

    def remove(self) -> None:
        subprocess.run(["chmod", "-R", "u+w", self.folder], check=False, capture_output=True)
        shutil.rmtree(self.folder)

    def _from(self, step: Instruction) -> None:
        if self.root.exists():
            self.root.rename(self.folder / self.stage)
        self.stage = step.value.partition(" AS ")[2] or "last"
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

    def _arg(self, step: Instruction) -> None:
        name, _, default = step.value.partition("=")
        self._build_arguments[name] = self._arguments.get(name, default)

    def _env(self, step: Instruction) -> None:
        before = dict(self.environment)
        for pair in shlex.split(step.value):
            name, _, value = pair.partition("=")
            self.environment[name] = string.Template(self._local_paths(value)).substitute(before)

    def _workdir(self, step: Instruction) -> None:
        self._name_of_workdir = step.value
        self.workdir = self.root / step.value.lstrip("/")
        self.workdir.mkdir(parents=True, exist_ok=True)

    def _copy(self, step: Instruction) -> None:
        *sources, target = shlex.split(step.value)
        stage = step.flags.get("from")
        for source in sources:
            if stage:
                copy_tree(self.folder / stage / source.lstrip("/"), self.workdir / target)
            elif source == ".":
                copy_tree(ROOT, self.folder / "context", rules=(ROOT / ".dockerignore").read_text())
                subprocess.run(
                    ["chmod", "-R", step.flags["chmod"], self.folder / "context"], check=True
                )
                copy_tree(self.folder / "context", self.workdir / target)
            else:
                shutil.copy(ROOT / source, self.workdir / target)

    def _run(self, step: Instruction) -> None:
        command = self._local_paths(step.value)
        if os.geteuid() != 0:  # only root can change a file's owner
            command = re.sub(r" -[og] \d+", "", command)
        result = subprocess.run(
            ["sh", "-ec", command],
            cwd=self.workdir,
            env=self._network | self.environment | self._build_arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        assert result.returncode == 0, f"{step.value}\n{result.stdout}"

    def _user(self, step: Instruction) -> None:
        self.user = step.value

    def _expose(self, step: Instruction) -> None:
        self.port = step.value

    def _healthcheck(self, step: Instruction) -> None:
        self.healthcheck = dockerfile.exec_form(step.value.removeprefix("CMD "))

    def _cmd(self, step: Instruction) -> None:
        self.command = dockerfile.exec_form(step.value)

    def _local_paths(self, text: str) -> str:
        """The text with WORKDIR replaced by its folder on this machine."""
        return re.sub(rf"(?<![\w.-]){self._name_of_workdir}(?![\w-])", str(self.workdir), text)

    def _make_read_only(self) -> None:
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.workdir:
                folders.remove(WRITABLE)
            for path in (Path(folder), *(Path(folder) / name for name in files)):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & ~0o222)


def copy_tree(source: Path, target: Path, rules: str = "") -> None:
    """Copy what .dockerignore's ``rules`` do not exclude. Links stay links."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        relative = Path(folder).relative_to(source)
        return [
            name
            for name in names
            if rules and dockerfile.is_left_out((relative / name).as_posix(), rules)
        ]

    shutil.copytree(source, target, symlinks=True, ignore=left_out, dirs_exist_ok=True)


def copy_interpreter(target: Path) -> None:
    """Replace the base image: copy this Python, its standard library and pip."""
    version = f"python3.{sys.version_info.minor}"
    shutil.copytree(
        sysconfig.get_path("stdlib"), target / "lib" / version, ignore=NOT_OF_A_BASE_IMAGE
    )
    (target / "bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), target / "bin/python")
    for library in Path(sysconfig.get_config_var("LIBDIR")).glob(f"lib{version}*.so*"):
        shutil.copy(library, target / "lib")
    subprocess.run(
        [target / "bin/python", "-m", "ensurepip"],
        check=True,
        capture_output=True,
        env=clean_environment(LD_LIBRARY_PATH=str(target / "lib")),
    )


def as_account(user: str) -> list[str]:
    """A command prefix: run as this uid:gid without privileges. Empty if we are not root."""
    if os.geteuid() != 0:
        return []
    uid, gid = user.split(":")
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]


def as_process_1(user: str) -> list[str]:
    """A command prefix: also be process 1 of a new namespace, if this machine allows it."""
    return [
        *(["unshare", "--pid", "--fork", "--kill-child"] if may_unshare() else []),
        *as_account(user),
    ]


@cache
def may_unshare() -> bool:
    """Whether this machine lets us create a process namespace."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--pid", "--fork", "--kill-child", "true"]
    return subprocess.run(command, capture_output=True).returncode == 0
