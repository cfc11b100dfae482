"""``stream-scorer reconcile``: proves on the live topics that no contact is lost, doubled or changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich import box
from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from stream_scorer import __version__
from stream_scorer.cli.options import ConfigOption
from stream_scorer.core.reconciliation.callback_report import CallbackReport
from stream_scorer.core.reconciliation.score_report import Judgement, PartitionReport, Provenance, Report
from stream_scorer.errors import (
    BrokerRefused,
    BrokerUnavailable,
    CheckFailed,
    NothingToCheck,
    NotJudged,
    RegistryUnavailable,
    StreamScorerError,
)
from stream_scorer.kafka.admin.topics import existing_topics
from stream_scorer.reconciliation import Progress as ReportProgress
from stream_scorer.reconciliation import provenance, reconcile_callbacks
from stream_scorer.reconciliation import reconcile as reconcile_topics
from stream_scorer.settings import Settings, load_settings

_SHOWN: Final = 20
# Wide enough for every column without a terminal, so that no cell wraps in a file.
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
    "not_judged": "not judged",
    "lost": "lost",
    "doubled": "doubled",
    "early": "early",
    "out_of_order": "out of order",
    "waiting": "waiting",
}
_LOOK: Final[Mapping[str, Any]] = MappingProxyType({"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False})
# Shown only if they are not zero.
_RARE: Final = frozenset({"not_judged", "lost"})
_VIOLATIONS: Final = frozenset({"missing", "lost", "doubled", "early", "out_of_order"})


def reconcile(
    *,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long to wait for open transactions.")
    ] = 60.0,
) -> None:
    """Prove on the live topics that every contact has exactly one outcome, and that it is the right one.

    Reads the group's commits, waits until the outputs are stable, reads them, and reads the commits again. Every record
    below the first commits must have exactly one score, review or rejection and one audit entry, or wait in exactly one
    retry topic. No record above the second commits may have an outcome. The values must match the input and the audit
    entry, and the audit's hash chains must be whole. If a campaign worker has run, every score at or over
    callbacks.threshold must have exactly one receipt, or wait for delivery. The command writes nothing, and workers may
    run meanwhile.

    Exit codes: 0 all of that holds; 1 it does not hold; 3 some or all contacts cannot be judged: the group has no
    commits (a mistyped kafka.group_id), outcomes are deleted by retention or removed by compaction, a transaction stays
    open, or Kafka does not answer.
    """
    settings = load_settings(config)
    with _progress(Console(stderr=True)) as progress:
        try:
            origin = provenance(settings, __version__)
            result = _reconcile_both(settings, progress, timeout_s)
        except (BrokerUnavailable, RegistryUnavailable) as error:
            raise NotJudged(str(error)) from None
    failure = _failure(result)
    if as_json:
        typer.echo(json.dumps(_as_dict(result, origin, failure), indent=2))
    else:
        _print(result, origin)
    if failure is not None:
        raise failure


class _Result(NamedTuple):
    """Reports of contacts and callbacks; ``unjudged`` is the reason for a missing report of the contacts.

    No report and an empty reason: this cluster has no features topic.
    """

    report: Report | None
    callbacks: CallbackReport | None
    unjudged: str = ""


def _reconcile_both(settings: Settings, progress: ReportProgress, timeout_s: float) -> _Result:
    """Reconcile both workers, or the only one on this cluster: the scoring worker may use another."""
    try:
        report = reconcile_topics(settings, progress=progress, timeout_s=timeout_s)
    except (NothingToCheck, BrokerRefused) as error:
        present = existing_topics(settings, [settings.topics.features, settings.topics.scores])
        if settings.topics.scores not in present or (isinstance(error, BrokerRefused) and len(present) > 1):
            raise
        try:
            callbacks = reconcile_callbacks(settings, progress=progress, timeout_s=timeout_s)
        except NothingToCheck:
            callbacks = None
        if callbacks is None:
            raise
        return _Result(None, callbacks, str(error) if isinstance(error, NothingToCheck) else "")
    return _Result(report, reconcile_callbacks(settings, progress=progress, timeout_s=timeout_s))


def _failure(result: _Result) -> StreamScorerError | None:
    """Return the error of a result; None: everything holds. A violation precedes what cannot be judged."""
    reports = [one for one in (result.report, result.callbacks) if one is not None]
    broken = [one.verdict for one in reports if one.judgement is Judgement.BROKEN]
    if broken:
        return CheckFailed("; ".join(broken))
    unjudged = [result.unjudged] if result.unjudged else []
    unjudged += [one.verdict for one in reports if one.judgement is Judgement.NOT_JUDGED]
    return NotJudged("; ".join(unjudged)) if unjudged else None


def _as_dict(result: _Result, origin: Provenance, failure: StreamScorerError | None) -> dict[str, Any]:
    return {
        **origin.as_dict(),
        "exit_code": 0 if failure is None else failure.exit_code,
        **({} if result.report is None else result.report.as_dict()),
        "callbacks": None if result.callbacks is None else result.callbacks.as_dict(),
    }


def _print(result: _Result, origin: Provenance) -> None:
    console = Console()
    console = console if console.is_terminal else Console(width=_FILE_WIDTH)
    console.print(str(origin), markup=False, highlight=False, soft_wrap=True)
    if result.report is not None:
        print_report(result.report, console)
    elif not result.unjudged:
        console.print(f"note: group {origin.group_id} has scored nothing here", markup=False, highlight=False)
    if result.callbacks is not None:
        print_callbacks(result.callbacks, console)


def print_report(report: Report, console: Console) -> None:
    """Print the table, the equation, notes and findings."""
    console.print(_table(report, console))
    console.print(report.equation, highlight=False)
    chains = "1 hash chain" if report.chains == 1 else f"{report.chains:,} hash chains"
    console.print(
        f"{report.audit_events:,} audit events in {chains}; not judged: {report.before:,} outputs from before this"
        f" group, {report.foreign:,} of other sources",
        highlight=False,
        soft_wrap=True,
    )
    _print_judgement(report, sum(report.counts.values()), console)


def print_callbacks(report: CallbackReport, console: Console) -> None:
    """Print the counts and findings of the scores at or over the threshold."""
    counts = report.counts
    console.print(report.equation, highlight=False)
    again = f", {counts.redeliveries:,} deliveries by an operator's decision" if counts.redeliveries else ""
    console.print(
        f"{counts.callbacks:,} callbacks{again}; {counts.unusable:,} records are no score;"
        f" not judged: {report.before:,} from before this group, {report.below:,} below the threshold,"
        f" {report.foreign:,} of other sources",
        highlight=False,
        soft_wrap=True,
    )
    _print_judgement(report, sum(report.violations.values()), console)


def _print_judgement(report: Report | CallbackReport, found: int, console: Console) -> None:
    """Print notes that limit the result, the findings, and the verdict if everything holds."""
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    for finding in report.findings[:_SHOWN]:
        console.print(str(finding), markup=False, highlight=False, soft_wrap=True, style="red")
    more = found - min(len(report.findings), _SHOWN)
    if more:
        console.print(f"… and {more:,} more", style="red")
    if report.is_balanced:
        console.print(report.verdict, markup=False, highlight=False, soft_wrap=True, style="green")


def _table(report: Report, console: Console) -> Table:
    """Return a table with a row a partition; on a narrow console, with a column a partition."""
    wide = _wide(report)
    return wide if console.measure(wide, options=_unbounded(console)).maximum <= console.width else _narrow(report)


def _unbounded(console: Console) -> ConsoleOptions:
    return console.options.update(width=_FILE_WIDTH)


def _wide(report: Report) -> Table:
    table = Table(**_LOOK)
    names = _names(report)
    for name in names:
        table.add_column(_COLUMNS[name], justify="right", overflow="fold")
    for partition in report.partitions:
        table.add_row(*_cells(partition, names))
    if len(report.partitions) > 1:
        # A footer would be separated from the rows that it sums up.
        table.add_section()
        table.add_row(*_cells(report.totals, names), style="bold")
    return table


def _narrow(report: Report) -> Table:
    names = _names(report)
    columns = [[Text(_COLUMNS[name]) for name in names]]
    columns += [list(_cells(partition, names)) for partition in report.partitions]
    if len(report.partitions) > 1:
        columns.append(list(_cells(report.totals, names)))
    rows = list(zip(*columns, strict=True))
    table = Table(**_LOOK)
    for number, title in enumerate(rows[0]):
        table.add_column(title, justify="right" if number else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _names(report: Report) -> list[str]:
    """Return the columns of a report: rare ones only if they are not zero."""
    totals = report.totals
    return [name for name in _COLUMNS if name not in _RARE or getattr(totals, name)]


def _cells(partition: PartitionReport, names: Iterable[str]) -> Iterator[Text]:
    for name in names:
        value = getattr(partition, name)
        text = ("all" if name == "partition" else "") if value is None else f"{value:,}"
        yield Text(text, style="red" if value and name in _VIOLATIONS else "")


@contextmanager
def _progress(console: Console) -> Iterator[ReportProgress]:
    """Show a bar on a terminal, and nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("waiting for open transactions", total=None)

        def report_progress(doing: str, done: int, total: int) -> None:
            bar.update(task, description=f"reading {doing}", completed=done, total=total)

        yield report_progress
