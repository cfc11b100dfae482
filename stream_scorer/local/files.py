"""Files that several processes of this machine share: a lock on a folder, and files that are replaced whole."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stream_scorer.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def folder_lock(folder: Path, name: str) -> Iterator[None]:
    """Hold `<folder>/.<name>.lock`, waiting for another process that does; the folder is made where it is missing.

    The operating system frees the lock when its holder dies, so it never goes stale.

    Raises:
        LocalError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f".{name}.lock").open("a")
    except OSError as error:
        raise LocalError(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def replace_file(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never half of it.

    Raises:
        LocalError: it cannot be written.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(text, encoding="utf-8", errors="surrogateescape")
        fresh.replace(path)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error
