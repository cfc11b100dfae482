"""Explanations of records: text for a person, rows for another program."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer

from stream_scorer.cli.output_formats import row_output
from stream_scorer.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from stream_scorer.cli.output_formats import OutputFormat

Explained = TypeVar("Explained")

_WIDTH: Final = 12


def write_explanations(
    explanations: Iterator[Explained],
    *,
    lines: Callable[[Explained], Iterable[str]],
    row: Callable[[Explained], dict[str, Any]],
    output: OutputFormat | None,
    out: Path | None,
    not_found: Callable[[], str],
) -> None:
    """Print explanations as text, or as rows if a format or a file is given.

    Args:
        explanations: one for each selected record.
        lines: the text of one.
        row: the row of one.
        output: the format.
        out: a new file.
        not_found: the error if there is none.

    Raises:
        UsageError: there is no explanation.
    """
    first = next(explanations, None)
    if first is None:
        raise UsageError(not_found())
    found = chain([first], explanations)
    if output is None and out is None:
        for one in found:
            typer.echo("\n".join((*lines(one), "")))
        return
    with row_output(output, out) as rows:
        for one in found:
            rows.write(row(one))


def text_line(name: str, text: object, width: int = _WIDTH) -> str:
    """Return a line of an explanation; control characters are escaped."""
    return printable(f"  {name:<{width}}{text}")
