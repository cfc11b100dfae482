"""Progress display of the worker: on a terminal a live panel, elsewhere (a log) a line every few seconds."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console, RenderableType

    from stream_scorer.local.demo.monitor import Snapshot

_LINE_EVERY_S: Final = 2.0
_BAR_WIDTH: Final = 60
_OUTCOMES: Final = (("scored", "green"), ("review", "yellow"), ("rejected", "red"))


class ProgressView(AbstractContextManager["ProgressView"]):
    """Display of snapshots until the end of the ``with`` block; the last one stays on the screen.

    Args:
        console: the output.
        contacts: total number of contacts.
        quota: requests a minute.
        scene: returns the current step of the scenario; None: there is none.
    """

    def __init__(self, console: Console, *, contacts: int, quota: int, scene: Callable[[], str] | None = None) -> None:
        self._scene = scene
        self._console = console
        self._contacts = contacts
        self._quota = quota
        self._began = time.monotonic()
        self._reported_at = float("-inf")
        self._last_line = ""
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._last_line:
            self._print(self._last_line)

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot; without a terminal, only if the last line is some seconds old."""
        if self._live is not None:
            self._live.update(self._panel(snapshot), refresh=True)
            return
        self._last_line = self._line(snapshot)
        now = time.monotonic()
        if now - self._reported_at >= _LINE_EVERY_S:
            self._reported_at = now
            self._print(self._last_line)
            self._last_line = ""

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _line(self, snapshot: Snapshot) -> str:
        parts = [
            f"{self._elapsed():>5}",
            f"read {self._read(snapshot):,} of {self._contacts:,}",
            f"in flight {snapshot.in_flight}",
            *(f"{outcome} {snapshot.outcomes.get(outcome, 0):,}" for outcome, _ in _OUTCOMES),
            f"called {snapshot.called:,}",
            f"quota {self._quota_used(snapshot)}",
            snapshot.trouble or "working",
        ]
        return "  ".join([*parts, *self._reported_scene()])

    def _read(self, snapshot: Snapshot) -> int:
        # Records of retry topics, and those read again after a kill, are counted more than once.
        return min(snapshot.read, self._contacts)

    def _reported_scene(self) -> list[str]:
        return [] if self._scene is None else [f"[scenario: {self._scene()}]"]

    def _panel(self, snapshot: Snapshot) -> Panel:
        numbers = Table.grid(padding=(0, 3), expand=False)
        for _ in range(2):
            numbers.add_column(style="dim")
            numbers.add_column(justify="right", min_width=9)
        pairs = [
            ("read", Text(f"{self._read(snapshot):,}")),
            ("requests in flight", Text(str(snapshot.in_flight))),
            ("scored", self._outcome(snapshot, "scored")),
            ("not committed yet", Text(f"{snapshot.uncommitted:,}")),
            ("review", self._outcome(snapshot, "review")),
            ("quota used", Text(self._quota_used(snapshot))),
            ("rejected", self._outcome(snapshot, "rejected")),
            ("elapsed", Text(self._elapsed())),
            ("called", Text(f"{snapshot.called:,}", style="cyan")),
            ("", Text("")),
        ]
        for (left, left_value), (right, right_value) in zip(pairs[::2], pairs[1::2], strict=True):
            numbers.add_row(left, left_value, right, right_value)
        state = Text(f"● {snapshot.trouble}", style="yellow") if snapshot.trouble else Text("● working", style="green")
        rows = Table.grid()
        # In a table, since a bar alone does not end its line.
        bar = ProgressBar(total=self._contacts, completed=snapshot.settled, width=_BAR_WIDTH)
        shown: list[RenderableType] = [bar, numbers, state]
        shown += (Text(scene, style="magenta") for scene in self._reported_scene())
        for row in shown:
            rows.add_row(row)
        return Panel(rows, title=f"scoring {self._contacts:,} contacts", expand=False)

    def _outcome(self, snapshot: Snapshot, outcome: str) -> Text:
        return Text(f"{snapshot.outcomes.get(outcome, 0):,}", style=dict(_OUTCOMES)[outcome])

    def _quota_used(self, snapshot: Snapshot) -> str:
        left = snapshot.quota_remaining
        return f"- of {self._quota:,}" if left is None else f"{max(self._quota - left, 0):,} of {self._quota:,}"

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"
