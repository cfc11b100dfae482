"""``stream-scorer review``: the scores that a person should check."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, TypeAlias

import typer

from stream_scorer.cli.desk_jobs import JobChoices, RequiredNoteOption, job_choices, prediction_text, run_job
from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.explanation_text import text_line, write_explanations
from stream_scorer.cli.options import ConfigOption, FormatOption, OutOption, contact_options
from stream_scorer.cli.output_formats import row_output
from stream_scorer.cli.shared_options import sharing
from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.record_counts import GroupBy
from stream_scorer.desk.review import ReviewDesk, ReviewOptions
from stream_scorer.errors import UsageError
from stream_scorer.settings import load_settings

app = typer.Typer(help="List, explain, accept and discard the scores that a person should check.", no_args_is_help=True)

_NAME_WIDTH = 20

ReasonOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="REASON", help="Only with this review reason. Repeat it for more."),
]
WhereOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPR", help="Only scores for which this is true, such as: score > 0.9"),
]


@sharing(chosen=contact_options)
def selection(*, chosen: dict[str, Any], reason: ReasonOption = None, where: WhereOption = None) -> ReviewOptions:
    """Return the options that select scores in review, checked as far as they need no cluster."""
    options = ReviewOptions(**chosen, reasons=tuple(reason or ()), where=where)
    options.check()
    return options


@app.command("list")
@with_examples("review list", "review list --by campaign --since 24h", "review list --where 'score > 0.9' -o json")
@sharing(options=selection)
def list_(
    options: ReviewOptions,
    *,
    config: ConfigOption = None,
    by: Annotated[GroupBy, typer.Option("--by", help="Count by this.")] = GroupBy.REASON,
    output: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Count the scores in review, with share, state, first, last and an example of each group."""
    desk = ReviewDesk(load_settings(config))
    with row_output(output, out, empty="no scores in review") as rows:
        for row in desk.counts(options, by).rows():
            rows.write(row)


@app.command()
@with_examples(
    "review explain C-10023",
    "review explain --place contact-scores-review/0/17",
    "review explain --reason wide_interval --limit 3 -o json",
)
@sharing(options=selection)
def explain(
    options: ReviewOptions, *, config: ConfigOption = None, output: FormatOption = None, out: OutOption = None
) -> None:
    """Explain why scores are in review: score and bounds, each reason with its limit, and how to decide.

    Text, unless --output or --out is given.
    """
    if not options.given:
        raise UsageError("name a contact, or select records with an option such as --reason or --place")
    desk = ReviewDesk(load_settings(config))
    found, not_found = desk.explanations(options), partial(desk.not_found, options)
    write_explanations(found, lines=_lines, row=dict, output=output, out=out, not_found=not_found)


@app.command()
@with_examples(
    "review accept C-10023 --note 'interval checked by hand' --yes",
    "review accept --reason wide_interval --where 'score > 0.9' --note 'campaign lead agreed' --yes",
    "review accept --since 24h --job monday-review --note 'reviewed' --yes",
)
@sharing(options=selection, choices=job_choices)
def accept(
    options: ReviewOptions, choices: JobChoices, *, note: RequiredNoteOption = "", config: ConfigOption = None
) -> None:
    """Publish scores in review on the scores topic, each exactly once, and so trigger their callbacks.

    Scores that are not finite, or not from 0 to 1, can only be discarded. The age of an accepted score counts from the
    decision, so one that waited for days is called, too.
    """
    choices.check_note(note)
    settings = load_settings(config)
    desk = ReviewDesk(settings)

    def question() -> str:
        found = desk.prediction(desk.plan(Action.ACCEPTED, options, choices.job))
        return f"{prediction_text(found, 'scores would be published')}. Accept them?"

    choices.confirm(question)
    run_job(partial(desk.run, Action.ACCEPTED, options, note=note), settings, "accept", choices)


@app.command()
@with_examples(
    "review discard C-10023 --note 'not a customer any more' --yes",
    "review discard --reason score_out_of_range --note 'model defect of 12 May' --yes",
    "review discard --since 72h --note 'campaign is over' --yes",
)
@sharing(options=selection, choices=job_choices)
def discard(
    options: ReviewOptions, choices: JobChoices, *, note: RequiredNoteOption = "", config: ConfigOption = None
) -> None:
    """Close scores in review for good, with a reason: nothing is published, and the records stay on their topic."""
    choices.check_note(note)
    settings = load_settings(config)
    desk = ReviewDesk(settings)

    def question() -> str:
        found = desk.prediction(desk.plan(Action.DISCARDED, options, choices.job))
        return f"{prediction_text(found, 'scores would be closed for good')}. Discard them?"

    choices.confirm(question)
    run_job(partial(desk.run, Action.DISCARDED, options, note=note), settings, "discard", choices)


def _lines(one: dict[str, Any]) -> list[str]:
    lines = [f"{one['place']}  {one['state']}"]
    for name, value in one.items():
        if name in ("place", "state"):
            continue
        lines.append(text_line(name.replace("_", " "), _shown(value), _NAME_WIDTH))
    return lines


def _shown(value: Any) -> object:
    match value:
        case dict():
            return "; ".join(f"{reason}: {rule}" for reason, rule in value.items())
        case list():
            return ", ".join(value) or "none"
        case bool():
            return "yes" if value else "no"
        case None:
            return "none"
        case _:
            return value
