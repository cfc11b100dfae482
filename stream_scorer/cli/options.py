"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings in TOML. Environment variables and flags win over it."),
]

StartOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="WHERE",
        help="Start of a group without commits on the input topics: earliest, latest or an ISO time.",
    ),
]

NewTopicOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--new-topic", help="Accept a topic that was deleted and created again. --from sets where it is read from."
    ),
]
