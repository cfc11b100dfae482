"""Metrics of both services: messages and operations by OpenTelemetry's conventions, and consumer lag.

Every method takes a sum or a state; none is called once a contact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.core.exactly_once.stall_detector import NOTHING_READ

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import Meter

    from stream_scorer.core.exactly_once.stall_detector import ConsumerLag

# The boundaries that the HTTP and messaging conventions advise, plus 20 and 30: a scoring request may take 30 s.
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 30)
# A batch may wait for the next quota window, or for the end of an outage, before it is committed.
_PROCESS_SECONDS: Final = (*SECONDS, 60, 120, 300, 900)
_KINDS: Final = {"poll": "receive", "send": "send", "commit": "settle"}


class MessagingMetrics:
    """Instruments for messages, operations, transactions and consumer lag.

    Args:
        meter: creates the instruments.
        loops: values of the ``loop`` attribute; empty: there is one loop, without that attribute.
    """

    def __init__(self, meter: Meter, loops: Iterable[str] = ()) -> None:
        self._consumed = meter.create_counter("messaging.client.consumed.messages", "{message}", "Records read.")
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Records written in transactions that committed."
        )
        self._operation = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of poll (with records), send (the records of a transaction) and commit.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._process = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "From the start of work on a batch to the commit of its outcomes.",
            explicit_bucket_boundaries_advisory=_PROCESS_SECONDS,
        )
        self._transactions = meter.create_counter("stream_scorer.transactions", "{transaction}", "Kafka transactions.")
        self._partitions = meter.create_gauge("stream_scorer.partitions.owned", "{partition}", "Partitions assigned.")
        self._lag = meter.create_gauge(
            "stream_scorer.consumer.lag", "{message}", "Records in the log that are not committed, by partition."
        )
        self._oldest = meter.create_gauge(
            "stream_scorer.oldest_uncommitted.age",
            "s",
            "Age of the oldest record that is read and not committed; 0: none.",
        )
        self._stalled = meter.create_gauge(
            "stream_scorer.commit.stall_time",
            "s",
            "Time since the last progress of a partition's commits; the longest.",
        )
        self._unexplained = meter.create_gauge(
            "stream_scorer.commit.unexplained_stall_time",
            "s",
            "The same, counted from when a reason was last known; decides the status of /livez.",
        )
        self._measured: dict[str, set[tuple[str, int]]] = {}
        # Start at 0, so that rates and alerts are right from the first event on.
        for loop in tuple(loops) or ("",):
            for outcome in ("committed", "refused", "failed"):
                self._transactions.add(0, _of(loop, {"outcome": outcome}))
            for operation, counter in (("poll", self._consumed), ("send", self._sent)):
                counter.add(0, _messaging(operation, loop))
            self._partitions.set(0, _of(loop, {}))
            self.input(NOTHING_READ, loop=loop)

    def consumed(self, records: int, *, poll_s: float = 0.0, loop: str = "") -> None:
        """Count the records of one poll, and record its duration."""
        self._consumed.add(records, _messaging("poll", loop))
        self._operation.record(poll_s, _messaging("poll", loop))

    def sent(self, records: int, *, loop: str = "") -> None:
        """Count records written in a committed transaction."""
        self._sent.add(records, _messaging("send", loop))

    def transaction(self, *, outcome: str, send_s: float = 0.0, commit_s: float = 0.0, loop: str = "") -> None:
        """Count one transaction: ``committed``, ``refused`` (a record, by the broker) or ``failed``."""
        self._transactions.add(1, _of(loop, {"outcome": outcome}))
        if outcome == "committed":
            self._operation.record(send_s, _messaging("send", loop))
            self._operation.record(commit_s, _messaging("commit", loop))

    def processed(self, duration_s: float, *, loop: str = "") -> None:
        """Record the time from the start of work on a batch to its commit."""
        self._process.record(duration_s, _messaging("process", loop))

    def partitions(self, owned: int, *, loop: str = "") -> None:
        """Set the number of assigned partitions."""
        self._partitions.set(owned, _of(loop, {}))

    def input(self, state: ConsumerLag, *, loop: str = "") -> None:
        """Set lag, age and stall times of the input."""
        self._oldest.set(state.oldest_age_s, _of(loop, {}))
        self._stalled.set(state.stalled_s, _of(loop, {}))
        self._unexplained.set(state.unexplained_s, _of(loop, {}))
        gone = self._measured.get(loop, set()) - state.lags.keys()
        for topic, partition in (*state.lags, *gone):
            # The new owner of a revoked partition reports its lag; a stale value here would count it twice.
            lag = state.lags.get((topic, partition), 0)
            self._lag.set(lag, _of(loop, {"topic": topic, "partition": str(partition)}))
        self._measured[loop] = set(state.lags)


def _messaging(operation: str, loop: str) -> dict[str, str]:
    kind = _KINDS.get(operation, operation)
    said = {"messaging.system": "kafka", "messaging.operation.name": operation, "messaging.operation.type": kind}
    return _of(loop, said)


def _of(loop: str, attributes: dict[str, str]) -> dict[str, str]:
    return {**attributes, "loop": loop} if loop else attributes
