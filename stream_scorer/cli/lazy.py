"""A group of commands whose modules are imported when they are called, not when they are listed.

So ``--help`` and a mistyped command answer at once, and a command that needs an extra which is not installed breaks
nobody else's.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Mapping


class Lazy(NamedTuple):
    """A command that is not imported yet.

    Attributes:
        target: ``module:attribute``; the attribute is a `typer.Typer` for a group of commands, a function for one.
        help: its line in the list.
    """

    target: str
    help: str


class LazyGroup(TyperGroup):
    """See the module's text. A subclass says in ``lazy`` what there is."""

    lazy: ClassVar[Mapping[str, Lazy]] = MappingProxyType({})

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # What the list shows, and where "did you mean" looks.
        self.commands = {name: TyperCommand(name, help=command.help) for name, command in self.lazy.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the command that is called; all others stay names."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else _imported(name, self.lazy[name]), rest


def _imported(name: str, command: Lazy) -> Any:
    module, _, attribute = command.target.partition(":")
    target = getattr(import_module(module), attribute)
    # An app on its own would offer to install shell completion for itself; below another it does not.
    parent = typer.Typer(add_completion=False)
    if isinstance(target, typer.Typer):
        parent.add_typer(target, name=name)
    else:
        parent.command(name)(target)
    return typer.main.get_group(parent).commands[name]
