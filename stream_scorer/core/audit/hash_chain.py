"""Hash chain of the audit events: numbers, links, encodes and verifies them.

A chain belongs to one producer. `AuditChain.plan` encodes the events of one transaction. Only when that transaction is
known to be committed does `AuditChain.confirm` move the end of the chain. The next plan takes the place of an aborted
one, so a reader of committed records finds no gap.

``hash`` = SHA-256 of the event's Avro body (no framing) with ``hash`` empty; ``previous_hash`` = ``hash`` of the event
before, empty for the first; ``sequence`` counts from 0.

The entry of a scored contact has a fast path, which takes half the time of a dict of its fields and of the codec. A
test compares whole events with those of the codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.encoder import compile_array, compile_writer
from stream_scorer.core.scoring.types import Scored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_scorer.core.avro.codec import Codec

AuditEvent: TypeAlias = "dict[str, Any]"
# One of its ``contacts``: a scored contact, or the fields of any other.
Entry: TypeAlias = "Scored | dict[str, Any]"

MAX_EVENT_BYTES: Final = 900_000
_HASH_BYTES: Final = sha256().digest_size
_EMPTY: Final = b"\x00"  # Avro's length of no bytes
_LENGTH: Final = bytes((_HASH_BYTES * 2,))  # Avro's length of a hash
ENTRY_FIELDS: Final = [
    ("source", "string"),
    ("contact_id", "string"),
    ("outcome", {"type": "enum", "name": "ContactOutcome", "symbols": ["SCORED", "REVIEW", "REJECTED"]}),
    ("score", ["null", "double"]),
    ("confidence_lower", ["null", "double"]),
    ("confidence_upper", ["null", "double"]),
    ("imputed_features", {"type": "array", "items": "string"}),
    ("reasons", {"type": "array", "items": "string"}),
    ("event_id", "string"),
    ("features_hash", ["null", "bytes"]),
    ("reused_from", ["null", "string"]),
    ("billed", "boolean"),
]
_string: Final = compile_writer("string")
_strings: Final = compile_writer({"type": "array", "items": "string"})
_NO_STRINGS: Final = _strings(()) * 2
_outcome_and_numbers: Final = Struct("<BBdBdBd").pack
_HASH: Final = b"\x02" + _LENGTH
_NO_HASH: Final = b"\x00"
_BILLED: Final = b"\x00\x01"  # reused from none


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """Encoded events of one transaction, and the end of the chain if it commits."""

    values: tuple[bytes, ...]
    first_sequence: int
    next_sequence: int
    tip: bytes


class AuditChain:
    """The hash chain of one producer; a new producer starts a new one, with a new id."""

    __slots__ = ("_codec", "_hash_at", "_max_event_bytes", "_sequence", "_tip", "_write", "chain_id", "key")

    def __init__(self, chain_id: str, codec: Codec, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        """Start a chain.

        Args:
            chain_id: never used before.
            codec: of ``BatchAudit``.
            max_event_bytes: a longer event is split.
        """
        self.chain_id = chain_id
        self.key = chain_id.encode()
        self._codec = codec
        self._max_event_bytes = max_event_bytes
        self._sequence = 0
        self._tip = b""
        self._hash_at = _offset_of_hash(codec)
        self._write = _compile_event_writer(codec)

    def plan(self, events: Iterable[AuditEvent]) -> AuditPlan:
        """Return the events of one transaction, linked, hashed and encoded from the confirmed end of the chain.

        An event that would be too large becomes several with the same ``batch_id``, each with its own counts.
        """
        values: list[bytes] = []
        sequence, tip = self._sequence, self._tip
        waiting = list(events)[::-1]
        while waiting:
            event = waiting.pop()
            linked = {**event, "chain_id": self.chain_id, "sequence": sequence, "previous_hash": tip, "hash": b""}
            body = self._write(linked)
            contacts = event["contacts"]
            if len(body) + _HASH_BYTES > self._max_event_bytes and len(contacts) > 1:
                middle = len(contacts) // 2
                waiting += [_part(event, contacts[middle:]), _part(event, contacts[:middle])]
                continue
            tip = sha256(body).digest()
            # A second encoding with the hash would cost as much as the first, and changes only this field.
            at = self._hash_at(linked)
            values.append(self._codec.frame(b"".join((body[:at], _LENGTH, tip, body[at + len(_EMPTY) :]))))
            sequence += 1
        return AuditPlan(tuple(values), self._sequence, sequence, tip)

    def confirm(self, plan: AuditPlan) -> None:
        """Move the end of the chain: the transaction with this plan is known to be committed.

        Raises:
            ValueError: the plan does not start at the end of the chain; it was made before another was confirmed.
        """
        if plan.first_sequence != self._sequence:
            raise ValueError(f"audit plan starts at {plan.first_sequence}, but the chain ends at {self._sequence}")
        self._sequence, self._tip = plan.next_sequence, plan.tip


def counts_of(entries: Sequence[Entry]) -> dict[str, int]:
    """Return the ``counts`` of an event: its entries by outcome."""
    outcomes = [_outcome_of(entry) if isinstance(entry, Scored) else entry["outcome"] for entry in entries]
    return {
        "received": len(entries),
        "scored": outcomes.count("SCORED"),
        "review": outcomes.count("REVIEW"),
        "rejected": outcomes.count("REJECTED"),
    }


def scored_entry(scored: Scored) -> dict[str, Any]:
    """Return the fields of a scored contact's entry."""
    contact = scored.contact
    return {
        "source": scored.record.source,
        "contact_id": contact.contact_id,
        "outcome": _outcome_of(scored),
        "score": scored.score,
        "confidence_lower": scored.confidence_lower,
        "confidence_upper": scored.confidence_upper,
        "imputed_features": contact.imputed_features,
        "reasons": scored.review_reasons,
        "event_id": contact.event_id,
        "features_hash": contact.features_hash,
        "reused_from": None,
        "billed": True,
    }


