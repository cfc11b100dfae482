"""``stream-scorer status``: lag, time left and waiting records of the groups, and the state of their workers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple, Protocol

import typer
from pydantic import TypeAdapter, ValidationError
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.options import ConfigOption
from stream_scorer.cli.standard_streams import SafeStream
from stream_scorer.core.desk.group_lag import (
    GroupOffsets,
    Pace,
    Reading,
    duration_text,
    group_pace,
    partition_paces,
)
from stream_scorer.core.desk.progress import rate_text
from stream_scorer.desk.admin_port import WorkerStatus, read_workers
from stream_scorer.desk.group_status import GroupStatus
from stream_scorer.errors import NotJudged, UsageError
from stream_scorer.settings import load_settings
from stream_scorer.settings.types import BaseUrl

# Wide enough for every column without a terminal, so that no cell wraps in a file.
_FILE_WIDTH: Final = 160
_LOOK: Final[Mapping[str, Any]] = MappingProxyType({"box": box.SIMPLE_HEAD, "padding": (0, 2, 0, 0), "pad_edge": False})
_COMMANDS: Final = MappingProxyType({"scoring": "run", "planner": "callbacks", "deliverer": "callbacks"})
# How often the end of a pipe's reader is looked for.
_LOOK_S: Final = 0.2

AdminOption = Annotated[
    list[str] | None,
    typer.Option(
        "--admin", metavar="URL", help="Admin port of a worker, such as http://scorer-0:9464. Repeat it for more."
    ),
]


@with_examples(
    "status --config scorer.toml",
    "status --config scorer.toml --watch --interval 5 --admin http://127.0.0.1:9464 --admin http://127.0.0.1:9465",
    "status --config scorer.toml --json",
)
def status(
    *,
    config: ConfigOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat it until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.5, max=3600, help="Time between two readings.")
    ] = 2.0,
    admin: AdminOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: one object; with --watch one line a reading.")
    ] = False,
) -> None:
    """Print how far the workers are: lag, rate, time left and member of each partition, and what waits to be retried.

    Everything is read from Kafka: the commits and members of the groups and the ends of their topics, twice, because
    rate and time left follow from the difference. The groups of the campaign worker are included if they have commits.
    Nothing is changed. With --admin, the state of each worker is added: circuit breaker, quota, callbacks.

    With --watch a terminal shows the present state. Elsewhere each reading is one line.

    Exit code 3: the state could not be read, because Kafka does not answer or the group has no commits.
    """
    urls = [_admin_url(url) for url in admin or ()]
    reader = GroupStatus(load_settings(config), timeout_s=10.0)
    first = reader.read()
    if watch:
        _watch(reader, first, urls, interval_s, as_json=as_json)
        return
    before = None
    if first.lag:
        time.sleep(interval_s)
        before, first = first, reader.read()
    state = State(before, first, read_workers(urls), _now())
    if as_json:
        typer.echo(json.dumps(state.as_dict(), indent=2, ensure_ascii=False))
    else:
        console = Console()
        console = console if console.is_terminal else Console(width=_FILE_WIDTH)
        console.print(*renderables(state), sep="\n")


def _admin_url(url: str) -> str:
    try:
        return str(TypeAdapter(BaseUrl).validate_python(url))
    except ValidationError:
        raise UsageError(
            "--admin: must be the URL of an admin port, such as http://127.0.0.1:9464, without credentials"
        ) from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class State(NamedTuple):
    """What is printed: two readings (``before``: None: there was one only) and the workers."""

    before: Reading | None
    after: Reading
    workers: tuple[WorkerStatus, ...]
    read_at: str

    def pace(self, loop: str) -> Pace:
        """Return the pace of a group."""
        return group_pace(self.before, self.after, loop)

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "read_at": self.read_at,
            "groups": [self._group(group) for group in self.after.groups],
            "workers": [worker.as_dict() for worker in self.workers],
        }

    def _group(self, group: GroupOffsets) -> dict[str, Any]:
        paces = partition_paces(self.before, self.after, group.loop)
        return {
            "loop": group.loop,
            "group_id": group.group_id,
            "topic": group.topic,
            **self.pace(group.loop)._asdict(),
            "members": None if group.members is None else [member._asdict() for member in group.members],
            "partitions": [
                {"partition": number, "committed": one.committed, "end": one.end, **paces[number]._asdict()}
                for number, one in group.partitions.items()
            ],
            "waiting": None if group.waiting is None else dict(group.waiting),
            "notes": list(group.notes),
        }


# --- text


def renderables(state: State) -> Iterator[RenderableType]:
    """Yield the parts of the text: a heading and a table for each group, then the workers."""
    for group in state.after.groups:
        pace = state.pace(group.loop)
        members = _members(group)
        yield Text(f"{group.loop}: {members}, group {group.group_id} on {group.topic}, {state.read_at}", style="bold")
        yield _partitions(state, group, pace)
        if group.waiting is not None:
            yield Text(f"waiting in retry topics: {_waiting(group)}")
        if group.is_stopped:
            yield Text(f"no member reads it: start `stream-scorer {_COMMANDS[group.loop]}`", style="red")
        for note in group.notes:
            yield Text(f"note: {note}", style="yellow")
        yield Text()
    for worker in state.workers:
        yield Text(worker_line(worker), style="" if worker.is_ready else "red")
        for note in worker.notes:
            yield Text(f"  {note}")


def _partitions(state: State, group: GroupOffsets, total: Pace) -> Table:
    table = Table(**_LOOK)
    with_owners = bool(group.members)
    for name in ("partition", "committed", "end", "lag", "rate", "time left"):
        table.add_column(name, justify="right", overflow="fold")
    if with_owners:
        table.add_column("member", overflow="fold")
    paces = partition_paces(state.before, state.after, group.loop)
    for number, one in group.partitions.items():
        committed = "none" if one.committed is None else f"{one.committed:,}"
        owners = [", ".join(group.owners(number)) or "none"] if with_owners else []
        table.add_row(str(number), committed, f"{one.end:,}", *_cells(paces[number]), *owners)
    if len(group.partitions) > 1:
        table.add_section()
        table.add_row("all", "", "", *_cells(total), style="bold")
    return table


def _members(group: GroupOffsets) -> str:
    return f"members {'unknown' if group.members is None else len(group.members)}"


def _cells(pace: Pace) -> tuple[str, str, str]:
    rate = "" if pace.rate_per_s is None else rate_text(pace.rate_per_s)
    return f"{pace.lag:,}", rate, _left(pace)


def _left(pace: Pace) -> str:
    if pace.time_left_s is not None:
        return duration_text(pace.time_left_s)
    return "" if pace.rate_per_s is None else "does not fall"


def _waiting(group: GroupOffsets) -> str:
    return ", ".join(f"{topic} {amount:,}" for topic, amount in (group.waiting or {}).items()) or "there are none"


def worker_line(worker: WorkerStatus) -> str:
    """Return the state of a worker as one line."""
    parts = [worker.url, "ready" if worker.is_ready else worker.detail]
    if worker.quota_used is not None:
        parts.append(f"quota {worker.quota_used:,}/{worker.quota_allowed or 0:,}")
    if worker.is_ready is not None:
        breakers = ", ".join(worker.open_breakers)
        parts.append(f"circuit open: {breakers}" if breakers else "circuit closed")
    if worker.callbacks is not None:
        parts += [f"{name.replace('_', ' ')} {value:,}" for name, value in worker.callbacks.items()]
    return "  ".join(parts)


def state_line(state: State) -> str:
    """Return the state as one line."""
    parts = [state.read_at]
    for group in state.after.groups:
        pace = state.pace(group.loop)
        parts += [f"{group.loop} lag {pace.lag:,}", _members(group)]
        if pace.rate_per_s is not None:
            parts.append(rate_text(pace.rate_per_s))
        if pace.lag and (left := _left(pace)):
            parts.append(f"time left {left}" if pace.time_left_s is not None else left)
        if group.waiting is not None:
            parts.append(f"waiting {sum(group.waiting.values()):,}")
    if state.workers:
        ready = sum(worker.is_ready is True for worker in state.workers)
        parts.append(f"ready {ready} of {len(state.workers)} workers")
    return "  ".join(parts)


# --- repeated


class _Show(Protocol):
    def __call__(self, state: State | str) -> None:
        """Show a state, or why there is none."""


def _watch(reader: GroupStatus, first: Reading, urls: Sequence[str], interval_s: float, *, as_json: bool) -> None:
    """Show the state again and again, until Ctrl-C or until the reader of the pipe has ended."""
    before: Reading | None = None
    after: Reading | None = first
    unread = ""
    with _display(as_json=as_json) as show:
        while True:
            began_at = time.monotonic()
            show(unread if after is None else State(before, after, read_workers(urls), _now()))
            if not _slept(began_at + interval_s):
                return
            before = after or before
            try:
                after = reader.read()
            except NotJudged as error:  # the broker may be away for a moment
                after, unread = None, f"{_now()}  {error}"


def _slept(until: float) -> bool:
    """Sleep; False: nothing reads standard output any more."""
    while True:
        stream: object = sys.stdout
        if isinstance(stream, SafeStream) and stream.is_reader_gone:
            return False
        left_s = until - time.monotonic()
        if left_s <= 0:
            return True
        time.sleep(min(left_s, _LOOK_S))


@contextmanager
def _display(*, as_json: bool) -> Iterator[_Show]:
    console = Console()
    if as_json or not console.is_terminal:

        def write(state: State | str) -> None:
            if isinstance(state, str):
                typer.echo(state, err=True)
                return
            typer.echo(json.dumps(state.as_dict(), ensure_ascii=False) if as_json else state_line(state))
            sys.stdout.flush()

        yield write
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:

        def draw(state: State | str) -> None:
            shown = Text(state, style="red") if isinstance(state, str) else Group(*renderables(state))
            live.update(shown, refresh=True)

        yield draw
