"""Writes ``ContactScore`` values: what a request gave to a thousand contacts is encoded once for all of them.

The order of the fields stands in the code here, and is compared with the schema when a writer is made. The parts are
written by the functions of `stream_scorer.core.avro.encoder`, and a test compares whole values with those of
`Codec.encode`, which takes three times as long for what is done to every contact there is.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.avro.encoder import compile_writer
from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.records import RequestAudit, Scored

_FIELDS: Final = [
    ("event_id", "string"),
    ("contact_id", "string"),
    ("campaign_id", ["null", "string"]),
    ("model_id", "string"),
    ("model_version", ["null", "string"]),
    ("score", "double"),
    ("confidence_lower", "double"),
    ("confidence_upper", "double"),
    ("latency_ms", "double"),
    ("occurred_at", {"type": "long"}),
    ("scored_at", {"type": "long"}),
    ("imputed_features", {"type": "array", "items": "string"}),
    ("batch_id", "string"),
    ("review_reasons", {"type": "array", "items": "string"}),
]
_string: Final = compile_writer("string")
_optional: Final = compile_writer(["null", "string"])
_strings: Final = compile_writer({"type": "array", "items": "string"})
_long: Final = compile_writer("long")
_double: Final = compile_writer("double")
_three_doubles: Final = Struct("<ddd").pack


class _Shared(NamedTuple):
    """What every score of one request has in common, encoded, in the order of the fields."""

    model: bytes
    latency: bytes
    scored_at: bytes
    batch_id: bytes


class ScoreEncoder:
    """Encodes scores with a codec's framing. The last request is remembered: its contacts come one after another."""

    __slots__ = ("_header", "_request", "_shared")

    def __init__(self, codec: Codec) -> None:
        """Take header and schema from the codec of ``ContactScore``.

        Raises:
            SettingsError: its schema has other fields than this writer writes.
        """
        if [(field["name"], field["type"]) for field in codec.schema["fields"]] != _FIELDS:
            raise SettingsError(
                "the schema of scores has other fields than are written: adapt core/scoring/score_encoder.py"
            )
        self._header = codec.header
        self._request: RequestAudit | None = None
        self._shared = _Shared(b"", b"", b"", b"")

    def encode(self, scored: Scored) -> bytes:
        """Return the framed value of a score."""
        contact, request, score, lower, upper, review_reasons = scored
        if request is not self._request:
            self._request, self._shared = request, _shared_by(request)
        model, latency, scored_at, batch_id = self._shared
        return b"".join(
            (
                self._header,
                _string(contact.event_id),
                _string(contact.contact_id),
                _optional(contact.campaign_id),
                model,
                _three_doubles(score, lower, upper),
                latency,
                _long(contact.occurred_at_ms),
                scored_at,
                _strings(contact.imputed_features),
                batch_id,
                _strings(review_reasons),
            )
        )


def _shared_by(request: RequestAudit) -> _Shared:
    return _Shared(
        _string(request.model_id) + _optional(request.model_version),
        _double(request.latency_ms or 0.0),
        _long(request.finished_at_ms),
        _string(request.batch_id),
    )
