"""Progress display: on a terminal a live panel, elsewhere (a log) some lines every few seconds."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stream_scorer.local.demo.story import print_plain, shortened

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console, RenderableType

    from stream_scorer.local.demo.monitor import Snapshot

_LINE_EVERY_S: Final = 3.0
_BAR_WIDTH: Final = 60
# At most: on a wide terminal a long reason would widen the panel for a moment.
_PANEL_WIDTH: Final = 78
_OUTCOMES: Final = (("scored", "green"), ("review", "yellow"), ("rejected", "red"))


class ProgressView(AbstractContextManager["ProgressView"]):
    """Display of snapshots until the end of the ``with`` block; the last one stays on the screen.

    Args:
        console: the output.
        contacts: total number of contacts.
        quota: requests a minute.
        began: monotonic seconds of the demo's begin.
        scene: returns the current step of the scenario; None: there is none.
    """

    def __init__(
        self, console: Console, *, contacts: int, quota: int, began: float, scene: Callable[[], str] | None = None
    ) -> None:
        self._scene = scene
        self._console = console
        self._contacts = contacts
        self._quota = quota
        self._began = began
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

    def _print(self, lines: str) -> None:
        print_plain(self._console, lines)

    def _line(self, snapshot: Snapshot) -> str:
        """Return lines of at most 80 columns: the contacts, the state, and what is wrong if anything is."""
        workers = snapshot.workers
        numbers = [
            f"read {self._read(snapshot):,} of {self._contacts:,}",
            *(f"{outcome} {snapshot.outcomes.get(outcome, 0):,}" for outcome, _ in _OUTCOMES),
        ]
        state = [
            f"called {snapshot.called:,}",
            *([] if snapshot.queued is None else [f"queue {snapshot.queued:,}"]),
            f"in flight {workers.in_flight}",
            f"quota {self._quota_used(snapshot)}",
            *([] if workers.trouble else ["working"]),
        ]
        rows = [f"{self._elapsed():>8}  {'  '.join(numbers)}", f"{'':10}{'  '.join(state)}"]
        rows += (f"{'':10}{line}" for line in (workers.trouble, *self._reported_scene()) if line)
        return "\n".join(shortened(row) for row in rows)

    def _read(self, snapshot: Snapshot) -> int:
        # Records of retry topics, and those read again after a kill, are counted more than once.
        return min(snapshot.workers.read, self._contacts)

    def _reported_scene(self) -> list[str]:
        return [] if self._scene is None else [f"[scenario: {self._scene()}]"]

    def _panel(self, snapshot: Snapshot) -> Panel:
        numbers = Table.grid(padding=(0, 3), expand=False)
        for _ in range(2):
            numbers.add_column(style="dim")
            numbers.add_column(justify="right", min_width=9)
        pairs = [
            ("read", Text(f"{self._read(snapshot):,}")),
            ("requests in flight", Text(str(snapshot.workers.in_flight))),
            ("scored", self._outcome(snapshot, "scored")),
            ("not committed yet", Text(f"{snapshot.workers.uncommitted:,}")),
            ("review", self._outcome(snapshot, "review")),
            ("quota used", Text(self._quota_used(snapshot))),
            ("rejected", self._outcome(snapshot, "rejected")),
            ("elapsed", Text(self._elapsed())),
            ("called", Text(f"{snapshot.called:,}", style="cyan")),
            ("" if snapshot.queued is None else "dial queue", Text(self._queue(snapshot), style="cyan")),
        ]
        for (left, left_value), (right, right_value) in zip(pairs[::2], pairs[1::2], strict=True):
            numbers.add_row(left, left_value, right, right_value)
        trouble = snapshot.workers.trouble
        state = Text(f"● {trouble}", style="yellow") if trouble else Text("● working", style="green")
        rows = Table.grid()
        # In a table, since a bar alone does not end its line.
        bar = ProgressBar(total=self._contacts, completed=snapshot.settled, width=_BAR_WIDTH)
        shown: list[RenderableType] = [bar, numbers, state]
        shown += (Text(scene, style="magenta") for scene in self._reported_scene())
        for row in shown:
            rows.add_row(row)
        return Panel(rows, title=f"scoring {self._contacts:,} contacts", expand=False, width=_PANEL_WIDTH)

    def _outcome(self, snapshot: Snapshot, outcome: str) -> Text:
        return Text(f"{snapshot.outcomes.get(outcome, 0):,}", style=dict(_OUTCOMES)[outcome])

    def _queue(self, snapshot: Snapshot) -> str:
        return "" if snapshot.queued is None else f"{snapshot.queued:,}"

    def _quota_used(self, snapshot: Snapshot) -> str:
        left = snapshot.workers.quota_remaining
        return f"- of {self._quota:,}" if left is None else f"{max(self._quota - left, 0):,} of {self._quota:,}"

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"
