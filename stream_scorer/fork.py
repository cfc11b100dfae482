"""State that a forked process must not share with its parent.

`os.fork` copies sockets and locks but no threads: two processes would read each other's responses from one connection,
and a lock that another thread held at that moment is never released in the child. Every object that owns such state
replaces it in the child, before any other code runs there.

A check of the process id at each call was rejected: two threads of the child could replace the same state at once.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ProcessBound(Protocol):
    """An object with connections, threads or locks of one process."""

    def reset_after_fork(self) -> None:
        """Replace what belongs to the parent process; no other thread runs, and no old lock may be acquired."""


_bound: weakref.WeakSet[ProcessBound] = weakref.WeakSet()


def bind_to_process(owner: ProcessBound) -> None:
    """Call ``owner.reset_after_fork()`` in every child process of `os.fork` as long as the owner exists."""
    _bound.add(owner)


def _reset_all() -> None:
    for owner in list(_bound):
        owner.reset_after_fork()


os.register_at_fork(after_in_child=_reset_all)
