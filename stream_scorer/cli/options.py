"""Options that several commands have, so that they are called and explained alike."""

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
        "--new-topic", help="Accept a topic that was deleted and created again. It is read as --from gives, for once."
    ),
]
