"""Standard output and error whose write errors (encoding, full disk, closed pipe) do not fail a command.

The output of a command is a report about its work. A report that cannot be written changes no verdict, aborts no work
that would then be repeated, and causes no traceback.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAMES: Final = {1: "standard output", 2: "standard error"}


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by safe streams for one command."""
    _open_missing_descriptors()
    before = sys.stdout, sys.stderr
    error = SafeStream(sys.stderr, 2)
    output = SafeStream(sys.stdout, 1, notes=error)
    sys.stdout, sys.stderr = cast("TextIO", output), cast("TextIO", error)
    try:
        yield
    finally:
        output.finish()
        error.finish()
        sys.stdout, sys.stderr = before


def _open_missing_descriptors() -> None:
    """Open the null device for a closed standard stream, so that no later file or socket gets its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one


class SafeStream:
    """Text stream whose writes never fail: characters that it cannot encode are escaped, failed writes are dropped.

    Everything else is delegated to the wrapped stream. Each write is attempted: a full disk may have room again.
    """

    def __init__(self, stream: TextIO | None, number: int, notes: SafeStream | None = None) -> None:
        """Wrap a stream.

        Args:
            stream: the stream; None, Python's value for a descriptor closed at the start: all text is dropped.
            number: its file descriptor.
            notes: receives one line if this stream cannot be written; None: no line.
        """
        self._stream: TextIO = io.StringIO() if stream is None else stream
        self._is_closed = stream is None
        self._number = number
        self._notes = notes
        self._is_reported = False
        self._is_reader_gone = False
        self._given_encoding = getattr(self._stream, "encoding", None) or "utf-8"
        if isinstance(self._stream, io.TextIOWrapper):
            # The command line library replaces ASCII by UTF-8 by itself, which would bypass this object.
            is_ascii = codecs.lookup(self._stream.encoding).name == "ascii"
            with contextlib.suppress(OSError, ValueError):
                self._stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def is_reader_gone(self) -> bool:
        """Whether the reader of a pipe has closed it, so that nothing more need be written."""
        if not self._is_reader_gone:
            with contextlib.suppress(OSError, ValueError):  # not a real file
                poll = select.poll()
                poll.register(self._stream.fileno(), 0)
                self._is_reader_gone = any(event & select.POLLERR for _, event in poll.poll(0))
        return self._is_reader_gone

    def can_encode(self, text: str) -> bool:
        """Return whether the stream was opened with an encoding that has these characters."""
        try:
            text.encode(self._given_encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        if self._is_closed:
            return len(text)
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:  # not a `TextIOWrapper`
            return self.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError) as error:  # ValueError: the stream was closed meanwhile
            self._report(error)
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, or drop the buffered text."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._report(error)

    def finish(self) -> None:
        """Flush a last time, and drop what cannot be written, which would change Python's exit code."""
        try:
            self._stream.flush()
        except ValueError:
            pass
        except OSError as error:
            self._report(error)
            with contextlib.suppress(OSError, ValueError):  # not a real file
                descriptor = self._stream.fileno()
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)

    def _report(self, error: OSError | ValueError) -> None:
        # A closed pipe (`| head`) is not a failure: its reader has finished.
        self._is_reader_gone = self._is_reader_gone or getattr(error, "errno", None) == errno.EPIPE
        if self._is_reported or self._notes is None or getattr(error, "errno", None) == errno.EPIPE:
            return
        self._is_reported = True
        reason = getattr(error, "strerror", None) or "it is closed"
        self._notes.write(
            f"stream-scorer: {_NAMES[self._number]} cannot be written ({reason}): some of it is missing\n"
        )
