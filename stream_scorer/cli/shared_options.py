"""Options that a group of commands shares, declared once as a function.

Typer reads the options of a command from its signature. `sharing` gives a command the options of another function in
place of one of its own parameters, and calls that function for its value.
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def sharing(**declared: Callable[..., Any]) -> Callable[[F], Callable[..., Any]]:
    """Return a decorator that replaces parameters of a command by options; below ``@app.command()``.

    Args:
        declared: for each parameter the function whose keyword parameters are the options, and whose result is the
            parameter's value.
    """

    def decorate(command: F) -> Callable[..., Any]:
        own = _parameters(command)
        shared = {name: _parameters(function) for name, function in declared.items()}
        merged: dict[str, inspect.Parameter] = {}
        for name, parameter in own.items():
            merged |= shared.get(name, {name: parameter})

        @wraps(command)
        def call(**given: Any) -> Any:
            values = {
                name: function(**{option: given.pop(option) for option in shared[name]})
                for name, function in declared.items()
            }
            return command(**given, **values)

        # Typer shows arguments in the order of the signature, and options after them.
        call.__signature__ = inspect.Signature(list(merged.values()))  # type: ignore[attr-defined]
        call.__annotations__ = {name: parameter.annotation for name, parameter in merged.items()}
        return call

    return decorate


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters with evaluated annotations, as keyword parameters: their order is free then."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
    }
