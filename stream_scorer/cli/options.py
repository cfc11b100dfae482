"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ConfigOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings in TOML. Environment variables and flags win over it."),
]

NewTopicOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--new-topic", help="Accept a topic that was deleted and created again. --from sets where it is read from."
    ),
]
