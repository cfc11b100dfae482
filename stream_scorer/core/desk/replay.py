"""Replay of rejected contacts: which records are selected, and what goes back to the features topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.rejected_contact import event_of
from stream_scorer.core.desk.rejected_record import REPLAY_OF_HEADER, REPLAYS_HEADER, RejectionState
from stream_scorer.core.desk.verdict import Decide, NotSelected, Output, Skip, SkipReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.desk.desk_filter import DeskFilter
    from stream_scorer.core.desk.rejected_contact import RejectedContact
    from stream_scorer.core.desk.rejected_record import RejectedRecord
    from stream_scorer.core.desk.verdict import Verdict
    from stream_scorer.core.records import Headers, SourceRecord
    from stream_scorer.core.retry_topics import Source
    from stream_scorer.core.scoring.types import ContactEvent


class ContactChanges(Protocol):
    """Changes to a contact."""

    @property
    def texts(self) -> Mapping[str, str]:
        """The changes as they were given, by name."""

    def apply(self, event: ContactEvent) -> ContactEvent:
        """Return the changed contact."""


class Replay:
    """Judge that puts rejected contacts back on the features topic.

    Args:
        selected: the filter.
        decode: decodes the value of an input, or raises `UndecodableError`.
        features: name of the features topic.
        partitions: its number of partitions.
        fits: whether the features topic accepts a record for its size.
        changes: changes to each contact; None: the value is replayed byte for byte.
        encode: the value of a changed contact.
        max_replays: a contact that was replayed so often is parked.
        original: returns the input of a contact whose value did not fit into its rejection; None: it is deleted.
        forwarded: the headers of the input that are its own.
    """

    action = Action.REPLAYED

    def __init__(
        self,
        selected: DeskFilter[RejectedContact],
        *,
        decode: Callable[[bytes | None], ContactEvent],
        features: str,
        partitions: int,
        fits: Callable[[Output], bool],
        changes: ContactChanges | None,
        encode: Callable[[ContactEvent], bytes],
        max_replays: int,
        original: Callable[[RejectedRecord], SourceRecord | None],
        forwarded: Callable[[Headers], Headers],
    ) -> None:
        self._selected = selected
        self._decode = decode
        self._features = features
        self._partitions = partitions
        self._fits = fits
        self._changes = changes
        self._encode = encode
        self._max_replays = max_replays
        self._original = original
        self._forwarded = forwarded

    def judge(self, record: SourceRecord, action: str | None) -> Verdict:
        """Return the verdict about a record of the rejected topic."""
        replayed = self.replayed(record, action)
        if not isinstance(replayed, Output):
            return replayed

        def publish(_: Decision) -> Output:
            return replayed

        return Decide(publish, {} if self._changes is None else self._changes.texts)

    def replayed(self, record: SourceRecord, action: str | None) -> Output | Skip | NotSelected:
        """Return what a replay of the record publishes, or why it is not replayed."""
        found = self._selected.read(record)
        if found is None:
            return NotSelected()
        rejected, event = found
        origin = rejected.origin
        if origin is None or origin.topic != self._features:
            return Skip(SkipReason.FOREIGN)
        state = rejected.state(action, self._max_replays)
        if state is RejectionState.PARKED:
            return Skip(SkipReason.PARKED)
        if state is not RejectionState.OPEN:
            return Skip(SkipReason.DONE_BEFORE)
        return self._replay(rejected, origin, event)

    def _replay(self, rejected: RejectedRecord, origin: Source, event: ContactEvent | None) -> Output | Skip:
        record = rejected.record
        key, value, headers = record.key, record.value, record.headers
        if rejected.is_truncated:
            found = self._original(rejected)
            if found is None:
                return Skip(SkipReason.NOT_DECIDABLE)
            key, value, headers = found.key, found.value, found.headers
            event = event_of(found, self._decode)
        if self._changes is not None:
            if event is None:
                return Skip(SkipReason.NOT_DECIDABLE)
            value = self._encode(self._changes.apply(event))
        own: Headers = [
            (REPLAYS_HEADER, b"%d" % (rejected.replays + 1)),
            (REPLAY_OF_HEADER, record.source.encode()),
        ]
        partition = origin.partition if origin.partition < self._partitions else -1
        output = Output(self._features, key, value, [*self._forwarded(headers), *own], partition)
        return output if self._fits(output) else Skip(SkipReason.TOO_LARGE)
