"""Contacts for the demo: realistic ones, with every kind of invalid contact among them.

The same seed gives the same contacts on every machine. Each has an expected outcome, so that the demo can check its own
result: a contact is either answered (scored or in review) or rejected for a known reason.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.scoring.types import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_scorer.core.avro.codec import Codec

_SEGMENTS: Final = ("services", "technician", "management", "retired", "student", "self-employed", "admin")
_CAMPAIGNS: Final = ("spring-offer", "win-back", "renewals", None)
_UNKNOWN_VERSION: Final = "v0-retired"
_MARKER_BYTES: Final = 2
_HEADER_BYTES: Final = 10
_MAX_ID_BYTES: Final = 256
_MAX_FEATURES: Final = 50
_MAX_REQUEST_BYTES: Final = 512_000
_REPEATED_SHARE: Final = 0.02
REFUSED_BY_API: Final = frozenset({Reason.REFUSED_BY_API, Reason.UNKNOWN_MODEL_VERSION})


class Generated(NamedTuple):
    """Record for the features topic. ``rejected_for``: expected reason for rejection; None: a score is expected."""

    key: bytes
    value: bytes | None
    rejected_for: Reason | None


class _Fault(NamedTuple):
    """Kind of invalid contact: the expected reason, the number in 20,000 contacts, and the change that causes it.

    ``spoil`` changes the event before it is encoded, ``damage`` the encoded bytes. ``at_most``: limit for any run.
    """

    reason: Reason
    of_20000: int
    spoil: Callable[[dict[str, Any]], None] | None = None
    damage: Callable[[bytes, Random], bytes | None] | None = None
    at_most: int | None = None


def no_faults(_contact_id: str) -> bool:
    """Select no contact."""
    return False


def contacts(
    codec: Codec, amount: int, *, seed: int, now_ms: int, spared: Callable[[str], bool] = no_faults
) -> Iterator[Generated]:
    """Yield the records in the order of production.

    Args:
        codec: codec of ``ContactFeatures``.
        amount: number of records.
        seed: the same seed and ``now_ms`` give the same records.
        now_ms: Unix milliseconds; the events occurred in the hour before.
        spared: returns True for contact ids that must be valid.
    """
    draw = Random(seed)  # noqa: S311 - repeatable, not secret  # nosec B311
    faults = _places(amount, draw)
    for number in range(amount):
        # Some contacts are repeated: the same id, another event. Both must be answered.
        again = number > 0 and draw.random() < _REPEATED_SHARE
        event = _event(draw.randrange(number) if again else number, number, draw, now_ms)
        fault = faults.get(number)
        if fault is None or spared(event["contact_id"]):
            yield Generated(_key(event), codec.encode(event), None)
            continue
        key = _key(event)
        if fault.spoil is not None:
            fault.spoil(event)
            key = _key(event)
        value: bytes | None = codec.encode(event)
        if fault.damage is not None and value is not None:
            value = fault.damage(value, draw)
        yield Generated(key, value, fault.reason)


def expected_rejections(amount: int) -> Mapping[Reason, int]:
    """Return the number of contacts that must be rejected, by reason."""
    sums: Counter[Reason] = Counter()
    for fault, times in _amounts(amount):
        sums[fault.reason] += times
    return MappingProxyType(sums)


def _amounts(amount: int) -> list[tuple[_Fault, int]]:
    """Return the number of each fault: in proportion, at least one, but in no more than half of all contacts."""
    left = amount // 2
    found = []
    for fault in _FAULTS:
        times = max(1, fault.of_20000 * amount // 20_000)
        times = min(times, left, times if fault.at_most is None else fault.at_most)
        left -= times
        found.append((fault, times))
    return found


def _places(amount: int, draw: Random) -> dict[int, _Fault]:
    """Return the fault of each number. Those that the API refuses are early.

    While other contacts are scored around them, these are the evidence against them. At the end of the stream, or after
    an outage, it would be up to twelve controls for each, of which 20 a minute are sent.
    """
    faults = [fault for fault, times in _amounts(amount) for _ in range(times)]
    early = [fault for fault in faults if fault.reason in REFUSED_BY_API]
    late = [fault for fault in faults if fault.reason not in REFUSED_BY_API]
    first = draw.sample(range(max(amount // 8, len(early))), len(early))
    rest = draw.sample(sorted(set(range(amount)) - set(first)), len(late))
    return dict(zip((*first, *rest), (*early, *late), strict=True))


def _key(event: Mapping[str, Any]) -> bytes:
    return str(event["contact_id"]).encode()


def _event(contact: int, number: int, draw: Random, now_ms: int) -> dict[str, Any]:
    return {
        "event_id": f"demo-event-{number:07d}",
        "contact_id": f"DEMO-{contact:07d}",
        "features": _features(draw),
        "occurred_at": now_ms - draw.randrange(3_600_000),
        "campaign_id": draw.choice(_CAMPAIGNS),
        "model_version": None,
        "attributes": {"phone": f"+49 170 {contact:07d}"},
    }


def _features(draw: Random) -> dict[str, Any]:
    """Return the tutorial's four features, with gaps as in real lists: some null, some absent."""
    features: dict[str, Any] = {
        "previous_calls": min(int(draw.expovariate(0.6)), 20),
        "avg_handle_time": round(draw.lognormvariate(5.2, 0.6), 1),  # seconds; the median is three minutes
        "last_contact_days": draw.randrange(60) if draw.random() < 0.4 else None,  # noqa: PLR2004 - most were never called
        "segment_id": draw.choice(_SEGMENTS),
    }
    if draw.random() < 0.05:  # noqa: PLR2004 - a share
        features[draw.choice(("previous_calls", "segment_id"))] = None
    if draw.random() < 0.05:  # noqa: PLR2004 - a share
        del features["avg_handle_time"]
    return features


