"""Planner, the first loop: scores at or over the threshold become callbacks, in one transaction with their offsets.

A score has its outcome when it is read. So all scores read are planned together, after the linger time at the latest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.callbacks.observer import PlannerObserver
from stream_scorer.core.callbacks.selection import Examined, examine
from stream_scorer.runtime.service_loop import IDLE_WAIT_S, ServiceLoop

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from stream_scorer.callbacks.callback_writer import CallbackWriter
    from stream_scorer.callbacks.ports import Target
    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.callbacks.selection import PlanningRules
    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.registry.paused_schema_partitions import PausedSchemaPartitions
    from stream_scorer.runtime.clock import Clock

_MAX_RECORDS = 2_000


class Planner(ServiceLoop[Examined, PlannerObserver]):
    """Loop of the planner; see ``runtime.service_loop`` for its beginning, its end, and rebalances.

    Args:
        source: consumer of the scores.
        pending_schemas: partitions paused for a schema that is still to be fetched.
        callbacks: writes the callbacks.
        ledger: offsets and outcomes.
        codec: decodes ``ContactScore``.
        target: builds the bodies.
        rules: returns the present rules; the topics' limits may change.
        clock: time.
        observe: log events and metrics.
        stopping: set to end the loop.
        shutdown_timeout_s: how long the last transaction may be tried.
    """

    def __init__(
        self,
        *,
        source: GroupConsumer,
        pending_schemas: PausedSchemaPartitions,
        callbacks: CallbackWriter,
        ledger: OffsetLedger[Examined],
        codec: Codec,
        target: Target,
        rules: Callable[[], PlanningRules],
        clock: Clock,
        observe: PlannerObserver,
        stopping: threading.Event,
        shutdown_timeout_s: float,
    ) -> None:
        super().__init__(
            source=source,
            ledger=ledger,
            writer=callbacks,
            paused=(pending_schemas,),
            clock=clock,
            observe=observe,
            stopping=stopping,
            revoke_wait_s=0.0,  # scores without a committed plan are planned by the next owner
            shutdown_timeout_s=shutdown_timeout_s,
        )
        self._pending_schemas = pending_schemas
        self._callbacks = callbacks
        self._codec = codec
        self._target = target
        self._rules = rules

    def _process(self) -> None:
        self._pending_schemas.resume_resolved()
        room = 0 if self._callbacks.is_full else _MAX_RECORDS - self._ledger.uncommitted
        (self._source.resume if room > 0 else self._source.pause)()
        began_at = self._clock.monotonic()
        records = self._source.read(max(room, 1), IDLE_WAIT_S)
        if records:
            self._observe.consumed(len(records), poll_s=self._clock.monotonic() - began_at)
        now_ms, rules = self._clock.unix_ms(), self._rules()
        for record in records:
            if self._pending_schemas.admits(record) and self._ledger.read(record):
                self._callbacks.add(examine(record, codec=self._codec, writer=self._target, rules=rules, now_ms=now_ms))

    # --- the parts of the loop

    def _flush_all(self, deadline: float) -> None:
        # Once: scores without a committed plan are planned by the next owner.
        if self._clock.monotonic() < deadline:
            self._callbacks.flush()
