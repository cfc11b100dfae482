"""``stream-scorer rejected``: the contacts without a score, for an operator who repairs them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from stream_scorer.cli.desk_jobs import (
    JobChoices,
    NoteOption,
    RequiredNoteOption,
    job_choices,
    prediction_text,
    print_waiting,
    run_job,
    skipped_texts,
)
from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.explanation_text import text_line, write_explanations
from stream_scorer.cli.options import ConfigOption, FormatOption, OutOption, contact_options
from stream_scorer.cli.output_formats import row_output, to_json
from stream_scorer.cli.shared_options import sharing
from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.explanation import OK
from stream_scorer.core.desk.record_counts import GroupBy, campaign_name
from stream_scorer.core.desk.record_rows import iso_time
from stream_scorer.desk.rejected import MAX_REPLAYS, RejectedDesk, RejectedOptions
from stream_scorer.errors import UsageError, printable
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.core.desk.explanation import Explanation
    from stream_scorer.desk.rejected import DryRun

app = typer.Typer(help="List, explain, repair and replay the contacts without a score.", no_args_is_help=True)

_AUDITED: Final = ("batch_id", "model_id", "model_version", "api_status", "attempts", "correlation_id", "outcome")

ReasonOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--reason", metavar="REASON", help="Only with this reason. Repeat it for more.")
]
WhereOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPR", help="Only contacts for which this is true, such as: features['age'] > 70"),
]
MaxReplaysOption: TypeAlias = Annotated[
    int, typer.Option("--max-replays", metavar="N", min=1, help="A contact that was replayed so often is parked.")
]


@sharing(chosen=contact_options)
def selection(*, chosen: dict[str, Any], reason: ReasonOption = None, where: WhereOption = None) -> RejectedOptions:
    """Return the options that select rejected contacts, checked as far as they need no cluster."""
    options = RejectedOptions(**chosen, reasons=tuple(reason or ()), where=where)
    options.check()
    return options


@app.command("list")
@with_examples(
    "rejected list",
    "rejected list --by hour --since 24h",
    "rejected list --reason wrong_type --by campaign -o csv --out wrong-type.csv",
)
@sharing(options=selection)
def list_(
    options: RejectedOptions,
    *,
    config: ConfigOption = None,
    by: Annotated[GroupBy, typer.Option("--by", help="Count by this.")] = GroupBy.REASON,
    max_replays: MaxReplaysOption = MAX_REPLAYS,
    output: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Count the rejected contacts, with share, state, first, last and an example of each group.

    Open records wait for a decision; parked ones were replayed --max-replays times and rejected again. A line on
    standard error has the number of deferred contacts, which wait in retry topics and need no decision.
    """
    settings = load_settings(config)
    desk = RejectedDesk(settings)
    with row_output(output, out, empty="no rejected contacts") as rows:
        for row in desk.counts(replace(options, max_replays=max_replays), by).rows():
            rows.write(row)
    print_waiting("deferred", "contacts", desk.waiting, settings.kafka.group_id)


