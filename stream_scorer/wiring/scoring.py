"""Composition root of the scoring service: builds the worker from settings."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from stream_scorer.core.desk.answer_contract import Assumption, compare_answer, further_fields
from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.retry_topics import RetryDelays, StartBounds, level_of
from stream_scorer.core.scoring.api_response import Forbidden
from stream_scorer.core.scoring.batcher import Batcher
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.core.scoring.model_check import ModelConfirmed, ModelRefused, ModelUnavailable
from stream_scorer.core.scoring.refusal_limit import RefusalLimit
from stream_scorer.core.scoring.response_match import Verifier
from stream_scorer.core.scoring.response_policy import Policy
from stream_scorer.errors import ApiRefused, ApiUnavailable
from stream_scorer.genesys.client import ScoringClient
from stream_scorer.genesys.oauth import TokenRefused, TokenUnavailable
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.genesys.wire import body_overhead, build_body, encode_contact, read_json
from stream_scorer.kafka.admin.acls import scoring_rights
from stream_scorer.kafka.client.blocking_calls import call_until_stopped
from stream_scorer.kafka.client.config import consumer_config, settling_time_s
from stream_scorer.kafka.client.logs import client_logger
from stream_scorer.kafka.consumer.flow_control import FlowControl
from stream_scorer.kafka.consumer.paused_retry_partitions import PausedRetryPartitions
from stream_scorer.kafka.producer.factory import make_sink
from stream_scorer.kafka.registry.paused_schema_partitions import PausedSchemaPartitions
from stream_scorer.kafka.registry.serde import Serde, make_serde
from stream_scorer.runtime.worker_pool import WorkerPool
from stream_scorer.schema_files import SchemaFile
from stream_scorer.scoring.circuit_breaker import CircuitBreaker
from stream_scorer.scoring.deferral import NAMED_REFUSALS, Deferral
from stream_scorer.scoring.dispatcher import RequestDispatcher
from stream_scorer.scoring.intake import Intake
from stream_scorer.scoring.observer import Observer
from stream_scorer.scoring.output_records import Encoder, OutputTopics
from stream_scorer.scoring.ports import OutcomeLedger
from stream_scorer.scoring.publisher import Publisher
from stream_scorer.scoring.retry_intake import RetryIntake
from stream_scorer.scoring.start_check import StartBackoff, StartCheck
from stream_scorer.scoring.worker import Worker
from stream_scorer.telemetry.meter_provider import ServiceMetrics, server_attributes
from stream_scorer.telemetry.tracing.factory import scoring_trace
from stream_scorer.wiring.service import MAX_RECORD_BYTES, Service, system_clock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.core.scoring.types import FeatureValue
    from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
    from stream_scorer.settings import Settings

# In the consumer group protocol (KIP-848) the brokers decide; this is their default.
_BROKERS_SESSION_MS: Final = 45_000
_MAX_UNCOMMITTED_BYTES: Final = 64 * 1024 * 1024


class ScoringService(Service):
    """The scoring worker with its connections, ready to ``run``.

    Args:
        settings: of everything.
        retry_topics: the contacts' retry topics that exist; None: those of ``scoring.retry_delays_s``.
        bounds: which of the group's own records in them are from before its start.

    Raises:
        SettingsError: on construction, if a setting is missing or contradicts another.
    """

    def __init__(
        self, settings: Settings, retry_topics: Sequence[str] | None = None, bounds: StartBounds | None = None
    ) -> None:
        metrics = ServiceMetrics(
            "run", instance=settings.kafka.instance_id, constants=server_attributes(settings.genesys.api_url)
        )
        self._trace = scoring_trace(settings)
        super().__init__(settings, system_clock(), metrics, self._trace.close)
        self._retry_topics = settings.contact_retry_topics if retry_topics is None else tuple(retry_topics)
        self._bounds = StartBounds() if bounds is None else bounds
        self._client_log = client_logger(settings.kafka.properties)
        self.observe = Observer(
            structlog.get_logger("stream_scorer"), metrics, self._clock, settling_time_s(settings), self._retry_topics
        )

    @property
    def _admin_port(self) -> int:
        return self._settings.admin.port

    @property
    def _observers(self) -> tuple[Observer]:
        return (self.observe,)

    def _run(self, closing: ExitStack) -> None:
        settings = self._settings
        api = _api(settings)
        closing.callback(api.close)
        pool = WorkerPool(api.score, settings.scoring.max_in_flight, "scoring-request")
        closing.callback(pool.close)
        quota = Quota(settings.genesys.requests_per_minute)
        # Before any connection to Kafka: a transactional producer would fence another worker with the same id.
        if self._is_confirmed(api, quota):
            framing = make_serde(settings)
            closing.callback(framing.close)
            self._worker(pool, quota, framing).run()

    def _worker(self, pool: WorkerPool[Request, ApiResponse], quota: Quota, framing: Serde) -> Worker:
        settings, clock, observe = self._settings, self._clock, self.observe
        batcher = _batcher(settings)
        # A broker outage can revoke and assign at most this many finished, uncommitted contacts again.
        ledger = OutcomeLedger(remembered_limit=2 * settings.scoring.max_uncommitted)
        breaker = CircuitBreaker(
            settings.genesys.probe_interval_s, on_change=observe.breaker_changed, on_probe=observe.probed
        )
        deferral = Deferral(
            settings.scoring.retry_delays_s,
            RefusalLimit(settings.scoring.max_refused_share),
            clock,
            observe.refusal_limit_reached,
        )
        dispatcher = RequestDispatcher(
            pool=pool,
            batcher=batcher,
            deferred=_batcher(settings),
            ledger=ledger,
            quota=quota,
            breaker=breaker,
            policy=_policy(settings),
            clock=clock,
            observe=observe,
            trace=self._trace,
            deferral=deferral,
            max_contacts=settings.scoring.max_contacts,
            max_contacts_per_minute=settings.scoring.max_contacts_per_minute,
        )
        config = consumer_config(settings, logger=self._client_log)
        source = self._consumer(
            config, [settings.topics.features], settings.kafka.group_id, framing.lookup, self._retry_topics
        )
        return Worker(
            source=source,
            retry_partitions=PausedRetryPartitions(source),
            retries=self._retry_intake(),
            pending_schemas=PausedSchemaPartitions(source, ledger, framing.lookup, observe.schemas_pending),
            flow=FlowControl(
                source,
                ledger,
                max_records=settings.scoring.max_uncommitted,
                max_bytes=_MAX_UNCOMMITTED_BYTES,
                is_retry=frozenset(self._retry_topics).__contains__,
            ),
            # Requests to Kafka and the registry are sent here, and may block.
            publisher=call_until_stopped(self.stopping, lambda: self._publisher(source, ledger, framing)),
            intake=_intake(settings, batcher, framing, deferral),
            dispatcher=dispatcher,
            breaker=breaker,
            quota=quota,
            ledger=ledger,
            clock=clock,
            observe=observe,
            trace=self._trace,
            stopping=self.stopping,
            session_timeout_s=int(config.get("session.timeout.ms", _BROKERS_SESSION_MS)) / 1000,
            revoke_wait_s=settings.scoring.revoke_wait_s,
            shutdown_timeout_s=settings.scoring.shutdown_timeout_s,
        )

    def _retry_intake(self) -> RetryIntake:
        return RetryIntake(
            {topic: level_of(topic) for topic in self._retry_topics},
            self._settings.kafka.group_id,
            RetryDelays(tuple(self._settings.scoring.retry_delays_s)),
            self._bounds,
        )

    def _is_confirmed(self, api: ScoringClient, quota: Quota) -> bool:
        """Return whether the API confirms token and model; False: the service was stopped before."""
        genesys = self._settings.genesys
        return StartCheck(
            # On a separate thread: it may block up to its deadlines, and a stop must not wait for them.
            check=lambda: call_until_stopped(self.stopping, api.check, meanwhile=self.observe.heartbeat),
            backoff=StartBackoff(
                base_s=genesys.backoff_base_s,
                max_s=genesys.max_backoff_s,
                max_retries=genesys.max_retries,
                probe_interval_s=genesys.probe_interval_s,
                max_retry_after_s=genesys.max_retry_after_s,
            ),
            quota=quota,
            clock=self._clock,
            observe=self.observe,
            stopping=self.stopping,
        ).confirm()

    def _publisher(self, source: GroupConsumer, ledger: OutcomeLedger, framing: Serde) -> Publisher:
        settings = self._settings
        topics = settings.topics
        outputs = (topics.scores, topics.review, topics.rejected, topics.audit, *settings.contact_retry_topics)
        sink, limits = make_sink(
            settings,
            outputs,
            group_id=settings.kafka.group_id,
            transactional_id=settings.kafka.transactional_id,
            monotonic=self._clock.monotonic,
            logger=self._client_log,
            rights=scoring_rights(settings),
        )
        output_topics = OutputTopics(
            topics.scores, topics.review, topics.rejected, topics.audit, limits, topics.features_retry
        )
        return Publisher(
            sink=sink,
            group=source,
            ledger=ledger,
            encoder=Encoder(
                output_topics,
                settings.kafka.group_id,
                framing.writer(SchemaFile.CONTACT_SCORE, (topics.scores, topics.review)),
                self._trace,
            ),
            audit_topic=topics.audit,
            audit_codec=framing.writer(SchemaFile.BATCH_AUDIT, (topics.audit,)),
            model_id=settings.genesys.model_id or "",
            model_version=settings.genesys.model_version,
            commit_interval_s=settings.scoring.commit_interval_ms / 1000,
            clock=self._clock,
            observe=self.observe,
            trace=self._trace,
            retry_topics=self._retry_topics,
        )


class ScoreAnswer(NamedTuple):
    """Comparison of one answer with the assumed contract.

    Attributes:
        assumptions: each with its verdict.
        further_fields: fields of the answer that are not read.
    """

    assumptions: tuple[Assumption, ...]
    further_fields: tuple[str, ...]


class ApiCheck:
    """Checks of login and model, as at the start of the worker; both use one token.

    Raises:
        SettingsError: on construction, if a setting of the API is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._api = _api(settings)

    def login(self) -> str:
        """Request a token, and return the result as one line.

        Raises:
            ApiRefused: the login service refuses the client; one line with what to check.
            ApiUnavailable: no token for any other reason.
        """
        genesys = self._settings.genesys
        match self._api.check_login():
            case TokenRefused(message=message):
                raise ApiRefused(message)
            case TokenUnavailable(message=message):
                raise ApiUnavailable(message)
        return f"{genesys.token_url} gives OAuth client {genesys.client_id} a token"

    def model(self) -> str:
        """Send one request without contacts, which is not billed, and return the result as one line.

        Raises:
            ApiRefused: the platform itself refuses the client or the model; one line with what to check.
            ApiUnavailable: neither confirmed nor refused; a worker would wait outside its group.
        """
        match self._api.check():
            case ModelConfirmed(exchange):
                return (
                    f"model {self._settings.genesys.model_id}: confirmed"
                    f" (HTTP {exchange.status} to a request without contacts)"
                )
            case ModelRefused(message=message):
                raise ApiRefused(message)
            case ModelUnavailable(message=message):
                raise ApiUnavailable(f"token and model are not confirmed: {message}")

    def score(self, contact_id: str, features: Mapping[str, FeatureValue], model_version: str | None) -> ScoreAnswer:
        """Send one contact, which is billed, and compare the answer with the assumed contract.

        Raises:
            ApiRefused: the login service refuses the client; nothing was sent.
            ApiUnavailable: there is no answer of the API.
        """
        body = build_body([encode_contact(contact_id, features)], model_version)
        answer, got = self._api.exchange(body, 1)
        if got is None:
            if isinstance(answer, Forbidden):
                raise ApiRefused(answer.message)
            message = getattr(answer, "message", "no answer")
            is_sent = getattr(answer, "failure", None) is not HttpFailure.NO_TOKEN
            raise ApiUnavailable(f"{message}; the contact may have been billed" if is_sent else message)
        is_success = HTTPStatus.OK <= got.status < HTTPStatus.MULTIPLE_CHOICES
        found = "" if is_success else getattr(answer, "message", f"HTTP {got.status}")
        status = Assumption("the status is 2xx", is_success, found)
        if not is_success:
            return ScoreAnswer((status,), ())
        try:
            value = read_json(got.body)
        except ValueError:
            return ScoreAnswer((status, Assumption("the body is JSON", holds=False, found="another text")), ())
        quota, correlation = answer.exchange.quota, answer.exchange.correlation_id
        headers = (
            Assumption(
                "the headers inin-ratelimit-count, -allowed and -reset are numbers",
                quota is not None,
                "" if quota is not None else "at least one is missing or no number",
            ),
            Assumption(
                "the header ININ-Correlation-Id is an id",
                correlation is not None,
                "" if correlation is not None else "it is missing or has other characters",
            ),
        )
        return ScoreAnswer(
            (status, Assumption("the body is JSON", holds=True), *compare_answer(value, contact_id), *headers),
            tuple(further_fields(value)),
        )

    def close(self) -> None:
        """Close the connections."""
        self._api.close()


