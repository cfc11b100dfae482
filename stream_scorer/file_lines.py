"""The lines of a file in UTF-8, whatever encoding of Unicode it is in; each is limited in length.

A file in UTF-8 is read as it is. Any other is translated on the way, in blocks, so that its size does not matter.
"""

from __future__ import annotations

import codecs
import io
from typing import IO, TYPE_CHECKING, Any, Final

from stream_scorer.core.charset import HEAD_BYTES, MARK, Charset, detect
from stream_scorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ROW_BYTES: Final = 1024 * 1024
_BLOCK_BYTES: Final = 64 * 1024
_MARK: Final = MARK.encode()
# What no UTF-8 has: it stands for half a character at the end of a file, and makes a bad row of the last line.
_NOT_UTF8: Final = b"\xff"


class Lines:
    """The lines of a file with their numbers, counted from 1; one that is too long is None. Lines can be put back."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        """Look at the beginning of the file; ``name`` is what an error calls it.

        Args:
            name: as the user gave it.
            file: at its beginning.
        """
        self._file = file
        self._lines: IO[bytes] = file
        charset = detect(file.read(HEAD_BYTES))
        file.seek(0)
        if charset.encoding != "utf-8":
            self._lines = io.BufferedReader(_InUtf8(name, file, charset), _BLOCK_BYTES)
        self._number = 0
        self._bytes = 0
        self._put_back: list[tuple[int, bytes | None]] = []

    @property
    def bytes_read(self) -> int:
        """How far the reading of the file has come."""
        return self._bytes if self._lines is self._file else self._file.tell()

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        return self

    def __next__(self) -> tuple[int, bytes | None]:
        if self._put_back:
            return self._put_back.pop()
        line = self._lines.readline(MAX_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._bytes += len(line)
        # Files that were put together have marks inside.
        while line.startswith(_MARK):
            line = line.removeprefix(_MARK)
        if len(line) <= MAX_ROW_BYTES:
            return self._number, line
        while line and not line.endswith(b"\n"):
            line = self._lines.readline(MAX_ROW_BYTES)
            self._bytes += len(line)
        return self._number, None

    def put_back(self, lines: list[tuple[int, bytes | None]]) -> None:
        """Have lines read again."""
        self._put_back += reversed(lines)


class _InUtf8(io.RawIOBase):
    """A file of another encoding, translated into UTF-8."""

    def __init__(self, name: str, file: IO[bytes], charset: Charset) -> None:
        self._name = name
        self._file = file
        self._encoding = charset.encoding
        self._rest = b""
        self._ended = False
        # Half a surrogate pair is passed on, to be refused as the bad row that it is.
        self._decoder = codecs.getincrementaldecoder(charset.encoding)("surrogatepass")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest and not self._ended:
            self._rest = self._translated(self._file.read(_BLOCK_BYTES))
        view = memoryview(buffer)
        taken = min(len(view), len(self._rest))
        view[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken

    def _translated(self, block: bytes) -> bytes:
        self._ended = not block
        try:
            text = self._decoder.decode(block, final=False)
        except UnicodeDecodeError:
            name = self._encoding.rpartition("-")[0].upper()
            raise InputError(f"{self._name}: is not valid {name}, as which it begins: save it as UTF-8") from None
        half = self._ended and self._decoder.getstate()[0]
        return text.encode("utf-8", "surrogatepass") + (_NOT_UTF8 if half else b"")
