"""Lines of a file as UTF-8, for any Unicode encoding and line ends; each is limited in length.

UTF-8 with usual line ends is read directly. Other files are converted in blocks while they are read, whatever their
size. A lone carriage return ends lines if it ends the first one, as in files of old Macs and Excel.
"""

from __future__ import annotations

import codecs
import io
import re
from abc import abstractmethod
from typing import IO, TYPE_CHECKING, Any, Final

from stream_scorer.core.charset import HEAD_BYTES, MARK, Charset, detect
from stream_scorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ROW_BYTES: Final = 1024 * 1024
TOO_LONG: Final = f"is longer than {MAX_ROW_BYTES} bytes"
_BLOCK_BYTES: Final = 64 * 1024
_MARK: Final = MARK.encode()
# Invalid in UTF-8: replaces half a character at the end of a file, which makes the last line an invalid row.
_NOT_UTF8: Final = b"\xff"
# The first line end outside quotation marks.
_QUOTED: Final = re.compile(rb'"[^"]*"')
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


class Lines:
    """Numbered lines of a file, from 1; a line over the limit is None. Lines can be put back."""

    def __init__(self, name: str, file: IO[bytes], place: IO[bytes]) -> None:
        """Detect encoding and line ends from the beginning of the file.

        Args:
            name: name of the file in errors.
            file: the content, at its beginning; it is rewound.
            place: the underlying file, whose position measures the progress.
        """
        charset = detect(file.read(HEAD_BYTES))
        file.seek(0)
        in_utf8 = file if charset.encoding == "utf-8" else _buffered(_InUtf8(name, file, charset))
        head = in_utf8.read(_BLOCK_BYTES)
        ends = _LINE_END.search(_QUOTED.sub(b"", head))
        file.seek(0)
        if in_utf8 is not file:
            in_utf8 = _buffered(_InUtf8(name, file, charset))
        self._lines = _buffered(_UsualLineEnds(in_utf8)) if ends is not None and ends[0] == b"\r" else in_utf8
        self._is_translated = self._lines is not file or file is not place
        self._place = place
        self._number = 0
        self._bytes = 0
        self._put_back: list[tuple[int, bytes | None]] = []

    @property
    def bytes_read(self) -> int:
        """Number of bytes of the file that are read."""
        return self._place.tell() if self._is_translated else self._bytes

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
        # Concatenated files have byte order marks inside.
        while line.startswith(_MARK):
            line = line.removeprefix(_MARK)
        if len(line) <= MAX_ROW_BYTES:
            return self._number, line
        while line and not line.endswith(b"\n"):
            line = self._lines.readline(MAX_ROW_BYTES)
            self._bytes += len(line)
        return self._number, None

    def put_back(self, lines: list[tuple[int, bytes | None]]) -> None:
        """Return lines to the reader, to be read again."""
        self._put_back += reversed(lines)


class _Translated(io.RawIOBase):
    """Raw file that converts another one block by block."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest:
            block = self._file.read(_BLOCK_BYTES)
            self._rest = self._translate(block)
            if not block:
                break
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken

    @abstractmethod
    def _translate(self, block: bytes) -> bytes:
        """Return the next block as UTF-8 bytes; an empty block ends the file."""


class _InUtf8(_Translated):
    """Conversion of another encoding to UTF-8."""

    def __init__(self, name: str, file: IO[bytes], charset: Charset) -> None:
        super().__init__(file)
        self._problem = f"{name}: is not valid {charset.encoding[:6].upper()}, as which it begins: save it as UTF-8"
        # Half a surrogate pair passes through, and makes its row invalid later.
        self._decoder = codecs.getincrementaldecoder(charset.encoding)("surrogatepass")
        self._ended = False

    def _translate(self, block: bytes) -> bytes:
        if self._ended:
            return b""
        self._ended = not block
        try:
            text = self._decoder.decode(block)
        except UnicodeDecodeError:
            raise InputError(self._problem) from None
        half = self._ended and self._decoder.getstate()[0]
        return text.encode("utf-8", "surrogatepass") + (_NOT_UTF8 if half else b"")


class _UsualLineEnds(_Translated):
    """Conversion of lone carriage returns to line feeds."""

    def _translate(self, block: bytes) -> bytes:
        return block.replace(b"\r", b"\n")


def _buffered(file: _Translated) -> IO[bytes]:
    return io.BufferedReader(file, _BLOCK_BYTES)
