"""``stream-scorer rejected``: the contacts without a score, for an operator who repairs them."""

from __future__ import annotations

import getpass
import socket
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.options import (
    BatchOption,
    ConfigOption,
    ContactsArgument,
    EventOption,
    FormatOption,
    LimitOption,
    OutOption,
    PartitionOption,
    PlaceOption,
    SinceOption,
    UntilOption,
)
from stream_scorer.cli.output_formats import row_output
from stream_scorer.core.desk.decisions import Action
from stream_scorer.desk.rejected import DryRun, RejectedDesk, RejectedOptions
from stream_scorer.errors import UsageError
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from stream_scorer.desk.job import JobReport
    from stream_scorer.settings import Settings

app = typer.Typer(help="List, explain, repair and replay the contacts without a score.", no_args_is_help=True)

# Share of the own quota that a replay may use by default; a request holds up to scoring.max_contacts contacts.
_QUOTA_SHARE: Final = 0.1

ReasonOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--reason", metavar="REASON", help="Only with this reason. Repeat it for more.")
]
WhereOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPR", help="Only contacts for which this is true, such as 'features.age > 70'."),
]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
JobOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--job", metavar="NAME", help="Name of the job; with the name of an earlier one, it is resumed."),
]
OperatorOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--operator", metavar="NAME", help="Who decides, for the audit; by default user@host."),
]
RateOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--rate", metavar="N", min=0.01, help="Maximum number of contacts a second; by default 10 % of the quota."
    ),
]


@app.command()
@with_examples(
    "rejected replay --reason wrong_type --dry-run",
    "rejected replay C-10023 --set income=52000 --yes",
    "rejected replay --since 2h --where 'features.age > 70' --job monday --yes",
)
def replay(
    contacts: ContactsArgument = None,
    *,
    config: ConfigOption = None,
    reason: ReasonOption = None,
    where: WhereOption = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="F=V", help="Change a feature or another field. Repeat it for more."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="F", help="Remove a feature or an attribute. Repeat it for more."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be replayed, and its price. Nothing is written.")
    ] = False,
    max_replays: Annotated[
        int, typer.Option(metavar="N", min=1, help="Leave out contacts that were replayed so often.")
    ] = 3,
    rate: RateOption = None,
    job: JobOption = None,
    operator: OperatorOption = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Reason, for the audit.")] = "",
    yes: YesOption = False,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = None,
    partition: PartitionOption = None,
    place: PlaceOption = None,
    event: EventOption = None,
    batch: BatchOption = None,
    output: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Put rejected contacts back on the features topic, each exactly once.

    A contact that was replayed or discarded before is left out, so the command may be repeated. It may also be killed:
    the job is resumed by its name. --set changes a feature of the model, campaign_id, model_version, occurred_at or
    attributes.NAME; an empty value is null. Without it the bytes stay as they are.
    """
    settings = load_settings(config)
    options = RejectedOptions(
        contacts=tuple(contacts or ()),
        since=since,
        until=until,
        limit=limit,
        partition=partition,
        places=tuple(place or ()),
        events=tuple(event or ()),
        batches=tuple(batch or ()),
        reasons=tuple(reason or ()),
        where=where,
        sets=tuple(set_ or ()),
        drops=tuple(drop or ()),
        max_replays=max_replays,
    )
    options.check(settings.model.features)
    desk = RejectedDesk(settings)
    if dry_run:
        with row_output(output, out) as rows:
            rows.write(_prediction(desk.dry_run(options)))
        return
    if not yes:
        _confirm(f"{_sentence(desk.dry_run(options))}. Replay them?")
    name = job or _new_name("replay")
    report = desk.run(
        Action.REPLAYED,
        options,
        job=name,
        operator=operator or _operator(),
        note=note,
        per_second=rate or _default_rate(settings),
        progress=lambda _: None,
    )
    with row_output(output, out) as rows:
        rows.write(_result(name, report))


def _default_rate(settings: Settings) -> float:
    quota = settings.genesys.requests_per_minute
    return _QUOTA_SHARE * quota * settings.scoring.max_contacts / 60


def _operator() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _new_name(action: str) -> str:
    return time.strftime(f"{action}-%Y%m%d-%H%M%S", time.gmtime())


def _confirm(question: str) -> None:
    """Ask on a terminal.

    Raises:
        UsageError: there is no terminal to ask on.
        Abort: the answer is no.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nothing was changed: repeat the command with --yes, or look first with --dry-run")
    typer.confirm(question, abort=True, err=True)


def _sentence(found: DryRun) -> str:
    parts = [f"{found.passing:,} pass today's checks and are billed once each"]
    parts += [f"{count:,} would be rejected again ({reason})" for reason, count in found.failing.items()]
    parts += [f"{count:,} {reason}" for reason, count in found.skipped.items()]
    return "; ".join(parts)


def _prediction(found: DryRun) -> dict[str, object]:
    return {
        "pass": found.passing,
        "fail_again": dict(found.failing),
        "skipped": {str(reason): count for reason, count in found.skipped.items()},
        "billed_contacts": found.passing,
        "requests_at_least": found.requests,
    }


def _result(job: str, report: JobReport) -> dict[str, object]:
    skipped = {str(reason): count for reason, count in report.skipped.items() if count > 0}
    return {"job": job, "decided": report.decided, "skipped": skipped}
