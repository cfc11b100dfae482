"""New bodies for rejected callbacks, built from their scores for the present settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.callbacks.records import read_score
from stream_scorer.core.desk.redelivery import retargeted_id
from stream_scorer.core.desk.verdict import SkipReason
from stream_scorer.core.retry_topics import parse_source
from stream_scorer.kafka.consumer.log_reader import OffsetRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_scorer.callbacks.ports import Target
    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.callbacks.types import Callback, Score
    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.retry_topics import Source
    from stream_scorer.kafka.consumer.log_reader import LogReader

_ANY_ID = "-" * 36


class Rebuilt(NamedTuple):
    """Callback that gets a new id and a new body with the decision; ``entries``: the contacts of the body."""

    callback: Callback
    target: Target
    model_id: str
    entries: Sequence[bytes]

    @property
    def fits(self) -> bool:
        """Whether the target accepts the size of its body."""
        return len(self._body(_ANY_ID, 0)) < self.target.max_body_bytes

    def decided(self, decision: Decision) -> Callback:
        """Return the new callback of a decision."""
        old = self.callback
        new_id = retargeted_id(old, decision.decision_id)
        target = self.target.target_of(old.campaign_id)
        return replace(old, callback_id=new_id, target=target, body=self._body(new_id, decision.decided_at_ms))

    def _body(self, callback_id: str, planned_at_ms: int) -> bytes:
        return self.target.body(callback_id, self.callback.campaign_id, self.model_id, planned_at_ms, self.entries)


class Retarget:
    """See the module docstring.

    Args:
        log: reads the scores topic.
        topic: that topic.
        partitions: its number of partitions.
        codec: decodes scores.
        target: the present target.
    """

    def __init__(self, log: LogReader, topic: str, partitions: int, codec: Codec, target: Target) -> None:
        self._log = log
        self._topic = topic
        self._codec = codec
        self._target = target
        self._ranges = log.stable_ranges(topic, partitions)

    def __call__(self, callback: Callback) -> Rebuilt | SkipReason:
        """Return what a callback becomes, or why its body cannot be built."""
        scores = self._scores(callback)
        if scores is None:
            return SkipReason.NO_SCORES
        entries = [self._target.entry(score) for score in scores]
        rebuilt = Rebuilt(callback, self._target, scores[0].model_id, entries)
        return rebuilt if rebuilt.fits else SkipReason.BODY_TOO_LARGE

    def _scores(self, callback: Callback) -> list[Score] | None:
        """Return the scores of a callback, in order; None: one is deleted, or is that of another contact."""
        sources = [parse_source(source) for source in callback.sources]
        places = [one for one in sources if one is not None and self._is_there(one)]
        if not sources or len(places) < len(sources) or len(callback.contact_ids) != len(sources):
            return None
        found = self._read(places)
        scores = []
        for place, contact_id in zip(places, callback.contact_ids, strict=True):
            score = found.get(place)
            if score is None or score.contact_id != contact_id or score.campaign_id != callback.campaign_id:
                return None
            scores.append(score)
        return scores

    def _is_there(self, place: Source) -> bool:
        extent = self._ranges.get(place.partition)
        return place.topic == self._topic and extent is not None and extent.begin <= place.offset < extent.end

    def _read(self, places: Sequence[Source]) -> Mapping[Source, Score]:
        offsets: dict[int, list[int]] = {}
        for place in places:
            offsets.setdefault(place.partition, []).append(place.offset)
        extents = {number: OffsetRange(min(some), max(some) + 1) for number, some in offsets.items()}
        wanted = {(place.partition, place.offset): place for place in places}
        return {
            wanted[record.partition, record.offset]: score
            for record in self._records(extents)
            if (record.partition, record.offset) in wanted and (score := self._score(record)) is not None
        }

    def _records(self, extents: Mapping[int, OffsetRange]) -> Iterator[SourceRecord]:
        for batch in self._log.read(self._topic, extents):
            for one in batch:
                yield one.as_source_record(self._topic)

    def _score(self, record: SourceRecord) -> Score | None:
        try:
            return read_score(self._codec, record)
        except UndecodableError:
            return None
