"""``stream-scorer docs``: the pages of the documentation, without a network."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from stream_scorer.cli.examples import with_examples
from stream_scorer.doc_pages import page_text, page_titles


@with_examples("docs", "docs operations", "docs operations#when-it-stops")
def docs(
    page: Annotated[
        str | None,
        typer.Argument(metavar="PAGE[#SECTION]", show_default=False, help="A page, or the section with this anchor."),
    ] = None,
) -> None:
    """Print a page of the documentation of this version, or list the pages.

    Errors name pages by this command. Elsewhere than on a terminal the output is the Markdown of the page.
    """
    if page is None:
        titles = page_titles()
        width = max(map(len, titles))
        for name, title in titles.items():
            typer.echo(f"{name:{width}}  {title}")
    elif sys.stdout.isatty():
        Console().print(Markdown(page_text(page)))
    else:
        typer.echo(page_text(page), nl=False)
