"""Logging configuration: one line an event, as JSON or text, without secrets."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

from stream_scorer.core.desk.progress import progress_line
from stream_scorer.errors import printable
from stream_scorer.telemetry.exception_text import drop_exception_text

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED: Final = "***"
_OF_SINGLE_PARTITIONS: Final = frozenset({"partition assigned", "partition revoked"})
_SECRET_WORDS: Final = re.compile(
    r"secret|password|passwd|token|authorization|credential|api_?key|private_?key", re.IGNORECASE
)


def configure_logging(*, level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Send all log lines of the process, the libraries' included, to ``stream``, one line an event.

    Args:
        level: the lowest level that is written: ``debug``, ``info``, ``warning`` or ``error``.
        form: ``json``: one object a line; ``text``: readable text; ``auto``: text if ``stream`` is a terminal.
        stream: the destination; None: standard error, since standard output carries the results of commands.
    """
    stream = sys.stderr if stream is None else stream
    as_json = not stream.isatty() if form == "auto" else form == "json"
    least = logging.getLevelNamesMapping()[level.upper()]
    # ISO 8601, UTC; the fields of the event stay unchanged.
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    rendering = _rendering(as_json=as_json, colors=stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, *rendering])
    )
    handler.addFilter(drop_exception_text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    # urllib3 logs a warning for every new connection; the API client logs the failures that matter.
    logging.getLogger("urllib3").setLevel(max(least, logging.ERROR))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *(() if as_json or least <= logging.DEBUG else (_drop_single_partitions,)),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _rendering(*, as_json: bool, colors: bool) -> list[Processor]:
    # Plain tracebacks in both: structured and rich ones print local variables, and so secrets.
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # A library's message may quote received data: escape line breaks and terminal control sequences.
    plain = structlog.dev.plain_traceback
    return [
        _as_line,
        _printable,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, pad_event_to=0),
    ]


def _drop_single_partitions(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop the lines of single partitions: on a terminal ``rebalance completed`` is the one line of a rebalance."""
    if event.get("event") in _OF_SINGLE_PARTITIONS:
        raise structlog.DropEvent
    return event


def _as_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the fields of a progress report by its line."""
    line = progress_line(event)
    if line is None:
        return event
    return {key: event[key] for key in ("timestamp", "level") if key in event} | {"event": line}


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape non-printable characters of the event text, as the renderer does for the fields."""
    text = event.get("event")
    if isinstance(text, str):
        event["event"] = printable(text)
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace the values of all fields with a secret's name, in nested mappings and lists too."""
    return {key: _redacted(key, value) for key, value in event.items()}


def _redacted(key: str, value: Any) -> Any:
    if _SECRET_WORDS.search(key):
        return value if value is None or isinstance(value, bool) else REDACTED
    if isinstance(value, dict):
        return {name: _redacted(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", item) for item in value]
    return value
