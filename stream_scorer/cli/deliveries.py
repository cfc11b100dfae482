"""``stream-scorer deliveries``: the callbacks that were not delivered, for an operator who repeats them."""

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
)
from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.explanation_text import text_line, write_explanations
from stream_scorer.cli.options import ConfigOption, FormatOption, OutOption, record_options
from stream_scorer.cli.output_formats import OutputFormat, row_output
from stream_scorer.cli.shared_options import sharing
from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.held_callbacks import REMEDY
from stream_scorer.core.desk.record_counts import GroupBy, campaign_name
from stream_scorer.core.desk.record_rows import iso_time
from stream_scorer.desk.deliveries import DeliveryDesk, DeliveryOptions
from stream_scorer.errors import UsageError, printable
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.core.desk.delivery_explanation import DeliveryExplanation, ReceiptFact
    from stream_scorer.desk.deliveries import Explained

app = typer.Typer(help="List, explain and repeat the callbacks that were not delivered.", no_args_is_help=True)

# The reason why a callback is held has the name of a target.
_HELD_CELL: Final = 120

CallbacksArgument: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Callback id, or the id of one of its contacts.")
]
ReasonOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--reason", metavar="REASON", help="Only with this reason. Repeat it for more.")
]
WhereOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPR", help="Only callbacks for which this is true, such as: status == 422"),
]


@sharing(records=record_options)
def selection(
    callbacks: CallbacksArgument = None,
    *,
    records: dict[str, Any],
    reason: ReasonOption = None,
    where: WhereOption = None,
) -> DeliveryOptions:
    """Return the options that select rejected callbacks, checked as far as they need no cluster."""
    options = DeliveryOptions(**records, contacts=tuple(callbacks or ()), reasons=tuple(reason or ()), where=where)
    options.check()
    return options


