"""Report of an unexpected error: one line, without its text and without a traceback."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from stream_scorer.telemetry.exception_text import drop_exception_text

if TYPE_CHECKING:
    from stream_scorer.errors import StreamScorerError

_PACKAGE = __name__.partition(".")[0]


def unexpected_line(error: BaseException) -> str:
    """Return the class of an error and the innermost place in this package.

    Its text is omitted, since library errors may quote URLs, headers and records.
    """
    places = [
        f"{module} line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (module := str(frame.f_globals.get("__name__"))).partition(".")[0] == _PACKAGE
    ]
    return f"unexpected {type(error).__name__}{f' in {places[-1]}' if places else ''}"


def kafka_error(error: BaseException) -> StreamScorerError | None:
    """Return the translation of a Kafka client error that reached the top; None: the error is of another library.

    An exception of a rebalance callback is raised by the poll, which bypasses the adapters.
    """
    client = sys.modules.get("confluent_kafka")  # not imported: commands without Kafka do not load it
    if client is None or not isinstance(error, client.KafkaException):
        return None
    from stream_scorer.kafka.client.errors import translate  # noqa: PLC0415 - see above

    return translate(error, "the Kafka client")


def print_no_tracebacks() -> None:
    """Reduce errors that end a thread or are uncaught to one line on standard error.

    For a process of its own: Python prints tracebacks for these, and for failures of its logging.
    """
    threading.excepthook = _thread_ended
    sys.unraisablehook = _ignored
    sys.excepthook = _ended
    logging.raiseExceptions = False
    # The SDK logs it at import; `telemetry.otel_components` reports the same problem in one line.
    logging.getLogger("opentelemetry.context").addHandler(logging.NullHandler())
    if logging.lastResort is not None:
        logging.lastResort.addFilter(drop_exception_text)


def _thread_ended(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
        name = "a thread" if found.thread is None else f"thread {found.thread.name}"
        _say(f"{name} has ended: {unexpected_line(found.exc_value)}")


def _ignored(found: Any) -> None:
    if found.exc_value is not None:
        _say(f"ignored: {unexpected_line(found.exc_value)}")


def _ended(_kind: type[BaseException], error: BaseException, _trace: object) -> None:
    if not isinstance(error, KeyboardInterrupt):
        _say(unexpected_line(error))


def _say(line: str) -> None:
    stream = sys.stderr
    if stream is not None:
        stream.write(f"stream-scorer: {line}\n")
