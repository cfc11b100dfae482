"""Filter that removes exception texts from log lines of libraries. Imports no logging library but Python's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging


def drop_exception_text(record: logging.LogRecord) -> bool:
    """Replace exceptions in a library's line by their class: their text may quote URLs, headers and records.

    A filter for handlers and loggers; it keeps every line.
    """
    if isinstance(record.msg, dict):
        return True  # a line of this package, whose fields `telemetry.logs.redact` redacts
    if isinstance(record.args, tuple):
        record.args = tuple(_class_of(one) for one in record.args)
    elif record.args:
        record.args = {name: _class_of(one) for name, one in record.args.items()}
    if record.exc_info and record.exc_info[0] is not None:
        record.msg, record.args = f"{record.getMessage()} ({record.exc_info[0].__name__})", ()
    record.exc_info = record.exc_text = record.stack_info = None
    return True


def _class_of(value: Any) -> Any:
    return type(value).__name__ if isinstance(value, BaseException) else value