# --- faults


def _set_feature(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(event: dict[str, Any]) -> None:
        event["features"][name] = value

    return spoil


def _add_features(event: dict[str, Any]) -> None:
    event["features"].update({f"extra_{number}": number for number in range(_MAX_FEATURES)})


def _set_id(contact_id: str) -> Callable[[dict[str, Any]], None]:
    def spoil(event: dict[str, Any]) -> None:
        event["contact_id"] = contact_id

    return spoil


def _prefix_id(prefix: str) -> Callable[[dict[str, Any]], None]:
    def spoil(event: dict[str, Any]) -> None:
        event["contact_id"] = prefix + event["contact_id"]

    return spoil


def _set_unknown_version(event: dict[str, Any]) -> None:
    event["model_version"] = _UNKNOWN_VERSION


def _nothing(_value: bytes, _draw: Random) -> None:
    return None


def _garbage(value: bytes, draw: Random) -> bytes:
    return b"\x00\xff" + draw.randbytes(len(value))


def _unknown_fingerprint(value: bytes, _draw: Random) -> bytes:
    return value[:_MARKER_BYTES] + b"\xde\xad\xbe\xef\xde\xad\xbe\xef" + value[_HEADER_BYTES:]


def _cut_off(value: bytes, draw: Random) -> bytes:
    return value[: draw.randrange(_HEADER_BYTES, len(value))]


# The simulator refuses ids by prefix: one prefix names the contact, the other does not, so that it must be found by
# bisection with some twenty requests each. The number of the latter is therefore limited.
_FAULTS: Final = (
    _Fault(Reason.UNDECODABLE, 20, damage=_garbage),
    _Fault(Reason.REFUSED_BY_API, 6, spoil=_prefix_id("REFUSE-NAMED-"), at_most=500),
    _Fault(Reason.REFUSED_BY_API, 3, spoil=_prefix_id("REFUSE-"), at_most=20),
    _Fault(Reason.WRONG_TYPE, 20, spoil=_set_feature("previous_calls", "three")),
    _Fault(Reason.OUT_OF_RANGE, 20, spoil=_set_feature("avg_handle_time", float("inf"))),
    _Fault(Reason.OUT_OF_RANGE, 10, spoil=_set_feature("last_contact_days", 2**60)),
    _Fault(Reason.UNSUPPORTED_FEATURE, 20, spoil=_set_feature("shoe_size", 42)),
    _Fault(Reason.TOO_MANY_FEATURES, 10, spoil=_add_features),
    _Fault(Reason.UNDECODABLE, 10, damage=_nothing),
    _Fault(Reason.UNDECODABLE, 10, damage=_unknown_fingerprint),
    _Fault(Reason.UNDECODABLE, 10, damage=_cut_off),
    _Fault(Reason.INVALID_CONTACT, 5, spoil=_set_id("")),
    _Fault(Reason.INVALID_CONTACT, 5, spoil=_set_id("D" * (_MAX_ID_BYTES + 1))),
    _Fault(Reason.UNKNOWN_MODEL_VERSION, 4, spoil=_set_unknown_version),
    _Fault(Reason.TOO_LARGE, 1, spoil=_set_feature("segment_id", "x" * _MAX_REQUEST_BYTES), at_most=5),
)
