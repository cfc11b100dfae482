"""Campaign side of the demo: waits for the receipts, and verifies the contacts that were received or dialled."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_scorer.core.avro.codec import Codec
from stream_scorer.errors import CheckFailed, LocalError
from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.consumer.log_reader import LogReader
from stream_scorer.reconciliation import reconcile_callbacks
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.reconciliation.callback_report import CallbackReport
    from stream_scorer.local.receiver import Receiver
    from stream_scorer.local.simulator import Simulator
    from stream_scorer.settings import Settings

_LOOK_EVERY_S: Final = 0.3
_STALLED_S: Final = 60.0
_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class DeliveredCallbacks:
    """Counts of the campaign manager: callbacks, distinct contacts in them, and repeated callbacks."""

    callbacks: int
    contacts: int
    repeats: int


def wait_for_receipts(settings: Settings, check: Callable[[], None]) -> CallbackReport:
    """Return the reconciliation of scores and receipts once no score is waiting.

    Args:
        settings: settings of the campaign worker.
        check: called repeatedly; raises an error if waiting cannot succeed.

    Raises:
        LocalError: nothing has changed for a minute.
    """
    before, changed = None, time.monotonic()
    while True:
        check()
        report = reconcile_callbacks(settings)
        if report is not None and not report.counts.waiting and not report.counts.unplanned:
            return report
        now = time.monotonic()
        if report != before:
            before, changed = report, now
        elif now - changed > _STALLED_S:
            waiting = "it has not begun" if report is None else report.equation
            raise LocalError(f"the campaign worker has delivered nothing for {_STALLED_S:g} s: {waiting}")
        time.sleep(_LOOK_EVERY_S)


def verify_delivered(settings: Settings, receiver: Receiver) -> DeliveredCallbacks:
    """Compare the contacts that the campaign manager received with the scores on the topic.

    Raises:
        CheckFailed: they differ, a callback was repeated with a different body, or a signature was invalid.
    """
    high = _high_scores(settings)
    known = set(receiver.contacts())
    stats = receiver.stats()
    counts = {
        "contacts with a high score that the campaign manager did not receive": len(high - known),
        "contacts without a high score that the campaign manager received": len(known - high),
        "callbacks that were repeated with a different body": stats.changed,
        "callbacks with an invalid signature": stats.unverified,
    }
    wrong = [f"{amount:,} {what}" for what, amount in counts.items() if amount]
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return DeliveredCallbacks(stats.callbacks, stats.contacts, stats.repeats)


def verify_dialled(settings: Settings, simulator: Simulator) -> int:
    """Let the dialler call all that wait, and compare its calls with the scores on the topic.

    Returns:
        The number of calls.

    Raises:
        CheckFailed: another contact than those with a high score was called, one was not, or one was called twice.
    """
    simulator.dial()
    high = _high_scores(settings)
    calls = [dial.data["contact_id"] for dial in simulator.dials()]
    counts = {
        "contacts with a high score that were not called": len(high - set(calls)),
        "contacts without a high score that were called": len(set(calls) - high),
        "calls of a contact that was called before": len(calls) - len(set(calls)),
    }
    wrong = [f"{amount:,} {what}" for what, amount in counts.items() if amount]
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return len(calls)


def _high_scores(settings: Settings) -> set[str]:
    """Return the contact ids of the scores at or over the threshold."""
    topic, threshold = settings.topics.scores, settings.callbacks.threshold
    codec = Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE))
    log = LogReader(settings, settings.callbacks_group_id, timeout_s=_TIMEOUT_S)
    extents = log.stable_ranges(topic, check_topics(settings, [topic])[topic])
    scores = (codec.decode(record.value) for batch in log.read(topic, extents) for record in batch)
    return {score["contact_id"] for score in scores if score["score"] >= threshold}