def _api(settings: Settings) -> ScoringClient:
    genesys = settings.genesys
    settings.require_api()
    return ScoringClient(
        genesys.api_url,
        genesys.token_url,
        genesys.client_id or "",
        genesys.read_client_secret,
        genesys.model_id or "",
        timeout_s=genesys.timeout_s,
        token_timeout_s=genesys.token_timeout_s,
        max_connections=settings.scoring.max_in_flight,
    )


def _batcher(settings: Settings) -> Batcher:
    return Batcher(
        max_contacts=settings.scoring.max_contacts,
        max_body_bytes=settings.scoring.max_request_bytes,
        overhead_bytes=body_overhead,
        linger_s=settings.scoring.linger_ms / 1000,
    )


def _intake(settings: Settings, batcher: Batcher, framing: Serde, deferral: Deferral) -> Intake:
    features = FeatureList(tuple(settings.model.features.values()), settings.model.max_features)
    return Intake(
        codec=framing.reader(SchemaFile.CONTACT_FEATURES, max_bytes=MAX_RECORD_BYTES),
        checker=ContactChecker(features, settings.scoring.max_event_age_s),
        encode=encode_contact,
        fits=batcher.fits,
        model_version=settings.genesys.model_version,
        on_missing_schema=deferral.schema_missing,
    )


def _policy(settings: Settings) -> Policy:
    genesys, verification = settings.genesys, settings.verification
    return Policy(
        model_id=genesys.model_id or "",
        verifier=Verifier(verification.min_interval_width, verification.max_interval_width),
        max_retries=genesys.max_retries,
        backoff_base_s=genesys.backoff_base_s,
        max_backoff_s=genesys.max_backoff_s,
        max_retry_after_s=genesys.max_retry_after_s,
        named_refusals=NAMED_REFUSALS,
    )