def _outcome_of(scored: Scored) -> str:
    return "REVIEW" if scored.review_reasons else "SCORED"


def _part(event: AuditEvent, contacts: list[Entry]) -> AuditEvent:
    return {**event, "counts": counts_of(contacts), "contacts": contacts}


def _compile_event_writer(codec: Codec) -> Callable[[AuditEvent], bytes]:
    """Return a function that encodes the body of an event, whose entries are its last field."""
    *fields, contacts = codec.schema["fields"]
    entry = contacts["type"]["items"]
    write_head = compile_writer({"type": "record", "name": "BeforeContacts", "fields": fields})
    write_fields = compile_writer(entry)
    has_fast_path = [(field["name"], field["type"]) for field in entry["fields"]] == ENTRY_FIELDS
    write_scored = _write_scored if has_fast_path else lambda scored: write_fields(scored_entry(scored))

    def write_entry(one: Entry) -> bytes:
        return write_scored(one) if isinstance(one, Scored) else write_fields(one)

    write_entries = compile_array(write_entry)
    return lambda event: write_head(event) + write_entries(event["contacts"])


def _write_scored(scored: Scored) -> bytes:
    """Return the body of `scored_entry`."""
    contact, _, score, lower, upper, reasons = scored
    imputed, features_hash = contact.imputed_features, contact.features_hash
    return b"".join(
        (
            _string(contact.record.source),
            _string(contact.contact_id),
            _outcome_and_numbers(2 if reasons else 0, 2, score, 2, lower, 2, upper),
            _strings(imputed) + _strings(reasons) if imputed or reasons else _NO_STRINGS,
            _string(contact.event_id),
            _NO_HASH if features_hash is None else _HASH + features_hash,
            _BILLED,
        )
    )


def _offset_of_hash(codec: Codec) -> Callable[[AuditEvent], int]:
    """Return a function that computes how many bytes of an event's body precede its hash."""
    fields = codec.schema["fields"]
    before = [field["name"] for field in fields].index("hash")
    write = compile_writer({"type": "record", "name": "BeforeHash", "fields": fields[:before]})
    return lambda event: len(write(event))


class ChainVerifier:
    """Verifier of framed ``BatchAudit`` values, one after the other, of one or several chains.

    Each chain's values must be in the order of its partition. The original bytes are hashed, not a second encoding of
    their content: so events of another writer or of an older schema verify as well.
    """

    __slots__ = ("_beginnings_gone", "_codec", "_ends", "_hash_at", "_links_gone")

    def __init__(self, codec: Codec, *, beginnings_gone: bool = False, links_gone: bool = False) -> None:
        """Start without any chain.

        Args:
            codec: of ``BatchAudit``.
            beginnings_gone: the log has deleted its oldest records, so a chain may begin in its middle.
            links_gone: the log is compacted, so any event of a chain but the last may be missing.
        """
        self._links_gone = links_gone
        self._codec = codec
        self._hash_at = _offset_of_hash(codec)
        self._beginnings_gone = beginnings_gone
        self._ends: dict[str, tuple[int, bytes]] = {}

    @property
    def chain_ids(self) -> frozenset[str]:
        """The chains found so far."""
        return frozenset(self._ends)

    def check(self, value: bytes | None) -> tuple[AuditEvent, list[str]]:
        """Return the event, and one sentence for each difference; none: it continues its chain.

        Raises:
            UndecodableError: the value is no ``BatchAudit``, so its chain is unknown.
        """
        event = self._codec.decode(value)
        assert value is not None  # noqa: S101 - a null value is not decoded  # nosec B101
        chain_id, sequence, previous_hash = event["chain_id"], event["sequence"], event["previous_hash"]
        unmet = (sequence, previous_hash) if self._beginnings_gone else (0, b"")
        expected, tip = self._ends.get(chain_id, unmet)
        if self._links_gone and sequence > expected:
            expected, tip = sequence, previous_hash
        name = f"chain {chain_id}, sequence {sequence}"
        findings: list[str] = []
        if sequence != expected:
            findings.append(f"{name}: {expected} was expected here")
        elif previous_hash != tip:
            findings.append(f"{name}: previous_hash is not the hash of the event before")
        body, at = self._codec.payload_of(value), self._hash_at(event)
        after = at + len(_LENGTH) + _HASH_BYTES
        if body[at:after] != _LENGTH + sha256(body[:at] + _EMPTY + body[after:]).digest():
            findings.append(f"{name}: the content does not have the hash that stands in it")
        self._ends[chain_id] = (sequence + 1, event["hash"])
        return event, findings


def verify_chain(values: Iterable[bytes], codec: Codec) -> list[str]:
    """Check framed ``BatchAudit`` values with a `ChainVerifier`.

    Returns:
        One sentence for each difference, in order; empty: every chain is complete.
    """
    verifier = ChainVerifier(codec)
    findings: list[str] = []
    for place, value in enumerate(values):
        try:
            findings += verifier.check(value)[1]
        except UndecodableError as error:
            findings.append(f"event {place}: {error}")
    return findings
