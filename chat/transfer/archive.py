"""Reads a product's export: an archive that holds ``conversations*.json``, or such a file.

Members are read as streams and never unpacked to disk. What an archive declares is checked before
anything is read: a small file must not become a large one.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from lzma import LZMAError
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, cast

from chat.transfer.json_array import read_objects
from chat.transfer.refusals import ImportRefusedError

NAMES = "conversations*.json"
ZIP_MAGIC = b"PK"
# All of NAMES together. An account's 10,000 conversations have some 500 MB.
MAX_UNPACKED_BYTES = 20_000_000_000
# Unpacked to packed. JSON of conversations has some 4 to 10, of one repeated word 200.
MAX_RATIO = 250
# The list of members, which zipfile reads at once: some 80,000 names. It takes ten times as much.
MAX_DIRECTORY_BYTES = 8_000_000
NOT_READABLE = "the archive is damaged or cut"


class _BoundedReads:
    """A file for zipfile, whose only large read is that of the list of members."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.close = file.seek, file.tell, file.close
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise ImportRefusedError("the archive has too many members")
        return self._file.read(size)

    def seekable(self) -> bool:
        return True


def read_conversations(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The objects of each ``conversations*.json``, by name; of a file that is no archive, its own.

    Raises ImportRefusedError: no such member, a member that is too large, encrypted, damaged, cut,
    or no JSON array of objects.
    """
    if not _is_archive(file):
        yield from read_objects(file)
        return
    with _readable(), zipfile.ZipFile(cast("IO[bytes]", _BoundedReads(file))) as archive:
        for member in _members(archive):
            with archive.open(member) as part:
                yield from read_objects(part)


def _is_archive(file: BinaryIO) -> bool:
    if not file.seekable():
        return False
    start = file.read(len(ZIP_MAGIC))
    file.seek(0)
    return start == ZIP_MAGIC


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = sorted(
        (member for member in archive.infolist() if _is_wanted(member.filename)),
        key=lambda member: member.filename,
    )
    if not members:
        raise ImportRefusedError(f"the archive holds no {NAMES}")
    for member in members:
        if member.file_size > max(member.compress_size, 1) * MAX_RATIO:
            raise ImportRefusedError(f"a member is packed more than {MAX_RATIO} to 1")
    if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
        raise ImportRefusedError(f"unpacked it has more than {MAX_UNPACKED_BYTES:,} bytes")
    return members


def _is_wanted(name: str) -> bool:
    """macOS adds a second entry for each file, in a folder of its own, when it packs again."""
    path = PurePosixPath(name)
    return fnmatch(path.name, NAMES) and "__MACOSX" not in path.parts


@contextmanager
def _readable() -> Iterator[None]:
    """What zipfile raises for archives that it cannot read, as ImportRefusedError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, ValueError) as error:
        raise ImportRefusedError(NOT_READABLE) from error
    except (RuntimeError, NotImplementedError) as error:  # a password, or an unusual method
        raise ImportRefusedError("the archive is encrypted, or packed in an unusual way") from error
