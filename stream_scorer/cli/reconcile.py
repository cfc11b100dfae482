"""``stream-scorer reconcile``: proves on the live topics that nothing was lost or doubled, up to the receipts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stream_scorer.cli.options import ConfigOption
from stream_scorer.core.callback_findings import CallbackReport
from stream_scorer.core.findings import PartitionReport, Report
from stream_scorer.errors import BrokerRefused, CheckFailed, NothingToCheck
from stream_scorer.kafka.topics import existing_topics
from stream_scorer.reconciliation import Progress as Tell
from stream_scorer.reconciliation import reconcile as reconcile_topics
from stream_scorer.reconciliation import reconcile_callbacks
from stream_scorer.settings import Settings, load_settings

_SHOWN: Final = 20
# Wide enough for every column where there is no terminal: nothing is folded in a file.
_FILE_WIDTH: Final = 160
_COLUMNS: Final = {
    "partition": "partition",
    "start": "start",
    "committed": "committed",
    "inputs": "inputs",
    "scored": "scored",
    "review": "review",
    "rejected": "rejected",
    "audited": "audit entries",
    "deferred": "deferred",
    "missing": "missing",
    "doubled": "doubled",
    "early": "early",
    "out_of_order": "out of order",
    "waiting": "waiting",
}
_LOOK: Final[Mapping[str, Any]] = MappingProxyType({"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False})
_VIOLATIONS: Final = frozenset({"missing", "doubled", "early", "out_of_order"})


def reconcile(
    *,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long to wait for open transactions.")
    ] = 60.0,
) -> None:
    """Prove on the live topics that every contact has exactly one outcome.

    Reads the group's commits, waits until the outputs are stable, reads them, and reads the commits again. Every record
    below the first commits must have exactly one score, review or rejection and one audit entry, or wait in exactly one
    retry topic; none above the second may have any; and the audit's hash chains must be whole. Where a campaign worker
    has run, every score at or over callbacks.threshold must have exactly one receipt, or wait to be delivered. The exit
    code is 1 where that does not hold. Nothing is written, and the workers may go on meanwhile.
    """
    settings = load_settings(config)
    with _progress(Console(stderr=True)) as progress:
        report, callbacks = _reconcile_both(settings, progress, timeout_s)
    if as_json:
        both = {} if report is None else report.as_dict()
        both["callbacks"] = None if callbacks is None else callbacks.as_dict()
        typer.echo(json.dumps(both, indent=2))
    else:
        console = Console()
        console = console if console.is_terminal else Console(width=_FILE_WIDTH)
        if report is None:
            console.print(f"note: group {settings.kafka.group_id} has scored nothing here", highlight=False)
        else:
            print_report(report, console)
        if callbacks is not None:
            print_callbacks(callbacks, console)
    broken = [one.verdict for one in (report, callbacks) if one is not None and not one.holds]
    if broken:
        raise CheckFailed("; ".join(broken))


def _reconcile_both(
    settings: Settings, progress: Tell, timeout_s: float
) -> tuple[Report | None, CallbackReport | None]:
    """Both sides, or the one that has worked on this cluster: the scoring worker may have its own."""
    try:
        report = reconcile_topics(settings, progress=progress, timeout_s=timeout_s)
    except (NothingToCheck, BrokerRefused) as error:
        missing = not existing_topics(settings, [settings.topics.features])
        callbacks_only = (missing or isinstance(error, NothingToCheck)) and existing_topics(
            settings, [settings.topics.scores]
        )
        callbacks = reconcile_callbacks(settings, progress=progress, timeout_s=timeout_s) if callbacks_only else None
        if callbacks is None:
            raise
        return None, callbacks
    return report, reconcile_callbacks(settings, progress=progress, timeout_s=timeout_s)


def print_report(report: Report, console: Console) -> None:
    """Print the table, the equation, notes and findings."""
    console.print(_table(report, console))
    console.print(report.equation, highlight=False)
    console.print(
        f"{report.audit_events:,} audit events in {report.chains:,} hash chains; not judged: {report.before:,} outputs"
        f" from before this group, {report.foreign:,} of other sources",
        highlight=False,
        soft_wrap=True,
    )
    _print_judgement(report, sum(report.counts.values()), console)


def print_callbacks(report: CallbackReport, console: Console) -> None:
    """Print what became of the scores that call."""
    counts = report.counts
    console.print(report.equation, highlight=False)
    console.print(
        f"{counts.callbacks:,} callbacks; {counts.unusable:,} records are no score; not judged: {report.before:,} from"
        f" before this group, {report.below:,} below the threshold, {report.foreign:,} of other sources",
        highlight=False,
        soft_wrap=True,
    )
    _print_judgement(report, sum(report.violations.values()), console)


def _print_judgement(report: Report | CallbackReport, found: int, console: Console) -> None:
    """Print what limits the statement, the findings, and that it holds if it does."""
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    for finding in report.findings[:_SHOWN]:
        console.print(str(finding), markup=False, highlight=False, soft_wrap=True, style="red")
    more = found - min(len(report.findings), _SHOWN)
    if more:
        console.print(f"… and {more:,} more", style="red")
    if report.holds:
        console.print(report.verdict, markup=False, highlight=False, soft_wrap=True, style="green")


def _table(report: Report, console: Console) -> Table:
    """A row for each partition; where the console is too narrow for that, a column."""
    wide = _wide(report)
    return wide if console.measure(wide, options=_unbounded(console)).maximum <= console.width else _narrow(report)


def _unbounded(console: Console) -> ConsoleOptions:
    return console.options.update(width=_FILE_WIDTH)


def _wide(report: Report) -> Table:
    table = Table(**_LOOK)
    for title in _COLUMNS.values():
        table.add_column(title, justify="right", overflow="fold")
    for partition in report.partitions:
        table.add_row(*_cells(partition))
    if len(report.partitions) > 1:
        # A footer would stand apart from what it sums up.
        table.add_section()
        table.add_row(*_cells(report.totals), style="bold")
    return table


def _narrow(report: Report) -> Table:
    columns = [[Text(title) for title in _COLUMNS.values()]]
    columns += [list(_cells(partition)) for partition in report.partitions]
    if len(report.partitions) > 1:
        columns.append(list(_cells(report.totals)))
    rows = list(zip(*columns, strict=True))
    table = Table(**_LOOK)
    for number, title in enumerate(rows[0]):
        table.add_column(title, justify="right" if number else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _cells(partition: PartitionReport) -> Iterator[Text]:
    for name in _COLUMNS:
        value = getattr(partition, name)
        text = ("all" if name == "partition" else "") if value is None else f"{value:,}"
        yield Text(text, style="red" if value and name in _VIOLATIONS else "")


@contextmanager
def _progress(console: Console) -> Iterator[Tell]:
    """Show a bar on a terminal, and nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("waiting for open transactions", total=None)

        def tell(doing: str, done: int, total: int) -> None:
            bar.update(task, description=f"reading {doing}", completed=done, total=total)

        yield tell
