"""Check of a contact under the present settings, as the scoring worker checks it before any request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.core.scoring.types import Contact, Rejected
from stream_scorer.genesys.wire import body_overhead, encode_contact
from stream_scorer.schema_files import SchemaFile
from stream_scorer.scoring.intake import Intake

if TYPE_CHECKING:
    from stream_scorer.core.records import Headers
    from stream_scorer.kafka.registry.serde import Serde
    from stream_scorer.settings import Settings

_MAX_RECORD_BYTES: Final = 4 * 1024 * 1024


class ContactCheck:
    """See the module docstring.

    Args:
        settings: of the scoring workers.
        framing: decodes values.
    """

    def __init__(self, settings: Settings, framing: Serde) -> None:
        features = FeatureList(tuple(settings.model.features.values()), settings.model.max_features)
        self._topic = settings.topics.features
        self._max_bytes = settings.scoring.max_request_bytes
        self._intake = Intake(
            codec=framing.reader(SchemaFile.CONTACT_FEATURES, max_bytes=_MAX_RECORD_BYTES),
            checker=ContactChecker(features, settings.scoring.max_event_age_s),
            encode=encode_contact,
            fits=self._fits,
            model_version=settings.genesys.model_version,
        )

    def __call__(self, key: bytes | None, value: bytes | None, headers: Headers, now_ms: int) -> Rejected | None:
        """Return the rejection of a record that is written to the features topic now; None: it is sent to the API."""
        record = SourceRecord(self._topic, 0, 0, key, value, headers, timestamp_ms=now_ms)
        found = self._intake.examine(record, now_ms)
        return found if isinstance(found, Rejected) else None

    def _fits(self, contact: Contact) -> bool:
        return len(contact.body) <= self._max_bytes - body_overhead(contact.model_version)
