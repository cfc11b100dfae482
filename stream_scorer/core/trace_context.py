"""W3C Trace Context (https://www.w3.org/TR/trace-context/) in the headers of a record.

Only the parts for propagation: the parent span of a record, and whether it is sampled.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.core.records import Headers

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
NAMES: Final = frozenset({TRACEPARENT, TRACESTATE})
# The length that every participant must propagate (section 3.3.1.5); a longer value may be dropped.
MAX_TRACESTATE_BYTES: Final = 512
SAMPLED: Final = 0x01
# The flags with a meaning in version 00: sampled, and random trace id.
_KNOWN_FLAGS: Final = 0x03
# Version 00 ends after the flags; a later one may continue after another dash (section 3.2.4).
_TRACEPARENT: Final = re.compile(
    rb"(?:00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
    rb"|(?!ff|00)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?)"
)
# Section 3.3.1: a key of lower case, a value of printable ASCII without comma, equals sign and blank at its end.
_VALUE: Final = rb"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_KEY: Final = rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_MEMBER: Final = re.compile(_KEY + b"=" + _VALUE)
_MAX_MEMBERS: Final = 32


class TraceContext(NamedTuple):
    """The parent span in a W3C trace context; ``state``: the vendors' ``tracestate``."""

    trace_id: int
    span_id: int
    flags: int
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the span is recorded by the service that started it."""
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        """The value of its ``traceparent`` header."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"

    @property
    def headers(self) -> Headers:
        """The headers that propagate it."""
        headers: Headers = [(TRACEPARENT, self.traceparent.encode())]
        if self.state:
            headers.append((TRACESTATE, self.state.encode()))
        return headers


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Parse the value of a ``traceparent``; None if it is malformed."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups() if part is not None)
    return TraceContext(trace_id, span_id, flags & _KNOWN_FLAGS)


def context_of(headers: Headers) -> TraceContext | None:
    """Return the trace context in a record's headers; None if there is no ``traceparent``, or more than one."""
    values = [value for name, value in headers if name == TRACEPARENT]
    if len(values) != 1 or values[0] is None:
        return None
    context = parse_traceparent(values[0])
    return None if context is None else context._replace(state=_state(headers))


def trace_flags(headers: Headers) -> int | None:
    """Return the trace flags in headers: the fast check of every record.

    None: there is no ``traceparent``; -1: it is malformed, or there are two.
    """
    flags = None
    for name, value in headers:
        if name == TRACEPARENT:
            found = _TRACEPARENT.fullmatch(value) if value is not None and flags is None else None
            if found is None:
                return -1
            flags = int(found[3] or found[6], 16)
    return flags


def with_trace(headers: Headers, context: TraceContext) -> Headers:
    """Return the headers with this context instead of any other trace context."""
    return [*(header for header in headers if header[0] not in NAMES), *context.headers]


def link_parents(contexts: Iterable[TraceContext]) -> bytes:
    """Encode several contexts as one value, without ``tracestate``."""
    return b",".join(context.traceparent.encode() for context in contexts)


def split_links(value: bytes, limit: int) -> list[TraceContext]:
    """Parse at most ``limit`` contexts from one value; malformed ones are left out."""
    parsed = (parse_traceparent(part) for part in value.split(b",", limit)[:limit])
    return [context for context in parsed if context is not None]


def _state(headers: Headers) -> str:
    """Return the ``tracestate`` headers, joined as the standard defines; empty if too long or malformed."""
    values = [value for name, value in headers if name == TRACESTATE and value]
    if not values:
        return ""
    members = [member.strip(b" \t") for member in b",".join(values).split(b",")]
    keys = {member.partition(b"=")[0] for member in members}
    sound = len(members) <= _MAX_MEMBERS and len(keys) == len(members) and all(map(_MEMBER.fullmatch, members))
    state = b",".join(members)
    return state.decode("ascii") if sound and len(state) <= MAX_TRACESTATE_BYTES else ""
