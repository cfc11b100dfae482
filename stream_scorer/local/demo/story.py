"""Lines about the events of the demo, each with the seconds since its begin, at most 80 columns wide."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

WIDTH: Final = 80
_INDENT: Final = 10


def print_plain(console: Console, text: str | None) -> None:
    """Print text as it stands; None and empty text print nothing."""
    if text:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_wrapped(console: Console, text: str) -> None:
    """Print text in lines of at most 80 columns; the following ones are indented."""
    print_plain(console, wrapped(text, indent="  "))


def wrapped(text: str, *, indent: str = "") -> str:
    """Return text in lines of at most 80 columns; all but the first begin with ``indent``."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def shortened(line: str) -> str:
    """Return a line of at most 80 columns, cut if necessary."""
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


class Story:
    """Printer of events.

    Args:
        console: the output.
        began: monotonic seconds of the begin.
    """

    def __init__(self, console: Console, *, began: float) -> None:
        self._console = console
        self.began = began

    @property
    def elapsed_s(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self.began

    def add(self, event: str) -> None:
        """Print an event with its time."""
        stamp = f"{self.elapsed_s:6.1f} s"
        print_plain(self._console, wrapped(f"{stamp}  {event}", indent=" " * _INDENT))
