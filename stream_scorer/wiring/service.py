"""Base of both services: admin server, start and end, and the consumer of a loop."""

from __future__ import annotations

import random
import threading
import time
import uuid
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.kafka.client.blocking_calls import StoppedError
from stream_scorer.kafka.client.config import admin_config, silent_logger
from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
from stream_scorer.kafka.consumer.latest_offsets import LatestOffsets
from stream_scorer.kafka.consumer.topic_ids import TopicIdentity, TopicIds
from stream_scorer.runtime.admin_server import AdminServer
from stream_scorer.runtime.clock import Clock
from stream_scorer.telemetry.collectors import close_within_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_scorer.kafka.registry.paused_schema_partitions import SchemaLookup
    from stream_scorer.runtime.loop_observer import LoopObserver
    from stream_scorer.settings import Settings
    from stream_scorer.telemetry.meter_provider import ServiceMetrics

MAX_RECORD_BYTES: Final = 4 * 1024 * 1024
# How long a loop may stand still before /livez fails: several times the time-out of any of its calls.
_LIVE_LIMIT_S: Final = 120.0


class Service(ABC):
    """Loops with their connections, ready to ``run``.

    Args:
        settings: of everything.
        clock: time.
        metrics: exported at the admin port.
        close_traces: exports the remaining spans.

    Attributes:
        stopping: set when the shutdown begins, whatever its cause.
        metrics: the instruments.
    """

    # The setting of the admin port, for errors.
    _admin_setting = "admin.port"

    def __init__(
        self, settings: Settings, clock: Clock, metrics: ServiceMetrics, close_traces: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._clock = clock
        self.metrics = metrics
        self._close_traces = close_traces
        self.stopping = threading.Event()

    def stop(self) -> None:
        """Request the loops to finish the requests in flight and end; safe before ``run``, not in a signal handler."""
        self.stopping.set()

    def run(self) -> None:
        """Run until ``stop``, or until a loop ends with an error.

        Raises:
            ApiRefused: the platform refuses the client or the model, at start or later.
            LocalError: the admin port is taken.
            BrokerRefused: Kafka refuses the client permanently.
            ProducerFenced: another running worker uses the same transactional id.
        """
        limit_s = self._settings.admin.max_unexplained_wait_s
        admin = AdminServer(
            self._settings.admin.host,
            self._admin_port,
            live=lambda: _first(one.liveness_failure(_LIVE_LIMIT_S, limit_s) for one in self._observers),
            ready=lambda: _first(one.readiness_failure() for one in self._observers),
            metrics=self.metrics.exposition,
            setting=self._admin_setting,
            notes=lambda: [note for one in self._observers for note in one.readiness_notes()],
        )
        if self._admin_port:
            admin.start()
        with ExitStack() as closing:
            closing.callback(close_within_limit, self._close_traces, self.metrics.close)
            closing.callback(admin.stop)
            try:
                # Stopped before it has begun: nothing is read, so there is nothing to finish.
                with suppress(StoppedError):
                    self._run(closing)
            finally:
                self.stopping.set()

    @property
    @abstractmethod
    def _admin_port(self) -> int:
        """Port of the admin server; 0: none."""

    @property
    @abstractmethod
    def _observers(self) -> Sequence[LoopObserver]: ...

    @abstractmethod
    def _run(self, closing: ExitStack) -> None:
        """Build the loops and run them; what ``closing`` has received is closed at the end, the latest first."""

    def _consumer(
        self,
        config: dict[str, Any],
        topics: Sequence[str],
        group_id: str,
        lookup: SchemaLookup | None,
        retry_topics: Sequence[str] = (),
    ) -> GroupConsumer:
        # Silent: the consumer logs the same failures.
        admin = admin_config(self._settings, logger=silent_logger())
        return GroupConsumer(
            config,
            topics,
            wait=lambda seconds: not self.stopping.wait(seconds),
            latest=LatestOffsets(admin, self._clock.monotonic),
            identity=TopicIdentity(TopicIds(admin), group_id, self._clock.monotonic, lookup),
            retry_topics=retry_topics,
        )


def system_clock() -> Clock:
    """Return a clock with the system's time and random numbers."""
    return Clock(time.monotonic, lambda: time.time_ns() // 1_000_000, random.random, lambda: str(uuid.uuid4()))


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)
