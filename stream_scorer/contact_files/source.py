"""The bytes of a file of contacts: a file, a pipe or standard input, compressed by gzip or not, to be read twice.

Default event ids are made from a hash of the whole content, so that comes first. What can be read only once, a pipe,
is copied into a temporary file. The hash is that of the content as it was before gzip: a file has one set of event ids,
however it reaches us.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import stat
import sys
import tempfile
import zlib
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from stream_scorer.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD_INPUT: Final = Path("-")
_GZIP: Final = b"\x1f\x8b"
_HEAD_BYTES: Final = 16
_BLOCK_BYTES: Final = 1024 * 1024
_AS_CSV: Final = "save it as CSV UTF-8"
# Files that are not text, by how they begin.
_OTHER_FILES: Final = (
    (re.compile(rb"PK\x03\x04"), f"is an Excel workbook or a zip archive: {_AS_CSV}, or unpack it"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), f"is an old Excel workbook: {_AS_CSV}"),
    (re.compile(rb"PAR1"), "is a Parquet file: export it as CSV or JSON Lines"),
    (re.compile(rb"Obj\x01"), "is an Avro container file: export it as CSV or JSON Lines"),
    (re.compile(rb"\x28\xb5\x2f\xfd|\xfd7zXZ|BZh[1-9]1AY|7z\xbc\xaf"), "is compressed: unpack it, or use gzip"),
    (re.compile(_GZIP), "is packed by gzip twice: unpack it once"),
    (re.compile(rb"%PDF"), f"is a PDF: {_AS_CSV}"),
    (re.compile(rb"\s*<(!DOCTYPE|html|\?xml)", re.IGNORECASE), f"is HTML or XML: {_AS_CSV}"),
)


class Opened(NamedTuple):
    """An open file at its beginning; ``place`` is the file on the disk, whose position shows how far reading is."""

    content: IO[bytes]
    place: IO[bytes]


class FileSource:
    """The bytes of one file.

    Attributes:
        name: what an error calls it.
        size_bytes: of the file as it is stored, compressed or not.
        sha256_hex: of its content.
        lines: how many there are at most.
        head: how the content begins.
    """

    def __init__(self, path: Path) -> None:
        """Read it once.

        Args:
            path: of the file; `STANDARD_INPUT` is ``-``.

        Raises:
            InputError: it cannot be read, or is no text.
        """
        self._path = path
        self.name = "standard input" if path == STANDARD_INPUT else printable(str(path))
        self._copy: IO[bytes] | None = None
        with self._readable():
            if path == STANDARD_INPUT:
                if sys.stdin is None:  # closed by the one who has started this process
                    raise InputError("standard input is closed: name a file, or write <FILE after the command")
                self._copy = _copied(self.name, sys.stdin.buffer)
            elif not stat.S_ISREG(path.stat().st_mode):
                with path.open("rb") as pipe:
                    if stat.S_ISCHR(path.stat().st_mode) and not pipe.isatty():
                        raise InputError(f"{self.name}: is a device: name a file, or a pipe that ends")
                    self._copy = _copied(self.name, pipe)
        with self.open() as (content, place):
            self.head = content.read(_HEAD_BYTES)
            self._refuse_other_files()
            content.seek(0)
            digest, ends = hashlib.sha256(), Counter[bytes]()
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
                ends.update({end: block.count(end) for end in (b"\n", b"\r")})
            self.sha256_hex = digest.hexdigest()
            self.lines = 1 + (ends[b"\n"] or ends[b"\r"])
            self.size_bytes = place.seek(0, 2)

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Open the file at its beginning.

        Raises:
            InputError: it cannot be read any further.
        """
        with self._readable():
            if self._copy is not None:
                self._copy.seek(0)
                yield self._unpacked(self._copy)
            else:
                with self._path.open("rb") as file:
                    yield self._unpacked(file)

    def close(self) -> None:
        """Remove the copy of a pipe."""
        if self._copy is not None:
            self._copy.close()

    def _unpacked(self, file: IO[bytes]) -> Opened:
        magic = file.read(len(_GZIP))
        file.seek(0)
        return Opened(gzip.open(file) if magic == _GZIP else file, file)  # type: ignore[arg-type]

    def _refuse_other_files(self) -> None:
        for beginning, problem in _OTHER_FILES:
            if beginning.match(self.head):
                raise InputError(f"{self.name}: {problem}")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise InputError(f"{self.name}: is no whole gzip file: transfer or compress it again") from None
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror or 'cannot be read'}") from None


def _copied(name: str, file: IO[bytes]) -> IO[bytes]:
    """Copy what can be read only once. A full disk is that of the copy, and no fault of the file."""
    try:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the source
    except OSError as error:
        raise _no_copy(name, error) from None
    while block := file.read(_BLOCK_BYTES):
        try:
            copy.write(block)
            copy.flush()
        except OSError as error:
            raise _no_copy(name, error) from None
    return copy


def _no_copy(name: str, error: OSError) -> InputError:
    return InputError(
        f"{name}: can be read only once, and no copy can be written to the folder for temporary files:"
        f" {error.strerror}; set TMPDIR to a folder with room"
    )
