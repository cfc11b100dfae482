"""Files that several local processes share: locks on folders, and files that are replaced atomically."""

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
    """Hold `<folder>/.<name>.lock`, after a wait if another process holds it; create the folder if it is missing.

    The operating system releases the lock when its holder dies, so it never becomes stale.

    Raises:
        LocalError: the folder cannot be created or written.
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
    """Write a file atomically: a reader gets the old text or the new one.

    Raises:
        LocalError: the file cannot be written.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(text, encoding="utf-8", errors="surrogateescape")
        fresh.replace(path)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error
