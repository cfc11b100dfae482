"""Scripted faults: which requests go wrong, how often, and how.

A fault is given as JSON::

    {"match":  {"path": "score", "contact_id": "C-17"},   contact_id: only requests that hold this contact
     "after":  2,                                         let so many matching requests pass first (default 0)
     "times":  3,                                         then act on so many (default 1; null: for ever)
     "action": {"status": 503, "retry_after": "3"}}

An action is one of these, and any of them may bring ``"delay_ms": N``, which waits first:

- ``{"status": N}`` answers that, unpaid; with ``"retry_after"`` (seconds or an HTTP date, sent as it is), ``"headers"``
  (an object) and ``"body"``: ``"platform"`` (the default: the platform's error form), ``"html"``, ``"empty"``, or any
  other string, which is sent as it is as JSON;
- ``{"drop": "before"}`` closes the connection before the work is done, ``{"drop": "after"}`` when it was done and paid;
- ``{"delay_ms": N}`` alone answers rightly, but late.

Faults meet the requests that authentication and quota let through, in the order in which they were added; the first one
that is due acts, alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from stream_scorer.errors import SettingsError
from stream_scorer.local.simulator.config import Milliseconds, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

FaultPath: TypeAlias = Literal["token", "score"]
HeaderText: TypeAlias = Annotated[str, Field(pattern=r"^[\x20-\x7e]+$")]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) else value


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FaultMatch(_Frozen):
    """Which requests a fault concerns."""

    path: FaultPath
    contact_id: str | None = None

    @model_validator(mode="after")
    def _tokens_hold_no_contacts(self) -> FaultMatch:
        if self.path == "token" and self.contact_id is not None:
            raise ValueError("a token request holds no contact: leave out contact_id")
        return self


class FaultAction(_Frozen):
    """What happens to such a request."""

    status: Annotated[int, Field(ge=200, le=599)] | None = None
    retry_after: Annotated[HeaderText, BeforeValidator(_as_text)] | None = None
    headers: dict[HeaderText, HeaderText] = Field(default_factory=dict)
    body: str = "platform"
    drop: Literal["before", "after"] | None = None
    delay_ms: Milliseconds = 0.0

    @model_validator(mode="after")
    def _one_kind(self) -> FaultAction:
        if self.status is not None and self.drop is not None:
            raise ValueError("an action has either a status or a drop")
        if self.status is None and self.drop is None and not self.delay_ms:
            raise ValueError("an action needs status, drop or delay_ms")
        if self.status is None and self.model_fields_set & {"retry_after", "headers", "body"}:
            raise ValueError("retry_after, headers and body belong to a status")
        return self


class Fault(_Frozen):
    """One line of the script."""

    match: FaultMatch
    action: FaultAction
    times: Annotated[int, Field(ge=1)] | None = 1
    after: Annotated[int, Field(ge=0)] = 0


_FAULTS = TypeAdapter(list[Fault])


def parse_faults(content: Any) -> list[Fault]:
    """The faults of decoded JSON: a list of them.

    Raises:
        SettingsError: the script is malformed; one line that names the place.
    """
    try:
        return _FAULTS.validate_python(content)
    except ValidationError as error:
        raise SettingsError(f"faults: {one_line(error)}") from None


@dataclass(slots=True)
class _Entry:
    fault: Fault
    seen: int = 0
    fired: int = 0


class FaultBook:
    """The script in force, and how far each of its lines has come."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def add(self, *faults: Fault) -> None:
        """Appends to the script."""
        self._entries += map(_Entry, faults)

    def clear(self) -> None:
        """Ends all faults."""
        self._entries.clear()

    def state(self) -> list[dict[str, Any]]:
        """Every line of the script with ``seen`` (matching requests so far) and ``fired`` (acted on so far)."""
        return [
            {**entry.fault.model_dump(mode="json", exclude_defaults=True), "seen": entry.seen, "fired": entry.fired}
            for entry in self._entries
        ]

    def take(self, path: FaultPath, contact_ids: Callable[[], Collection[str]] = frozenset) -> FaultAction | None:
        """What is to happen to this request; None: nothing out of the ordinary.

        ``contact_ids`` is called only if a fault depends on them: finding them costs a parse.
        """
        ids: Collection[str] | None = None
        for entry in self._entries:
            match, times = entry.fault.match, entry.fault.times
            if match.path != path or (times is not None and entry.fired >= times):
                continue
            if match.contact_id is not None:
                ids = contact_ids() if ids is None else ids
                if match.contact_id not in ids:
                    continue
            entry.seen += 1
            if entry.seen > entry.fault.after:
                entry.fired += 1
                return entry.fault.action
        return None