@app.command()
@with_examples(
    "rejected explain C-10023",
    "rejected explain --place contact-features-rejected/0/17",
    "rejected explain --reason out_of_range --limit 3 -o json",
)
@sharing(options=selection)
def explain(
    options: RejectedOptions,
    *,
    config: ConfigOption = None,
    max_replays: MaxReplaysOption = MAX_REPLAYS,
    output: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Explain why contacts were rejected, and give the command that repairs each.

    Shows each feature against today's rules, the API's answer, the audit entry, the verdict under today's settings, and
    what to do. Text, unless --output or --out is given.
    """
    if not options.given:
        raise UsageError("name a contact, or select records with an option such as --reason or --place")
    settings = load_settings(config)
    desk = RejectedDesk(settings)
    found = desk.explanations(replace(options, max_replays=max_replays))
    not_found = partial(desk.not_found, options)
    write_explanations(found, lines=_lines, row=_row, output=output, out=out, not_found=not_found)


@app.command()
@with_examples(
    "rejected replay --reason wrong_type --dry-run",
    "rejected replay C-10023 --set income=52000 --yes",
    "rejected replay --since 2h --where \"features['age'] > 70\" --job monday --yes",
)
@sharing(options=selection, choices=job_choices)
def replay(
    options: RejectedOptions,
    choices: JobChoices,
    *,
    config: ConfigOption = None,
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
    max_replays: MaxReplaysOption = MAX_REPLAYS,
    note: NoteOption = "",
) -> None:
    """Put rejected contacts back on the features topic, each exactly once.

    A contact that was replayed or discarded before is left out, so the command may be repeated. It may also be killed:
    the job is resumed by its name. --set changes a feature of the model, campaign_id, model_version, occurred_at or
    attributes.NAME; an empty value is null. Without it the bytes stay as they are. Without --yes the command shows
    what it would do, and asks.
    """
    settings = load_settings(config)
    options = replace(options, sets=tuple(set_ or ()), drops=tuple(drop or ()), max_replays=max_replays)
    options.changes(settings.model.features)
    desk = RejectedDesk(settings)

    def predicted() -> DryRun:
        return desk.dry_run(desk.plan(Action.REPLAYED, options, choices.job))

    if dry_run:
        with row_output(choices.output, choices.out) as rows:
            rows.write(_prediction(predicted()))
        return
    choices.confirm(lambda: f"{_sentence(predicted())}. Replay them?")
    run_job(partial(desk.run, Action.REPLAYED, options, note=note), settings, "replay", choices)


@app.command()
@with_examples(
    "rejected discard --place contact-features-rejected/0/17 --note 'test data' --yes",
    "rejected discard --where 'campaign_id == \"load-test\"' --note 'load test of Monday' --yes",
    "rejected discard --reason expired --since 24h --note 'too old to call' --yes",
)
@sharing(options=selection, choices=job_choices)
def discard(
    options: RejectedOptions,
    choices: JobChoices,
    *,
    note: RequiredNoteOption = "",
    config: ConfigOption = None,
) -> None:
    """Close rejected contacts for good, with a reason: nothing is replayed, and the records stay on their topic."""
    choices.check_note(note)
    settings = load_settings(config)
    desk = RejectedDesk(settings)

    def question() -> str:
        found = desk.prediction(desk.plan(Action.DISCARDED, options, choices.job))
        return f"{prediction_text(found, 'rejected contacts would be closed for good')}. Discard them?"

    choices.confirm(question)
    run_job(partial(desk.run, Action.DISCARDED, options, note=note), settings, "discard", choices)


def _sentence(found: DryRun) -> str:
    parts = [f"{found.passing:,} pass today's checks and are billed once each"]
    parts += [f"{count:,} would be rejected again ({reason})" for reason, count in found.failing.items()]
    return "; ".join((*parts, *skipped_texts(found.skipped)))


def _prediction(found: DryRun) -> dict[str, object]:
    return {
        "pass": found.passing,
        "fail_again": dict(found.failing),
        "skipped": {str(reason): count for reason, count in found.skipped.items()},
        "billed_contacts": found.passing,
        "requests_at_least": found.requests,
    }


def _lines(one: Explanation) -> Iterator[str]:
    """Yield the lines of an explanation; control characters of the contact are escaped."""
    status = "" if one.status is None else f", HTTP {one.status}"
    yield printable(f"{one.place}  {one.state}, {one.reason}{status}")
    yield text_line("detail", one.detail)
    if one.contact_id:
        occurred = "" if one.occurred_at_ms is None else iso_time(one.occurred_at_ms)
        campaign = campaign_name(one.campaign_id)
        yield text_line("contact", f"{one.contact_id}, event {one.event_id}, campaign {campaign}, {occurred}")
    else:
        yield text_line("contact", "cannot be decoded")
    yield text_line(
        "input", f"{one.source or 'unknown'}, rejected {one.rejected_at}, replayed {one.replays} times before"
    )
    for check in one.features:
        mark = " " if check.finding == OK or check.finding.startswith("imputed") else "!"
        yield printable(f"  {mark} {check.name} = {to_json(check.value)}  [{check.rule}]  {check.finding}")
    if one.audit is None:
        yield text_line("audit", "no entry found")
    else:
        said = (f"{name} {one.audit[name]}" for name in _AUDITED if one.audit.get(name) is not None)
        yield text_line("audit", ", ".join(said))
    yield text_line("today", one.today)
    yield text_line("remedy", one.remedy)
    if one.command:
        yield text_line("command", one.command)


def _row(one: Explanation) -> dict[str, Any]:
    """Return an explanation as a row."""
    row = one._asdict()
    row["state"] = str(one.state)
    row["occurred_at"] = None if (at_ms := row.pop("occurred_at_ms")) is None else iso_time(at_ms)
    row["features"] = [check._asdict() for check in one.features]
    row["audit"] = None if one.audit is None else {name: one.audit.get(name) for name in _AUDITED}
    return row
