"""Composition root of the callback service: builds planner and deliverer from settings and a target."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final

import structlog

from stream_scorer.callbacks.callback_writer import CallbackWriter
from stream_scorer.callbacks.deliverer import Deliverer
from stream_scorer.callbacks.dispatcher import Dispatcher
from stream_scorer.callbacks.intake import CallbackIntake
from stream_scorer.callbacks.observer import DelivererObserver, PlannerObserver
from stream_scorer.callbacks.output_records import CallbackEncoder, CallbackTopics
from stream_scorer.callbacks.planner import Planner
from stream_scorer.callbacks.receipt_writer import ReceiptWriter
from stream_scorer.callbacks.sender import Sender
from stream_scorer.core.callbacks.circuit_breaker import CircuitBreakers
from stream_scorer.core.callbacks.retry_policy import Delivery, DeliveryOutcome, DeliveryRules
from stream_scorer.core.callbacks.selection import Examined, PlanningRules
from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
from stream_scorer.errors import BrokerRefused
from stream_scorer.kafka.admin.acls import callback_rights
from stream_scorer.kafka.client.blocking_calls import call_until_stopped
from stream_scorer.kafka.client.config import consumer_config, settling_time_s
from stream_scorer.kafka.client.logs import client_logger
from stream_scorer.kafka.consumer.flow_control import FlowControl
from stream_scorer.kafka.consumer.paused_retry_partitions import PausedRetryPartitions
from stream_scorer.kafka.producer.committer import Committer
from stream_scorer.kafka.producer.factory import make_sink
from stream_scorer.kafka.registry.paused_schema_partitions import PausedSchemaPartitions
from stream_scorer.kafka.registry.serde import make_serde
from stream_scorer.runtime.worker_pool import WorkerPool
from stream_scorer.schema_files import SchemaFile
from stream_scorer.telemetry.meter_provider import ServiceMetrics
from stream_scorer.telemetry.tracing.factory import callback_traces
from stream_scorer.wiring.service import MAX_RECORD_BYTES, Service, system_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    from stream_scorer.callbacks.ports import Target
    from stream_scorer.core.callbacks.types import DeliveryAnswer
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.kafka.producer.sink import TransactionalSink
    from stream_scorer.runtime.loop_observer import LoopObserver
    from stream_scorer.settings import Settings

# Maximum requests in flight at the campaign manager.
_SLOTS: Final = 32
# Callbacks read and not committed: the maximum that a crash can repeat, and that can be delivered behind a callback
# whose attempt lasts until its deadline.
_MAX_UNCOMMITTED: Final = 40_000
_MAX_UNCOMMITTED_BYTES: Final = 128 * 1024 * 1024
# Scores or callbacks of one transaction.
_MAX_OUTCOMES: Final = 2_000
# Maximum growth of a callback's record in the retry topics: attempts, times, and headers with the reason.
_GROWTH_BYTES: Final = 4_096
# A callback for one contact with the longest ids is far smaller than this.
_LEAST_MESSAGE_BYTES: Final = 32_768


class CallbackService(Service):
    """Planner and deliverer with their connections, ready to ``run``; if one ends, the other shuts down.

    Args:
        settings: of everything except the target.
        target: the campaign manager.
        retry_topics: the retry topics that exist; at least those of ``callbacks.retry_delays_s``.
    """

    _admin_setting = "callbacks.admin_port"

    def __init__(self, settings: Settings, target: Target, retry_topics: Sequence[str]) -> None:
        metrics = ServiceMetrics("callbacks", instance=settings.kafka.instance_id)
        self._traces = callback_traces(settings)
        super().__init__(settings, system_clock(), metrics, self._traces.close)
        self._target = target
        self._retry_topics = tuple(retry_topics)
        self._client_log = client_logger(settings.kafka.properties)
        # Both loops share the schema fetcher; each has separate codecs.
        self._framing = make_serde(settings)
        log = structlog.get_logger("stream_scorer")
        observed = (log, metrics, self._clock, settling_time_s(settings))
        self._planning = PlannerObserver(*observed)
        self._delivering = DelivererObserver(
            *observed, target=target.name, target_of=target.target_of, waiting_topics=self._retry_topics
        )

    @property
    def _admin_port(self) -> int:
        return self._settings.callbacks.admin_port

    @property
    def _observers(self) -> tuple[LoopObserver, ...]:
        return (self._planning, self._delivering)

    def _run(self, closing: ExitStack) -> None:
        closing.callback(self._framing.close)
        closing.callback(self._target.close)
        pool: WorkerPool[Delivery, DeliveryAnswer] = WorkerPool(self._attempt, _SLOTS, "callback")
        closing.callback(pool.close)
        self._run_both(call_until_stopped(self.stopping, lambda: self._loops(pool)))

    def _loops(self, pool: WorkerPool[Delivery, DeliveryAnswer]) -> dict[str, Callable[[], None]]:
        # Requests to Kafka and the registry are sent here, and may block.
        return {"planner": self._planner().run, "deliverer": self._deliverer(pool).run}

    def _attempt(self, delivery: Delivery) -> DeliveryAnswer:
        return self._target.deliver(delivery.callback, delivery.traceparent)

    def _run_both(self, loops: Mapping[str, Callable[[], None]]) -> None:
        # Not SimpleQueue: see stream_scorer.runtime.worker_pool.
        ends: queue.Queue[BaseException | None] = queue.Queue()

        def run(loop: Callable[[], None]) -> None:
            try:
                loop()
            except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that called run
                ends.put(error)
            else:
                ends.put(None)

        for name, loop in loops.items():
            threading.Thread(target=run, args=(loop,), name=name, daemon=True).start()
        errors = []
        for _ in loops:
            error = ends.get()
            self.stopping.set()
            if error is not None:
                errors.append(error)
        if errors:
            raise errors[0]

    # --- the planner

    def _planner(self) -> Planner:
        settings, topics = self._settings, self._settings.topics
        group_id = settings.callbacks_group_id
        source = self._source(group_id, [topics.scores])
        ledger: OffsetLedger[Examined] = OffsetLedger()
        sink, limits, encoder = self._writer(group_id, settings.planner_transactional_id)
        committer = Committer(
            sink=sink,
            group=source,
            ledger=ledger,
            max_outcomes=_MAX_OUTCOMES,
            monotonic=self._clock.monotonic,
            observe=self._planning,
        )

        def rules() -> PlanningRules:
            return self._planning_rules(limits, source.topic_id(topics.scores))

        return Planner(
            source=source,
            pending_schemas=PausedSchemaPartitions(
                source, ledger, self._framing.lookup, self._planning.schemas_pending
            ),
            callbacks=CallbackWriter(
                committer=committer,
                ledger=ledger,
                target=self._target,
                encoder=encoder,
                rules=rules,
                clock=self._clock,
                observe=self._planning,
                trace=self._traces.planner,
                linger_s=settings.callbacks.linger_ms / 1000,
            ),
            ledger=ledger,
            codec=self._framing.reader(SchemaFile.CONTACT_SCORE, max_bytes=MAX_RECORD_BYTES),
            target=self._target,
            rules=rules,
            clock=self._clock,
            observe=self._planning,
            stopping=self.stopping,
            shutdown_timeout_s=settings.scoring.shutdown_timeout_s,
        )

    def _planning_rules(self, limits: Mapping[str, int], topic_id: str | None) -> PlanningRules:
        callbacks = self._settings.callbacks
        return PlanningRules(
            threshold=callbacks.threshold,
            max_contacts=callbacks.max_contacts,
            max_age_ms=callbacks.max_age_s * 1000,
            max_record_bytes=min(limits.values()) - _GROWTH_BYTES,
            topic_id=topic_id,
        )

    # --- the deliverer

    def _receipt_writer(self, source: GroupConsumer, ledger: OffsetLedger[DeliveryOutcome]) -> ReceiptWriter:
        settings = self._settings
        sink, _, encoder = self._writer(settings.delivery_group_id, settings.deliverer_transactional_id)
        return ReceiptWriter(
            committer=Committer(
                sink=sink,
                group=source,
                ledger=ledger,
                max_outcomes=_MAX_OUTCOMES,
                monotonic=self._clock.monotonic,
                observe=self._delivering,
                renewed_topics=self._retry_topics,
            ),
            ledger=ledger,
            encoder=encoder,
            clock=self._clock,
            observe=self._delivering,
            trace=self._traces.deliverer,
            commit_interval_s=settings.scoring.commit_interval_ms / 1000,
        )

    def _deliverer(self, pool: WorkerPool[Delivery, DeliveryAnswer]) -> Deliverer:
        settings, observe, clock = self._settings, self._delivering, self._clock
        group_id = settings.delivery_group_id
        rules = DeliveryRules(tuple(settings.callbacks.retry_delays_s))
        source = self._source(group_id, [settings.topics.callbacks], self._retry_topics)
        ledger: OffsetLedger[DeliveryOutcome] = OffsetLedger(remembered_limit=2 * _MAX_UNCOMMITTED)
        receipts = self._receipt_writer(source, ledger)
        breakers = CircuitBreakers(settings.callbacks.probe_interval_s, max(rules.delays_s))
        dispatcher = Dispatcher(_SLOTS, rules, settings.callbacks.max_per_minute, breakers)
        sender = Sender(
            dispatcher=dispatcher,
            pool=pool,
            allowance=self._target.allowance,
            breakers=breakers,
            ledger=ledger,
            rules=rules,
            clock=clock,
            observe=observe,
            trace=self._traces.deliverer,
            finish=receipts.finish,
        )
        levels = {topic: level for level, topic in enumerate(settings.topics.retries(), 1)}
        return Deliverer(
            source=source,
            pending_schemas=PausedSchemaPartitions(source, ledger, self._framing.lookup, observe.schemas_pending),
            flow=FlowControl(
                source,
                ledger,
                max_records=_MAX_UNCOMMITTED,
                max_bytes=_MAX_UNCOMMITTED_BYTES,
                is_retry=levels.__contains__,
            ),
            ledger=ledger,
            intake=CallbackIntake(
                self._framing.reader(SchemaFile.CAMPAIGN_CALLBACK, max_bytes=MAX_RECORD_BYTES),
                levels,
                rules,
                clock.unix_ms(),
            ),
            retry_partitions=PausedRetryPartitions(source),
            dispatcher=dispatcher,
            sender=sender,
            receipts=receipts,
            clock=clock,
            observe=observe,
            stopping=self.stopping,
            revoke_wait_s=settings.scoring.revoke_wait_s,
            shutdown_timeout_s=settings.scoring.shutdown_timeout_s,
        )

    # --- both

    def _source(self, group_id: str, topics: Sequence[str], retry_topics: Sequence[str] = ()) -> GroupConsumer:
        config = consumer_config(self._settings, group_id, logger=self._client_log)
        return self._consumer(config, topics, group_id, self._framing.lookup, retry_topics)

    def _writer(
        self, group_id: str, transactional_id: str
    ) -> tuple[TransactionalSink, Mapping[str, int], CallbackEncoder]:
        settings, topics = self._settings, self._settings.topics
        outputs = (topics.callbacks, *self._retry_topics, topics.callbacks_rejected, topics.receipts)
        sink, limits = make_sink(
            settings,
            outputs,
            group_id=group_id,
            transactional_id=transactional_id,
            monotonic=self._clock.monotonic,
            logger=self._client_log,
            rights=callback_rights(settings),
        )
        _require_room(limits)
        retries = topics.retries(len(settings.callbacks.retry_delays_s))
        names = CallbackTopics(topics.callbacks, retries, topics.callbacks_rejected, topics.receipts, limits)
        callback_codec = self._framing.writer(SchemaFile.CAMPAIGN_CALLBACK, (topics.callbacks, *retries))
        receipt_codec = self._framing.writer(SchemaFile.CALLBACK_RECEIPT, (topics.receipts,))
        return sink, limits, CallbackEncoder(names, callback_codec, receipt_codec)


def _require_room(limits: Mapping[str, int]) -> None:
    for topic, limit in limits.items():
        if limit < _LEAST_MESSAGE_BYTES:
            raise BrokerRefused(
                f"topic {topic} takes records up to {limit} bytes (max.message.bytes), too few for callbacks:"
                f" set it to {_LEAST_MESSAGE_BYTES} or more"
            )
