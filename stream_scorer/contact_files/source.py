"""Content of a contact file that can be read twice: a file, a pipe or standard input, gzip or plain.

Default event ids are derived from a hash of the whole content, which is computed first. A pipe can be read only once,
so it is copied to a temporary file. The hash is that of the uncompressed content: a file has one set of event ids,
whatever its transport.
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
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from stream_scorer.errors import InputError, printable
from stream_scorer.file_reader import read_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD_INPUT: Final = Path("-")
_GZIP: Final = b"\x1f\x8b"
_HEAD_BYTES: Final = 16
_BLOCK_BYTES: Final = 1024 * 1024
_AS_CSV: Final = "save it as CSV UTF-8"
# Files that are not text, by their first bytes.
_OTHER_FILES: Final = (
    (re.compile(rb"PK\x03\x04"), f"is an Excel workbook or a zip archive: {_AS_CSV}, or unpack it"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), f"is an old Excel workbook: {_AS_CSV}"),
    (re.compile(rb"PAR1"), "is a Parquet file: export it as CSV or JSON Lines"),
    (re.compile(rb"Obj\x01"), "is an Avro container file: export it as CSV or JSON Lines"),
    (re.compile(rb"\x28\xb5\x2f\xfd|\xfd7zXZ|BZh[1-9]1AY|7z\xbc\xaf"), "is compressed: unpack it, or use gzip"),
    (re.compile(_GZIP), "is packed by gzip twice: unpack it once"),
    (re.compile(rb"%PDF"), f"is a PDF: {_AS_CSV}"),
    (re.compile(rb"\s*<(!DOCTYPE|html|table|meta|\?xml)", re.IGNORECASE), f"is HTML or XML: {_AS_CSV}"),
)


class Opened(NamedTuple):
    """Open file at its beginning; ``place`` is the file on disk, whose position measures the progress."""

    content: IO[bytes]
    place: IO[bytes]


class FileSource:
    """Content of one file.

    Attributes:
        name: name of the file in errors.
        size_bytes: size of the stored file, compressed or not.
        sha256_hex: hash of its content.
        lines: upper limit of its number of lines.
        head: first bytes of the content.
    """

    def __init__(self, path: Path) -> None:
        """Read the file once.

        Args:
            path: path of the file; `STANDARD_INPUT` is ``-``.

        Raises:
            InputError: the file cannot be read, or is not text.
        """
        self._path = path
        self.name = "standard input" if path == STANDARD_INPUT else printable(str(path))
        self._copy: IO[bytes] | None = None
        with self._readable():
            if path == STANDARD_INPUT:
                if sys.stdin is None:  # closed by the parent process
                    raise InputError("standard input is closed: name a file, or write <FILE after the command")
                self._copy = _copied(self.name, iter(partial(sys.stdin.buffer.read, _BLOCK_BYTES), b""))
            elif not stat.S_ISREG(path.stat().st_mode):
                if stat.S_ISCHR(path.stat().st_mode) and not _is_terminal(path):
                    raise InputError(f"{self.name}: is a device: name a file, or a pipe that ends")
                self._copy = _copied(self.name, read_blocks(path))
        with self.open() as (content, place):
            self.head = content.read(_HEAD_BYTES)
            _refuse_other_files(self.name, self.head)
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
            InputError: reading fails.
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

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise InputError(f"{self.name}: is no whole gzip file: transfer or compress it again") from None
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror or 'cannot be read'}") from None


def refuse_other_files(path: Path) -> None:
    """Check the first bytes of a regular file, whatever its name.

    Raises:
        InputError: it is a workbook, an archive or another file that is not text; names the remedy.
    """
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
            if not head.startswith(_GZIP):
                _refuse_other_files(printable(str(path)), head)


def _refuse_other_files(name: str, head: bytes) -> None:
    for beginning, problem in _OTHER_FILES:
        if beginning.match(head):
            raise InputError(f"{name}: {problem}")


def _is_terminal(path: Path) -> bool:
    with path.open("rb") as device:
        return device.isatty()


def _copied(name: str, blocks: Iterator[bytes]) -> IO[bytes]:
    """Copy a stream that can be read only once; errors of the copy name the temporary folder, not the stream."""
    try:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the source
    except OSError as error:
        raise _no_copy(name, error) from None
    for block in blocks:
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
