"""Decoder of the records of all topics of the service, in both framings.

A topic has values of one schema, except the callbacks' rejected topic. But several settings may name one topic. So a
value is decoded with the schema of the topic that was asked for, and else with those of the others of the same name.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decoded_record import DecodedRecord
from stream_scorer.core.retry_topics import SOURCE_HEADER, parse_source
from stream_scorer.core.text import quoted
from stream_scorer.errors import UsageError
from stream_scorer.kafka.admin.topics import existing_topics
from stream_scorer.kafka.registry.serde import make_blocking_serde
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.settings import Settings

_TRUNCATED: Final = "stream-scorer-error-truncated"
# The worker's own limit.
_MAX_RECORD_BYTES: Final = 4 * 1024 * 1024
_SCHEMAS: Final[Mapping[str, tuple[SchemaFile, ...]]] = MappingProxyType(
    {
        "features": (SchemaFile.CONTACT_FEATURES,),
        "features_retry": (SchemaFile.CONTACT_FEATURES,),
        "scores": (SchemaFile.CONTACT_SCORE,),
        "review": (SchemaFile.CONTACT_SCORE,),
        "rejected": (SchemaFile.CONTACT_FEATURES,),
        "audit": (SchemaFile.BATCH_AUDIT,),
        "callbacks": (SchemaFile.CAMPAIGN_CALLBACK,),
        "callbacks_retry": (SchemaFile.CAMPAIGN_CALLBACK,),
        "callbacks_rejected": (SchemaFile.CAMPAIGN_CALLBACK, SchemaFile.CONTACT_SCORE),
        "receipts": (SchemaFile.CALLBACK_RECEIPT,),
        "decisions": (SchemaFile.DECISION,),
    }
)
TOPIC_KEYS: Final = tuple(_SCHEMAS)


def topic_key(name: str) -> str:
    """Return the key in ``topics.*`` of a command's argument, in which ``-`` stands for ``_``.

    Raises:
        UsageError: there is no such key.
    """
    key = name.replace("-", "_")
    if key not in _SCHEMAS:
        names = ", ".join(one.replace("_", "-") for one in TOPIC_KEYS)
        raise UsageError(f"unknown topic {quoted(name)}: must be one of {names}")
    return key


def topic_names(settings: Settings, key: str) -> tuple[str, ...]:
    """Return the names that a key stands for; of a prefix, those of all levels, level 1 first."""
    topics = settings.topics
    match key:
        case "features_retry":
            return topics.contact_retries()
        case "callbacks_retry":
            return topics.retries()
        case _:
            return (str(getattr(topics, key)),)


def topics_of(settings: Settings, key: str) -> tuple[str, ...]:
    """Return the topics of a key: one, or the retry topics that exist, level 1 first.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    names = topic_names(settings, key)
    # A key without any topic is an error of the scan, which names level 1.
    return names if len(names) == 1 else existing_topics(settings, names) or names[:1]


class RecordDecoder:
    """Decoder of the records of the topics of one key.

    Args:
        settings: the schema registry, if there is one.
        key: of ``topics.*``, as `topic_key` returns it.

    Raises:
        SettingsError: ``schema_registry.properties`` is invalid.
    """

    def __init__(self, settings: Settings, key: str) -> None:
        serde = make_blocking_serde(settings)
        name = getattr(settings.topics, key)
        same = [other for other in TOPIC_KEYS if other != key and getattr(settings.topics, other) == name]
        schemas = dict.fromkeys(schema for one in (key, *same) for schema in _SCHEMAS[one])
        self._codecs = {schema: serde.reader(schema, max_bytes=_MAX_RECORD_BYTES) for schema in schemas}
        self._scores = settings.topics.scores

    def decode(self, record: SourceRecord) -> DecodedRecord:
        """Return the record with its value, or with the reason that it has none.

        Raises:
            RegistryError: the schema registry does not answer, or refuses the request.
        """
        reason = ""
        for codec in self._candidates(record):
            try:
                return DecodedRecord(record, codec.name, codec.decode(record.value))
            except UndecodableError as error:
                reason = reason or str(error)
        if record.value is None and any(name == _TRUNCATED for name, _ in record.headers):
            reason = "the value was too large for this topic: read the record at its source"
        return DecodedRecord(record, None, None, reason)

    def _candidates(self, record: SourceRecord) -> list[Codec]:
        """Return the codecs, that of the record's source first: its fault is the one to show."""
        codecs = dict(self._codecs)
        if len(codecs) > 1 and SchemaFile.CONTACT_SCORE in codecs and self._is_from_scores(record):
            return [codecs.pop(SchemaFile.CONTACT_SCORE), *codecs.values()]
        return list(codecs.values())

    def _is_from_scores(self, record: SourceRecord) -> bool:
        source = next((value or b"" for name, value in record.headers if name == SOURCE_HEADER), b"")
        place = parse_source(source.decode(errors="replace"))
        return place is not None and place.topic == self._scores
