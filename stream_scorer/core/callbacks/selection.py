"""Selection of scores for callbacks, grouped by campaign and model, with their exact bodies and ids.

Every score has its outcome as soon as it is examined, so planning keeps no state. The scores of one transaction are
planned together. If that transaction fails, the rest is planned again: the first plan was never visible.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.framing_detector import with_framing
from stream_scorer.core.callbacks.records import age_begins_ms, callback_id_of, read_score
from stream_scorer.core.callbacks.types import Callback
from stream_scorer.core.scoring.types import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.callbacks.types import Score
    from stream_scorer.core.records import SourceRecord

MAX_CONTACT_ID_BYTES: Final = 256
_ANY_ID: Final = "0" * 36
# The maximum overhead of Avro and Kafka for a contact's three strings, and for a callback, in bytes.
_CONTACT_FRAME_BYTES: Final = 16
_CALLBACK_FRAME_BYTES: Final = 1_024


class BodyWriter(Protocol):
    """The part of a target that planning needs; see ``callbacks.ports.Target``."""

    max_body_bytes: int

    def entry(self, score: Score) -> bytes:
        """Return the part of a body for one contact."""

    def target_of(self, campaign_id: str | None) -> str:
        """Return kind and host of the target of a campaign, as callbacks name it."""

    def body(
        self, callback_id: str, campaign_id: str | None, model_id: str, planned_at_ms: int, entries: Sequence[bytes]
    ) -> bytes:
        """Return the body of a callback."""


class Selected(NamedTuple):
    """A score at or over the threshold, and its part of a body."""

    score: Score
    entry: bytes

    @property
    def record(self) -> SourceRecord:
        """The source record."""
        return self.score.record

    @property
    def needed_request(self) -> bool:
        return False


class BelowThreshold(NamedTuple):
    """A record without a callback: its score is below the threshold, or in review."""

    record: SourceRecord

    @property
    def needed_request(self) -> bool:
        return False


class Invalid(NamedTuple):
    """A record that cannot become part of a callback, or be one; ``detail`` is one readable sentence."""

    record: SourceRecord
    reason: str
    detail: str
    found_at_ms: int

    @property
    def needed_request(self) -> bool:
        return False


Examined: TypeAlias = Selected | BelowThreshold | Invalid


@dataclass(frozen=True, slots=True)
class PlanningRules:
    """Rules of planning, from the settings and the topics.

    Attributes:
        threshold: the lowest score that causes a callback.
        max_contacts: of one callback.
        max_age_ms: since the score; older scores expire.
        max_record_bytes: exclusive upper limit of a callback's record.
        topic_id: of the scores topic; None: the brokers return none.
    """

    threshold: float
    max_contacts: int
    max_age_ms: float
    max_record_bytes: int
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The records of one transaction. An expired callback has no body and is not sent."""

    callbacks: list[Callback] = field(default_factory=list)
    expired: list[Callback] = field(default_factory=list)
    unusable: list[Invalid] = field(default_factory=list)


def examine(record: SourceRecord, *, codec: Codec, writer: BodyWriter, rules: PlanningRules, now_ms: int) -> Examined:
    """Decide whether a record of the scores topic is part of a callback."""
    try:
        score = read_score(codec, record)
    except UndecodableError as error:
        return Invalid(record, Reason.UNDECODABLE.value, with_framing(error, record.headers), now_ms)
    if score is None or score.score < rules.threshold:
        return BelowThreshold(record)
    if not 0 < len(score.contact_id.encode()) <= MAX_CONTACT_ID_BYTES:
        detail = f"a contact_id must have 1 to {MAX_CONTACT_ID_BYTES} bytes of UTF-8"
        return Invalid(record, Reason.INVALID_CONTACT.value, detail, now_ms)
    one = Selected(score, writer.entry(score))
    room = _SizeLimit(writer, rules, score, now_ms)
    if not room.takes(one):
        # Ids of 256 bytes are far below the limit; a campaign or event id of many kilobytes is not.
        detail = f"a callback about this contact alone would be over the limit of {writer.max_body_bytes} bytes"
        return Invalid(record, Reason.TOO_LARGE.value, detail, now_ms)
    return one


