"""Reading of files that may be pipes, such as the shell's ``<(…)``.

Opening a named pipe blocks until another program writes to it. Here that wait has a limit, so a forgotten writer is one
error line instead of a start that hangs.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES: Final = 1024 * 1024
WRITER_WAIT_S: Final = 5.0


def read_file(path: str | os.PathLike[str], max_bytes: int | None = None) -> bytes:
    """Return the content of a file; with ``max_bytes``, at most one byte more than that.

    Raises:
        OSError: it cannot be read, or it is a pipe without a writer.
        ValueError: the path cannot be one.
    """
    content = bytearray()
    for block in read_blocks(path):
        content += block
        if max_bytes is not None and len(content) > max_bytes:
            return bytes(content[: max_bytes + 1])
    return bytes(content)


def read_blocks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Return the content of a file in blocks of at most 1 MiB.

    Raises:
        OSError: it cannot be read, or it is a pipe that no program has opened for writing for `WRITER_WAIT_S`.
        ValueError: the path cannot be one.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            yield _first_block(descriptor)
        os.set_blocking(descriptor, True)
        while block := os.read(descriptor, _BLOCK_BYTES):
            yield block
    finally:
        os.close(descriptor)


def is_special(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is neither a file nor a folder, but a pipe, a socket or a device.

    A library that opens it again reads nothing, or waits.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _first_block(pipe: int) -> bytes:
    """Wait for the first bytes of a pipe; empty: a writer has none yet, or has closed it.

    A writer without data yet is waited for without a limit: it may fetch a secret first.
    """
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    has_ended_or_data = bool(poller.poll(WRITER_WAIT_S * 1000))
    try:
        block = os.read(pipe, _BLOCK_BYTES)
    except BlockingIOError:
        return b""
    if not block and not has_ended_or_data:
        raise OSError(errno.ENXIO, f"it is a pipe, and no program has opened it for writing for {WRITER_WAIT_S:.0f} s")
    return block
