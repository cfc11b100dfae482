"""States of scores and callbacks that a reconciliation has read, before they are judged.

A delivery is a callback with the decision that caused it; the plan is a delivery without one. All records of a delivery
are collected in one `Delivery`: the callback, its retries, its receipts and its rejections.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.reconciliation.score_report import Finding, FindingKind, Findings
from stream_scorer.core.records import Partition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from stream_scorer.core.reconciliation.record_states import RecordLocation

OTHER_CALLBACK: Final = "names another campaign, other sources, contacts or events, or has another body"


class CalledScore(NamedTuple):
    """The compared fields of a score at or over the threshold; ``written_ms``: Kafka's timestamp of its record."""

    contact_id: str
    event_id: str
    campaign_id: str | None
    score: float
    written_ms: int


class CallbackDigests(NamedTuple):
    """Digests of the common fields of one callback's records; 0: the record does not have the field.

    Attributes:
        contacts: sources with their contacts, and the campaign.
        events: the events; older receipts have none.
        body: the body; receipts have none.
    """

    contacts: int
    events: int
    body: int

    def differ(self, other: CallbackDigests) -> bool:
        """Return whether two records belong to different callbacks."""
        return any(one != another for one, another in zip(self, other, strict=True) if one and another)


@dataclass(slots=True)
class UnusableScore:
    """A score that cannot be part of a callback; ``times``: number of its records on the rejected topic."""

    written_ms: int
    times: int = 0


@dataclass(slots=True)
class Delivery:
    """One delivery of a callback: locations of its records and receipts.

    Attributes:
        names: of the record that was read first.
        waits: its records that the deliverer had not committed.
        receipts: their outcomes, locations, and Kafka's timestamps.
        rejections: its records on the rejected topic.
        size: number of its contacts.
        is_planned: whether the record of the callback itself was read, and not receipts only.
        parts: outcomes by source, if its receipts share the sources among them; otherwise empty. Those of the first
            receipt are left out if ``is_planned`` is False.
        decision: id of the decision to deliver it again; empty: it is the delivery that was planned.
        sources: those of the record that was read first, if there is a decision.
        written_ms: Kafka's timestamp of that record.
    """

    callback_id: str
    seen_at: RecordLocation
    names: CallbackDigests
    size: int
    is_planned: bool
    is_ours: bool = False
    waits: list[RecordLocation] = field(default_factory=list)
    receipts: list[tuple[str, RecordLocation, int]] = field(default_factory=list)
    rejections: list[RecordLocation] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)
    decision: str = ""
    sources: frozenset[str] = frozenset()
    written_ms: int = 0

    def outcome_of(self, source: str) -> str | None:
        """Return the outcome of a contact; None: it has no receipt."""
        first = self.receipts[0][0] if self.receipts else None
        if self.parts:
            return self.parts.get(source, None if self.is_planned else first)
        return first


class CallbackStates:
    """States of all scores and deliveries, and the findings so far.

    Args:
        topic: the scores topic.
        partitions: those of its partitions that are checked.
        max_findings: how many findings of each kind are kept; all are counted.

    Attributes:
        first_ms: by truncated partition of the receipts and the rejected topic, Kafka's timestamp of its first record.
        offsets: of every score that was read, in order, by partition.
        called: the content of each score at or over the threshold, by partition and offset.
        delivery_of: the index of its planned delivery in ``deliveries``.
        unusable: the records of the scores topic that are no score.
        payloads: digests of key and value of the scores in ``called`` and ``unusable``.
        numbers: the index in ``deliveries`` by callback id and decision.
    """

    def __init__(self, topic: str, partitions: Iterable[int], max_findings: int) -> None:
        self.topic = topic
        self.findings = Findings(max_findings)
        self.counts: Counter[str] = Counter()
        self.first_ms: dict[Partition, int] = {}
        self.offsets = {partition: array("q") for partition in partitions}
        self.called: dict[tuple[int, int], CalledScore] = {}
        self.delivery_of: dict[tuple[int, int], int] = {}
        self.unusable: dict[tuple[int, int], UnusableScore] = {}
        self.payloads: dict[tuple[int, int], int] = {}
        self.deliveries: list[Delivery] = []
        self.numbers: dict[tuple[str, str], int] = {}

    def source(self, key: tuple[int, int]) -> str:
        """Return the source of a score, by its partition and offset."""
        return f"{self.topic}/{key[0]}/{key[1]}"

    def add(self, kind: FindingKind, source: str, what: str, place: RecordLocation) -> None:
        """Add a finding about a record."""
        self.findings.add(Finding(kind, source, what, str(place)))


def digests_of(fields: Mapping[str, Any]) -> CallbackDigests:
    """Return the digests of a decoded callback or receipt."""
    contacts = tuple(fields["sources"]), tuple(fields["contact_ids"]), fields["campaign_id"]
    events = tuple(fields["event_ids"])
    return CallbackDigests(
        hash(contacts), hash(events) if events else 0, hash(fields["body"]) if "body" in fields else 0
    )


def is_waiting(place: RecordLocation, taken: Mapping[Partition, int]) -> bool:
    """Return whether the deliverer had not committed the record when ``taken`` was read."""
    return place.offset >= taken.get(Partition(place.topic, place.partition), 0)
