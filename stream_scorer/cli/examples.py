"""Examples at the end of a command's help, each of which a test runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

VARIABLES: Final = (
    "Each setting may also be a variable, such as STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS; variables win over the file."
)
EXIT_CODES: Final = (
    "Exit codes: 0 done; 1 failed, or a check did not hold; 2 wrong usage or settings; 3 could not be judged; 130"
    " interrupted."
)
_NAME: Final = "examples"
_PROGRAM: Final = "stream-scorer"


def with_examples(*arguments: str) -> Callable[[F], F]:
    """Return a decorator that adds examples to a command; below ``@app.command()``.

    Args:
        arguments: of each call, as in a shell, without the program's name.
    """

    def decorate(command: F) -> F:
        setattr(command, _NAME, arguments)
        return command

    return decorate


def examples_of(command: Callable[..., Any] | None) -> tuple[str, ...]:
    """Return the arguments of each example of a command."""
    found: tuple[str, ...] = getattr(command, _NAME, ())
    return found


def epilog_of(command: Callable[..., Any] | None) -> str:
    """Return the end of a command's help: its examples, the variables and the exit codes."""
    found = examples_of(command)
    # A blank line ends a line in typer's help.
    examples = ["Examples:", *(f"{_PROGRAM} {one}" for one in found)] if found else []
    return "\n\n".join([*examples, VARIABLES, EXIT_CODES])
