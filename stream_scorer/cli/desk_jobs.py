"""What the commands share that decide something: names, the question before, and the report after."""

from __future__ import annotations

import getpass
import secrets
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeAlias

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from stream_scorer.cli.interrupts import Interruption, interrupting
from stream_scorer.cli.options import FormatOption, OutOption
from stream_scorer.cli.output_formats import row_output
from stream_scorer.desk.record_desk import NOTE_MISSING
from stream_scorer.errors import BrokerError, CheckFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from stream_scorer.cli.output_formats import OutputFormat
    from stream_scorer.core.desk.verdict import SkipReason
    from stream_scorer.desk.job import JobReport
    from stream_scorer.desk.record_desk import Prediction
    from stream_scorer.settings import Settings

# Share of the own quota that a replay may use by default; a request holds up to scoring.max_contacts contacts.
_QUOTA_SHARE: Final = 0.1

YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
JobOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--job", metavar="NAME", help="Name of the job; with the name of an earlier one, it is resumed."),
]
OperatorOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--operator", metavar="NAME", help="Who decides, for the audit; by default user@host."),
]
NoteOption: TypeAlias = Annotated[str, typer.Option("--note", metavar="TEXT", help="Reason, for the audit.")]
RequiredNoteOption: TypeAlias = Annotated[
    str,
    typer.Option("--note", metavar="TEXT", help="Reason, for the audit. Needed, unless a job is resumed."),
]
RateOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--rate",
        metavar="N",
        min=0.01,
        max=1_000_000,
        help="Maximum number of records a second; by default 10 % of the quota.",
    ),
]


@dataclass(frozen=True, slots=True)
class JobChoices:
    """How a job is run; see the options."""

    job: str | None
    operator: str | None
    rate: float | None
    yes: bool
    output: OutputFormat | None
    out: Path | None

    def check_note(self, note: str) -> None:
        """Check that a new job has a reason; that of a named one may have been given when it began.

        Raises:
            UsageError: it has none.
        """
        if self.job is None and not note.strip():
            raise UsageError(NOTE_MISSING)

    def confirm(self, question: Callable[[], str]) -> None:
        """Ask on the terminal, unless ``--yes`` was given.

        Raises:
            UsageError: there is no terminal to ask on.
            CheckFailed: the answer is no.
        """
        if self.yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError("nothing was changed: repeat the command with --yes, or look at what it selects first")
        if not typer.confirm(question(), err=True):
            raise CheckFailed("nothing was changed")


def job_choices(
    *,
    job: JobOption = None,
    operator: OperatorOption = None,
    rate: RateOption = None,
    yes: YesOption = False,
    output: FormatOption = None,
    out: OutOption = None,
) -> JobChoices:
    """Return the options of a job."""
    return JobChoices(job, operator, rate, yes, output, out)


class RunJob(Protocol):
    """A job with its selection, ready to run."""

    def __call__(
        self,
        *,
        job: str,
        is_named: bool,
        operator: str,
        per_second: float,
        progress: Callable[[int], None],
        checkpoint: Callable[[], None],
    ) -> JobReport:
        """Run it, and return its report."""


def run_job(run: RunJob, settings: Settings, action: str, choices: JobChoices) -> None:
    """Run a job, show its progress on a terminal, and print its report as a row."""
    # Two jobs of one second are two jobs: of one name, the second would resume the first.
    name = choices.job or f"{action}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,} records"))
    with row_output(choices.output, choices.out) as rows:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(f"job {name}")
            interruption = Interruption()
            try:
                with interrupting(interruption.note):
                    report = run(
                        job=name,
                        is_named=choices.job is not None,
                        operator=choices.operator or _operator(),
                        per_second=choices.rate or default_rate(settings),
                        progress=lambda decided: bar.update(task, completed=decided),
                        checkpoint=interruption.checkpoint,
                    )
            except KeyboardInterrupt:
                done = f"interrupted after {bar.tasks[0].completed:,.0f} records"
                typer.echo(f"{done}: to decide the rest, repeat the command with --job {name} --yes", err=True)
                raise
        skipped = {str(reason): count for reason, count in report.skipped.items() if count > 0}
        rows.write({"job": name, "decided": report.decided, "skipped": skipped})


def prediction_text(found: Prediction, what: str) -> str:
    """Return the beginning of the question before a job; ``what``: what would happen to the records."""
    return "; ".join((f"{found.records:,} {what}", *skipped_texts(found.skipped)))


def skipped_texts(skipped: Mapping[SkipReason, int]) -> list[str]:
    """Return how many records are not decided, a text for each reason."""
    return [f"{count:,} {reason}" for reason, count in skipped.items()]


def print_waiting(state: str, noun: str, count: Callable[[], Mapping[str, int]], group_id: str) -> None:
    """Print on standard error how many records wait in each retry topic, which need no decision.

    Args:
        state: why they wait, such as ``deferred``.
        noun: what they are, such as ``contacts``.
        count: counts them by topic, or raises `BrokerError`.
        group_id: the group to which they belong.
    """
    try:
        waiting = count()
    except BrokerError:
        needed = f"that needs Describe on group {group_id} and an answer of Kafka"
        typer.echo(f"{state} {noun} are not counted: {needed}", err=True)
        return
    for topic, records in waiting.items():
        typer.echo(f"{state}: {records:,} {noun} wait in {topic}", err=True)


def default_rate(settings: Settings) -> float:
    """Return how many contacts a second use a tenth of the own quota in full requests."""
    return _QUOTA_SHARE * settings.genesys.requests_per_minute * settings.scoring.max_contacts / 60


def _operator() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
