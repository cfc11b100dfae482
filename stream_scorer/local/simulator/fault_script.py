"""Active script of faults: selects the one that is due for a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.local.simulator.faults import Fault, FaultAction, FaultMatch, FaultPath


class RequestSummary(NamedTuple):
    """Content of a score request, as far as faults depend on it."""

    contact_ids: tuple[str, ...] = ()
    model_version: str | None = None


def asked_in(body: bytes) -> RequestSummary:
    """Return the summary of a request body; empty if it is malformed."""
    try:
        request = orjson.loads(body)
        contacts, version = request["contacts"], request.get("modelVersion")
        ids = tuple(contact["contactId"] for contact in contacts)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return RequestSummary()
    if not all(isinstance(contact_id, str) for contact_id in ids):
        return RequestSummary()
    return RequestSummary(ids, version if isinstance(version, str) else None)


@dataclass(slots=True)
class _Entry:
    fault: Fault
    owner: str | None
    draw: Random = field(init=False)
    seen: int = 0
    fired: int = 0

    def __post_init__(self) -> None:
        self.draw = Random(self.fault.match.seed)  # noqa: S311 - the same selection in every run  # nosec B311

    @property
    def spent(self) -> bool:
        return self.fault.times is not None and self.fired >= self.fault.times

    def state(self) -> dict[str, Any]:
        content = self.fault.model_dump(mode="json", exclude_defaults=True)
        match = {"path": self.fault.match.path, **content.get("match", {})}
        return {**content, "match": match, "seen": self.seen, "fired": self.fired}

    def should_fire(self) -> bool:
        """Draw whether the fault fires, with probability ``share``."""
        share = self.fault.match.share
        return share >= 1 or self.draw.random() < share


class FaultBook:
    """Active faults with their counters."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def add(self, *faults: Fault, owner: str | None = None) -> None:
        """Append faults to the script; `remove` removes those of an owner."""
        self._entries += (_Entry(fault, owner) for fault in faults)

    def remove(self, owner: str) -> None:
        """Remove the faults of this owner."""
        self._entries = [entry for entry in self._entries if entry.owner != owner]

    def clear(self) -> None:
        """Remove all faults."""
        self._entries.clear()

    def state(self) -> list[dict[str, Any]]:
        """Return every fault with ``seen`` (matching requests so far) and ``fired`` (affected requests so far)."""
        return [entry.state() for entry in self._entries]

    def take(self, path: FaultPath, asked: Callable[[], RequestSummary] = RequestSummary) -> FaultAction | None:
        """Return the action for this request; None: no fault is due.

        ``asked`` is called only if a fault depends on the body, which must then be parsed.
        """
        request: RequestSummary | None = None
        for entry in self._entries:
            match = entry.fault.match
            if match.path != path or entry.spent:
                continue
            if match.needs_body:
                request = asked() if request is None else request
                if not _concerns(match, request):
                    continue
            if not entry.should_fire():
                continue
            entry.seen += 1
            if entry.seen > entry.fault.after:
                entry.fired += 1
                return entry.fault.action
        return None


def _concerns(match: FaultMatch, request: RequestSummary) -> bool:
    ids = request.contact_ids
    if match.contact_id is not None and match.contact_id not in ids:
        return False
    if match.contact_prefix is not None and not any(map(_starts_with(match.contact_prefix), ids)):
        return False
    if match.model_version is not None and match.model_version != (request.model_version or ""):
        return False
    return match.min_contacts is None or len(ids) >= match.min_contacts


def _starts_with(prefix: str) -> Callable[[str], bool]:
    return lambda contact_id: contact_id.startswith(prefix)