def plan_callbacks(examined: Iterable[Examined], *, writer: BodyWriter, rules: PlanningRules, now_ms: int) -> Plan:
    """Return the callbacks of these records, each with contacts of one campaign and model, in input order."""
    made = Plan()
    fresh: dict[tuple[str | None, str], list[Selected]] = {}
    expired: dict[tuple[str | None, str], list[Selected]] = {}
    for one in examined:
        if isinstance(one, Invalid):
            made.unusable.append(one)
        elif isinstance(one, Selected):
            groups = expired if now_ms - age_begins_ms(one.score) > rules.max_age_ms else fresh
            groups.setdefault((one.score.campaign_id, one.score.model_id), []).append(one)
    for contacts in fresh.values():
        for part in _parts(contacts, writer, rules, now_ms):
            made.callbacks.extend(_callbacks(part, writer, rules, now_ms))
    for contacts in expired.values():
        for part in _parts(contacts, writer, rules, now_ms):
            made.expired.append(_callback(_id_of(part, rules), part, b"", writer=writer, rules=rules, now_ms=now_ms))
    return made


class _SizeLimit:
    """The remaining room of one callback."""

    def __init__(self, writer: BodyWriter, rules: PlanningRules, first: Score, now_ms: int) -> None:
        empty = writer.body(_ANY_ID, first.campaign_id, first.model_id, now_ms, [])
        names = len((first.campaign_id or "").encode()) + len(writer.target_of(first.campaign_id).encode())
        self._contacts = rules.max_contacts
        self._body_bytes = writer.max_body_bytes - len(empty)
        self._record_bytes = rules.max_record_bytes - len(empty) - names - _CALLBACK_FRAME_BYTES

    def takes(self, one: Selected) -> bool:
        """Reserve room for one more contact; return whether it fits."""
        entry_bytes = len(one.entry) + 1
        score = one.score
        ids = (score.record.source, score.event_id, score.contact_id)
        record_bytes = entry_bytes + sum(len(text.encode()) for text in ids) + _CONTACT_FRAME_BYTES
        if self._contacts < 1 or self._body_bytes <= entry_bytes or self._record_bytes <= record_bytes:
            return False
        self._contacts -= 1
        self._body_bytes -= entry_bytes
        self._record_bytes -= record_bytes
        return True


def _parts(contacts: list[Selected], writer: BodyWriter, rules: PlanningRules, now_ms: int) -> Iterator[list[Selected]]:
    part: list[Selected] = []
    room = _SizeLimit(writer, rules, contacts[0].score, now_ms)
    for one in contacts:
        if not room.takes(one) and part:
            yield part
            part, room = [], _SizeLimit(writer, rules, one.score, now_ms)
            room.takes(one)
        part.append(one)
    yield part


def _id_of(part: list[Selected], rules: PlanningRules) -> str:
    return callback_id_of([one.record.source for one in part], rules.topic_id)


def _callbacks(part: list[Selected], writer: BodyWriter, rules: PlanningRules, now_ms: int) -> Iterator[Callback]:
    """Yield one callback, or several if a target's body is longer than the sum of its parts."""
    first = part[0].score
    callback_id = _id_of(part, rules)
    entries = [one.entry for one in part]
    body = writer.body(callback_id, first.campaign_id, first.model_id, now_ms, entries)
    if len(body) < writer.max_body_bytes or len(part) == 1:
        yield _callback(callback_id, part, body, writer=writer, rules=rules, now_ms=now_ms)
        return
    middle = len(part) // 2
    yield from _callbacks(part[:middle], writer, rules, now_ms)
    yield from _callbacks(part[middle:], writer, rules, now_ms)


def _callback(
    callback_id: str, part: list[Selected], body: bytes, *, writer: BodyWriter, rules: PlanningRules, now_ms: int
) -> Callback:
    return Callback(
        callback_id=callback_id,
        campaign_id=part[0].score.campaign_id,
        target=writer.target_of(part[0].score.campaign_id),
        body=body,
        sources=tuple(one.record.source for one in part),
        event_ids=tuple(one.score.event_id for one in part),
        contact_ids=tuple(one.score.contact_id for one in part),
        planned_at_ms=now_ms,
        attempts=0,
        not_before_ms=now_ms,
        threshold=rules.threshold,
    )