@app.command("list")
@with_examples(
    "deliveries list",
    "deliveries list --by campaign --since 24h",
    "deliveries list --held --by campaign",
)
@sharing(options=selection)
def list_(
    options: DeliveryOptions,
    *,
    config: ConfigOption = None,
    by: Annotated[GroupBy, typer.Option("--by", help="Count by this.")] = GroupBy.REASON,
    held: Annotated[
        bool, typer.Option("--held", help="Count the held callbacks instead, which need no decision.")
    ] = False,
    output: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Count the callbacks that were refused or given up, with share, state, first, last and an example of each group.

    Records of the topic that are no callbacks are counted, too: they can only be discarded. A line on standard error
    has the number of held callbacks, whose bodies do not fit the present target. --held counts these, with the reason
    of each group, and gives the remedy. They cannot be decided: the campaign worker still delivers each once.
    """
    if held and options.reasons:
        raise UsageError("--held: leave out --reason, and use --by or --where: a held callback was not rejected")
    settings = load_settings(config)
    desk = DeliveryDesk(settings)
    if held:
        counts = desk.held_counts(options, by)
        with row_output(output, out, empty="no held callbacks", max_cell=_HELD_CELL) as rows:
            for row in counts.rows():
                rows.write(row)
        if counts.total:
            typer.echo(f"remedy: {REMEDY}", err=True)
        return
    with row_output(output, out, empty="no rejected callbacks") as rows:
        for row in desk.counts(options, by).rows():
            rows.write(row)
    print_waiting("held", "callbacks", desk.waiting_held, settings.delivery_group_id)


@app.command()
@with_examples(
    "deliveries explain C-10023",
    "deliveries explain --place campaign-callbacks-rejected/0/17",
    "deliveries explain --reason refused --limit 3 -o json --body",
)
@sharing(options=selection)
def explain(
    options: DeliveryOptions,
    *,
    config: ConfigOption = None,
    body: Annotated[bool, typer.Option("--body", help="With -o json or jsonl: also the body that is sent.")] = False,
    output: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Explain why callbacks were not delivered, and give the command that delivers each again.

    Shows the last answer, the receipts since it was planned, whether the body fits the present target, and what to do.
    Text, unless --output or --out is given.
    """
    if not options.given:
        raise UsageError("name a callback or a contact, or select records with an option such as --reason or --place")
    if body and output not in (OutputFormat.JSON, OutputFormat.JSONL):
        raise UsageError("--body needs -o json or -o jsonl: a body has personal data")
    desk = DeliveryDesk(load_settings(config))
    write_explanations(
        desk.explanations(options),
        lines=lambda one: _lines(one.explanation),
        row=partial(_row, with_body=body),
        output=output,
        out=out,
        not_found=partial(desk.not_found, options),
    )


@app.command()
@with_examples(
    "deliveries replay --reason gave_up --since 24h --yes",
    "deliveries replay C-10023 --yes",
    "deliveries replay --where 'status == 422 and campaign_id == \"spring\"' --job monday --yes",
)
@sharing(options=selection, choices=job_choices)
def replay(
    options: DeliveryOptions,
    choices: JobChoices,
    *,
    config: ConfigOption = None,
    retarget: Annotated[
        bool, typer.Option("--retarget", help="Build a new body for the present settings, under a new id.")
    ] = False,
    note: NoteOption = "",
) -> None:
    """Deliver callbacks again that were refused or given up, each once for this decision.

    The body and the webhook-id are those of before; all rounds of attempts begin again. A callback that was delivered
    again or discarded before is left out, so the command may be repeated. It may also be killed: the job is resumed by
    its name. Without --yes the command shows what it would do, and asks.

    --retarget builds a new body from the scores for the present target, list and columns, under a new id: a receiver
    that has the former one calls the contacts again.
    """
    settings = load_settings(config)
    options = replace(options, retarget=retarget)
    desk = DeliveryDesk(settings)

    def question() -> str:
        plan = desk.plan(Action.REDELIVERED, options, choices.job)
        how = "a new id and a new body" if plan.options.retarget else "the same id and body"
        return f"{prediction_text(desk.prediction(plan), f'callbacks would be sent with {how}')}. Deliver them again?"

    choices.confirm(question)
    run_job(partial(desk.run, Action.REDELIVERED, options, note=note), settings, "redelivery", choices)


@app.command()
@with_examples(
    "deliveries discard --place campaign-callbacks-rejected/0/17 --note 'test data' --yes",
    "deliveries discard --where 'campaign_id == \"spring\"' --note 'the campaign has ended' --yes",
    "deliveries discard --reason undecodable --until 24h --note 'of another program' --yes",
)
@sharing(options=selection, choices=job_choices)
def discard(
    options: DeliveryOptions,
    choices: JobChoices,
    *,
    note: RequiredNoteOption = "",
    config: ConfigOption = None,
) -> None:
    """Close rejected callbacks for good, with a reason: nothing is sent, and the records stay on their topic."""
    choices.check_note(note)
    settings = load_settings(config)
    desk = DeliveryDesk(settings)

    def question() -> str:
        found = desk.prediction(desk.plan(Action.DISCARDED, options, choices.job))
        return f"{prediction_text(found, 'rejected callbacks would be closed for good')}. Discard them?"

    choices.confirm(question)
    run_job(partial(desk.run, Action.DISCARDED, options, note=note), settings, "discard", choices)


def _lines(one: DeliveryExplanation) -> Iterator[str]:
    """Yield the lines of an explanation; control characters are escaped."""
    status = "" if one.status is None else f", HTTP {one.status}"
    yield printable(f"{one.place}  {one.state}, {one.reason}{status}")
    yield text_line("detail", one.detail)
    if one.planned_at_ms is None:
        yield text_line("callback", "the record is no callback")
    else:
        campaign = campaign_name(one.campaign_id)
        yield text_line("callback", f"{one.callback_id}, campaign {campaign}, contacts: {one.contacts}")
        planned = iso_time(one.planned_at_ms)
        yield text_line(
            "delivery", f"planned {planned} for {one.target}, {one.attempts} attempts, ended {one.rejected_at}"
        )
    if one.retargeted_id:
        yield text_line("retargeted", f"delivered under the new id {one.retargeted_id}")
    for receipt in one.receipts:
        answer = "no answer" if receipt.status is None else f"HTTP {receipt.status}"
        why = f"decision {receipt.decision}" if receipt.decision else "as planned"
        yield text_line(
            "receipt",
            f"{receipt.outcome}, contacts: {receipt.contacts}, {answer}, {iso_time(receipt.finished_at_ms)}, {why}",
        )
    yield text_line("today", one.today)
    yield text_line("remedy", one.remedy)
    if one.command:
        yield text_line("command", one.command)


def _row(one: Explained, *, with_body: bool) -> dict[str, Any]:
    row = one.explanation._asdict()
    row["state"] = str(one.explanation.state)
    planned_at_ms = row.pop("planned_at_ms")
    row["planned_at"] = None if planned_at_ms is None else iso_time(planned_at_ms)
    row["receipts"] = [_receipt_row(receipt) for receipt in one.explanation.receipts]
    if with_body:
        row["body"] = None if one.body is None else one.body.decode(errors="replace")
    return row


def _receipt_row(receipt: ReceiptFact) -> dict[str, Any]:
    row = receipt._asdict()
    row["finished_at"] = iso_time(row.pop("finished_at_ms"))
    return row
