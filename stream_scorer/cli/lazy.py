"""Command group that imports a command's module when it is called, not when it is listed.

``--help`` and a mistyped command answer without delay. A command whose extra is not installed breaks no other command.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from stream_scorer.cli.examples import epilog_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Lazy(NamedTuple):
    """Command that is not imported yet.

    Attributes:
        target: ``module:attribute``; the attribute is a `typer.Typer` for a group of commands, a function for one.
        help: its line in the list of commands.
        panel: the group of commands in that list.
    """

    target: str
    help: str
    panel: str


class Command(TyperCommand):
    """Typer command whose help has no type beside flags and named arguments."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """Typer group whose help has no type beside flags and named arguments."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def _without_types(params: list[Any]) -> list[Any]:
    """Typer shows ``<bool>``, as if a flag took a value, and ``<str>`` beside the name of an argument."""
    for one in params:
        if getattr(one, "is_flag", False) or (one.param_type_name == "argument" and one.metavar):
            one.display_type_rich = _no_type
    return params


def _no_type(**_: Any) -> None:
    return None


class LazyGroup(Group):
    """Typer group of lazy commands. A subclass lists them in ``lazy``."""

    lazy: ClassVar[Mapping[str, Lazy]] = MappingProxyType({})

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Used by the list of commands and by "did you mean".
        self.commands = {
            name: TyperCommand(name, help=command.help, rich_help_panel=command.panel)
            for name, command in self.lazy.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the command that is called; all others stay names."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else _imported(name, self.lazy[name]), rest


def _imported(name: str, command: Lazy) -> Any:
    module, _, attribute = command.target.partition(":")
    target = getattr(import_module(module), attribute)
    # A top-level app would add options for shell completion; one below another does not.
    parent = typer.Typer(add_completion=False)
    if isinstance(target, typer.Typer):
        for one in target.registered_commands:
            one.cls = Command
            one.epilog = epilog_of(one.callback)
            one.help = flowing(one.callback)
        parent.add_typer(target, name=name, cls=Group)
    else:
        parent.command(name, cls=Command, epilog=epilog_of(target), help=flowing(target))(target)
    return typer.main.get_group(parent).commands[name]


def flowing(command: Callable[..., Any] | None) -> str:
    """Return the help of a command with one line for each paragraph, since typer keeps the line ends of a docstring."""
    paragraphs = inspect.cleandoc(getattr(command, "__doc__", None) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
