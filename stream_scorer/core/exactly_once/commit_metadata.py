"""Commit metadata: `key=value` pairs separated by `;`, such as `start=10;topic=LqTzBx8rQy6iA1t8Qr3dYg`.

Every commit repeats the group's start offset on the partition and the id of the topic. A topic that is deleted and
created again keeps its name; its id differs, and its offsets restart at 0. Unknown keys are kept, so that a rollback
loses nothing that a later version has written.
"""

from __future__ import annotations

from typing import Final, NamedTuple

START: Final = "start"
TOPIC: Final = "topic"
SINCE: Final = "since"
SCHEMAS: Final = "schemas"
_OWN: Final = (START, TOPIC, SINCE, SCHEMAS)
_MAX_SCHEMA_DIGITS: Final = 10
# The brokers' default limit is 4,096 bytes (offset.metadata.max.bytes).
_MAX_CHARACTERS: Final = 2_048
_MAX_DIGITS: Final = 19
_MAX_SCHEMAS: Final = 50


class CommitMetadata(NamedTuple):
    """Metadata of a group's commit on a partition.

    Attributes:
        start: the group's start offset; None: another program committed.
        topic_id: id of the topic whose offset this is; None: not known, as in commits of older versions.
        since_ms: the time after the newest output when the group accepted a topic that had been created again, in Unix
            milliseconds. Records with an earlier Kafka time belong to the former topic. None: never.
        schema_ids: ids of the schema registry that the group has resolved.
        others: pairs with unknown keys, in their order.
    """

    start: int | None = None
    topic_id: str | None = None
    since_ms: int | None = None
    schema_ids: tuple[int, ...] = ()
    others: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        schemas = ",".join(map(str, self.schema_ids)) or None
        values = zip(_OWN, (self.start, self.topic_id, self.since_ms, schemas), strict=True)
        pairs = [f"{key}={value}" for key, value in values if value is not None]
        length = len(";".join(pairs))
        for key, value in self.others:
            pair = f"{key}={value}"
            length += len(pair.encode()) + 1
            if length <= _MAX_CHARACTERS:
                pairs.append(pair)
        return ";".join(pairs)

    def adopt(self, topic_id: str | None) -> CommitMetadata:
        """Return this metadata, with the id of the present topic if it has none."""
        return self if self.topic_id is not None else self._replace(topic_id=topic_id)

    def contradicts(self, topic_id: str | None) -> bool:
        """Return whether the commit belongs to another topic than the present one; False if an id is not known."""
        return None not in (self.topic_id, topic_id) and self.topic_id != topic_id


def parse_metadata(metadata: str | None) -> CommitMetadata:
    """Parse commit metadata; parts that are no pair are dropped."""
    own: dict[str, str] = {}
    others = []
    for part in (metadata or "").split(";"):
        key, sign, value = part.partition("=")
        if not sign or not key:
            continue
        if key in _OWN:
            own.setdefault(key, value)
        else:
            others.append((key, value))
    schema_ids = [int(one) for one in own.get(SCHEMAS, "").split(",") if _is_number(one, _MAX_SCHEMA_DIGITS)]
    return CommitMetadata(
        _number(own.get(START)),
        own.get(TOPIC) or None,
        _number(own.get(SINCE)),
        tuple(schema_ids[:_MAX_SCHEMAS]),
        tuple(others),
    )


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and _is_number(value, _MAX_DIGITS) else None


def _is_number(value: str, max_digits: int) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= max_digits
