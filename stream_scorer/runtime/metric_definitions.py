"""Table of the metric instruments of both services: names, units, descriptions and attributes.

An observer calls `Metrics` with an entry of this table. `stream_scorer.telemetry.meter_provider` makes OpenTelemetry
instruments of the entries; docs/metrics.md is generated from them (``make reference``). So a new counter is an entry
here and the call that counts.

The entries stand here, below both services and below `telemetry`: a service may not import `telemetry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from itertools import product
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from stream_scorer.core.callbacks.retry_policy import DeferReason
from stream_scorer.core.callbacks.types import CallbackOutcome, DeliveryKind
from stream_scorer.core.scoring.types import Reason, ReviewReason

Service: TypeAlias = Literal["run", "callbacks"]
Attributes: TypeAlias = Mapping[str, str | int]

NO_ATTRIBUTES: Final[Attributes] = MappingProxyType({})


class Attribute(NamedTuple):
    """Attribute of an instrument; ``values``: those that are allowed, empty if they are not known in advance.

    An attribute with one value is constant: callers leave it out. An ``is_optional`` one may be absent.
    """

    name: str
    values: tuple[str | int, ...] = ()
    is_optional: bool = False


LOOP: Final = Attribute("loop", ("planner", "deliverer"))
"""Loop of the service ``callbacks``; ``run`` has one loop and no such attribute."""


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """Entry of the table.

    Attributes:
        name: by OpenTelemetry's conventions where there is one.
        unit: UCUM unit, ``s`` or an annotation such as ``{contact}``.
        description: one sentence, exported with the instrument.
        note: what docs/metrics.md adds to the description, in Markdown.
        service: the service that has it; None: both.
        attributes: the complete list.
        series: attributes of the series that exist, with 0, before the first event, so that rates and alerts are right
            from that event on. None: all combinations of the allowed values, or none if not all values are known.
    """

    name: str
    unit: str
    description: str
    _: KW_ONLY
    note: str = ""
    service: Service | None = None
    attributes: tuple[Attribute, ...] = ()
    series: tuple[Attributes, ...] | None = None

    def labels(self, attributes: Attributes) -> dict[str, str | int]:
        """Return ``attributes`` and the constant ones, members of enums as plain strings.

        For OpenTelemetry's SDK a member and its string differ. That would give two series of the same name and
        labels, of which Prometheus keeps the first.
        """
        constant = {one.name: one.values[0] for one in self.attributes if len(one.values) == 1}
        given = {name: str(value) if isinstance(value, str) else value for name, value in attributes.items()}
        return constant | given

    def first_series(self, service: Service) -> tuple[Attributes, ...]:
        """Return the attributes of the series that a service begins with; see ``series``."""
        if self.series is not None:
            return self.series
        attributes = [one for one in self.attributes if service == "callbacks" or one is not LOOP]
        return tuple(
            {one.name: value for one, value in zip(attributes, values, strict=True)}
            for values in product(*(one.values for one in attributes))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Counter(Instrument):
    """Sum that only grows."""


@dataclass(frozen=True, slots=True, eq=False)
class Gauge(Instrument):
    """Last value."""


@dataclass(frozen=True, slots=True, eq=False)
class Histogram(Instrument):
    """Distribution; ``bounds``: upper bounds of its buckets. It has no series before its first event."""

    _: KW_ONLY
    bounds: tuple[float, ...]
    series: tuple[Attributes, ...] | None = ()


class Metrics(Protocol):
    """Instruments of one service, by table entry. Call it with sums: once a poll, request or transaction.

    `stream_scorer.telemetry.meter_provider.ServiceMetrics` exports them; tests have one in memory.
    """

    def add(self, counter: Counter, amount: float = 1, attributes: Attributes = NO_ATTRIBUTES) -> None: ...

    def set(self, gauge: Gauge, value: float, attributes: Attributes = NO_ATTRIBUTES) -> None: ...

    def remove(self, gauge: Gauge, attributes: Attributes) -> None: ...

    def record(self, histogram: Histogram, value: float, attributes: Attributes = NO_ATTRIBUTES) -> None: ...


# The boundaries that the HTTP and messaging conventions advise, plus 20 and 30: a scoring request may take 30 s.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 30)
_SYSTEM: Final = Attribute("messaging.system", ("kafka",))
_OPERATION: Final = "messaging.operation.name"
_TYPE: Final = "messaging.operation.type"
_POST: Final = Attribute("http.request.method", ("POST",))
_STATUS: Final = Attribute("http.response.status_code", is_optional=True)
# The values of `scoring.circuit_breaker.OpenReason` and `scoring.wait_reasons.WaitReason`, which this module must not
# import. A test compares them.
_OPEN_REASON: Final = Attribute("reason", ("api", "quota", "spend_limit", "kafka", "registry"))
_WAIT_REASON: Final = Attribute(
    "reason",
    (
        *("circuit_open", "retry_after", "server_quota", "own_quota", "spend_limit"),
        *("concurrency_limit", "partial_batch", "backoff", "worker_busy"),
    ),
)
# Of `scoring.retry_delays_s`; the reason of a deferred contact is the level of its retry topic.
_RETRY_LEVELS: Final = tuple(str(level) for level in range(1, 10))
CALLBACK_RETRY_LEVELS: Final = (1, 2, 3, 4)


def messaging(operation: Literal["poll", "send", "commit"], loop: Attributes = NO_ATTRIBUTES) -> Attributes:
    """Return the attributes of an operation, by OpenTelemetry's messaging conventions; ``loop``: see `LOOP`."""
    kind = {"poll": "receive", "send": "send", "commit": "settle"}[operation]
    return {_OPERATION: operation, _TYPE: kind, **loop}


# --- both services

CONSUMED: Final = Counter(
    "messaging.client.consumed.messages",
    "{message}",
    "Records read.",
    attributes=(_SYSTEM, Attribute(_OPERATION, ("poll",)), Attribute(_TYPE, ("receive",)), LOOP),
)
SENT: Final = Counter(
    "messaging.client.sent.messages",
    "{message}",
    "Records written in transactions that committed.",
    attributes=(_SYSTEM, Attribute(_OPERATION, ("send",)), Attribute(_TYPE, ("send",)), LOOP),
)
OPERATION_DURATION: Final = Histogram(
    "messaging.client.operation.duration",
    "s",
    "Duration of poll (with records), send (the records of a transaction) and commit.",
    note=(
        "`poll`: until records were received, if any were; `send`: producing a transaction's records and offsets;"
        " `commit`: until the broker had all of them and had confirmed the commit"
    ),
    bounds=_SECONDS,
    attributes=(
        _SYSTEM,
        Attribute(_OPERATION, ("poll", "send", "commit")),
        Attribute(_TYPE, ("receive", "send", "settle")),
        LOOP,
    ),
)
PROCESS_DURATION: Final = Histogram(
    "messaging.process.duration",
    "s",
    "From the start of work on a batch to the commit of its outcomes.",
    note=(
        "`run`: from the first attempt of a request to a commit with outcomes of it; `planner`: from reading a"
        " transaction's first score to its commit; `deliverer`: from the first attempt for a callback since it was"
        " read to the commit of its outcome"
    ),
    # A batch may wait for the next quota window, or for the end of an outage, before it is committed.
    bounds=(*_SECONDS, 60, 120, 300, 900),
    attributes=(_SYSTEM, Attribute(_OPERATION, ("process",)), Attribute(_TYPE, ("process",)), LOOP),
)
TRANSACTIONS: Final = Counter(
    "stream_scorer.transactions",
    "{transaction}",
    "Kafka transactions.",
    note="`refused`: the broker rejects a record; `failed`: aborted, or its end is not known yet",
    attributes=(Attribute("outcome", ("committed", "refused", "failed")), LOOP),
)
PARTITIONS: Final = Gauge(
    "stream_scorer.partitions.owned",
    "{partition}",
    "Partitions assigned.",
    note="In the scorer those of the features topic. 0 for long: more processes than partitions",
    attributes=(LOOP,),
)
LAG: Final = Gauge(
    "stream_scorer.consumer.lag",
    "{message}",
    "Records in the log that are not committed, by partition.",
    note=(
        "Up to the last end that the client has received; while reading is paused, the end is read from the brokers"
        " every 15 s. 0 at rest: transaction markers and aborted records, which Kafka's own tools count, are left out"
    ),
    attributes=(Attribute("topic"), Attribute("partition"), LOOP),
)
OLDEST_AGE: Final = Gauge(
    "stream_scorer.oldest_uncommitted.age",
    "s",
    "Age of the oldest record that is read and not committed; 0: none.",
    attributes=(LOOP,),
)
STALL_TIME: Final = Gauge(
    "stream_scorer.commit.stall_time",
    "s",
    "Time since the last progress of a partition's commits; the longest.",
    attributes=(LOOP,),
)
UNEXPLAINED_STALL_TIME: Final = Gauge(
    "stream_scorer.commit.unexplained_stall_time",
    "s",
    "The same, counted from when a reason was last known; decides the status of /livez.",
    note="Reasons are an open circuit breaker, a backoff and a shutdown",
    attributes=(LOOP,),
)

# --- run

CONTACTS: Final = Counter(
    "stream_scorer.contacts",
    "{contact}",
    "Contacts with a committed outcome: scored, review, rejected or deferred.",
    note=(
        "`reason` is the first one, empty for `scored`. A contact that was written to a retry topic counts as"
        " `deferred`, with the level as `reason`, each time it is; the lag of that topic is the number that waits there"
    ),
    service="run",
    attributes=(
        Attribute("outcome", ("scored", "review", "rejected", "deferred")),
        Attribute("reason", ("", *ReviewReason, *Reason, *_RETRY_LEVELS)),
    ),
    # For every reason: a burst of rejections that ends before the next scrape would not appear as an increase.
    series=(
        {"outcome": "scored", "reason": ""},
        *({"outcome": "review", "reason": reason} for reason in ReviewReason),
        *({"outcome": "rejected", "reason": reason} for reason in Reason),
        *({"outcome": "deferred", "reason": level} for level in _RETRY_LEVELS),
    ),
)
CONTACTS_RETRIED: Final = Counter(
    "stream_scorer.contacts.retried",
    "{contact}",
    "Contacts sent again: unanswered, or their response was lost.",
    note="The platform bills each response that scores them",
    service="run",
)
CONTACTS_REPLAYED: Final = Counter(
    "stream_scorer.contacts.replayed",
    "{contact}",
    "Outcomes of contacts that an operator has replayed.",
    service="run",
)
UNMATCHED_RESULTS: Final = Counter(
    "stream_scorer.results.unmatched",
    "{result}",
    "Results whose contact was not in the request; ignored.",
    service="run",
)
CONTROLS: Final = Counter(
    "stream_scorer.controls",
    "{contact}",
    "Scored contacts sent again as controls.",
    note="They are billed again, and distinguish a bad contact from a failing API; 20 a minute at most",
    service="run",
)
REFUSALS_OVER_LIMIT: Final = Counter(
    "stream_scorer.refusals.over_limit",
    "{contact}",
    "Contacts over the limit of rejections, by their cause; `outcome`: rejected or held.",
    note=(
        "Over 20 for one status and version in ten minutes; `held` where they are more than `scoring.max_refused_share`"
    ),
    service="run",
    attributes=(
        *(Attribute("reason"), Attribute("status"), Attribute("model_version")),
        Attribute("outcome", ("rejected", "held")),
    ),
)
AUDIT_CHAIN_LENGTH: Final = Gauge(
    "stream_scorer.audit.chain.length",
    "{event}",
    "Audit events in this worker's present hash chain.",
    note="Every new producer session begins one",
    service="run",
)
CONTACTS_UNCOMMITTED: Final = Gauge(
    "stream_scorer.contacts.uncommitted", "{contact}", "Contacts read and not yet committed.", service="run"
)
REQUEST_DURATION: Final = Histogram(
    "http.client.request.duration",
    "s",
    "Duration of requests to the scoring API, each attempt on its own.",
    note="`error.type` `no_token`: the login failed, so nothing was sent",
    service="run",
    bounds=_SECONDS,
    attributes=(
        _POST,
        Attribute("server.address", is_optional=True),
        Attribute("server.port", is_optional=True),
        _STATUS,
        Attribute("error.type", is_optional=True),
    ),
)
BATCH_SIZE: Final = Histogram(
    "stream_scorer.request.batch_size",
    "{contact}",
    "Contacts in a request at its first attempt.",
    note="How full batches are",
    service="run",
    bounds=(1, 5, 10, 25, 50, 100, 200, 400, 600, 800, 999),
)
REQUESTS_IN_FLIGHT: Final = Gauge(
    "stream_scorer.requests.in_flight", "{request}", "Requests at the API now.", service="run"
)
QUOTA_REMAINING: Final = Gauge(
    "stream_scorer.quota.remaining",
    "{request}",
    "Requests that the quota still allows in this window.",
    service="run",
    series=(),
)
QUOTA_ALLOWED: Final = Gauge(
    "stream_scorer.quota.allowed",
    "{request}",
    "Requests a minute: the configured limit or the API's, the lower one.",
    note="The configured limit is `genesys.requests_per_minute`",
    service="run",
    series=(),
)
QUOTA_TIME_TO_EXHAUSTION: Final = Gauge(
    "stream_scorer.quota.time_to_exhaustion",
    "s",
    "Until the quota is used up at the rate of the last 10 s; 60 if its window ends before that.",
    note="0: it is used up",
    service="run",
    series=(),
)
QUOTA_WAIT: Final = Gauge(
    "stream_scorer.quota.wait",
    "s",
    "Until the quota allows the next request; 0 while it does.",
    service="run",
    series=(),
)
REQUEST_WAIT_TIME: Final = Counter(
    "stream_scorer.requests.wait_time",
    "s",
    "Time in which a due request waited, by `reason`.",
    note="[Reasons](operations.md#why-requests-wait)",
    service="run",
    attributes=(_WAIT_REASON,),
)
CIRCUIT_BREAKER_OPEN: Final = Gauge(
    "stream_scorer.circuit_breaker.open",
    "1",
    "1 while the circuit breaker is open or throttled, by `reason`.",
    note=(
        "Open: `api`. Throttled: `quota`, `spend_limit`. `kafka`: no transaction can be published. `registry`: records"
        " wait for a schema"
    ),
    service="run",
    attributes=(_OPEN_REASON,),
)
CIRCUIT_BREAKER_OPEN_TIME: Final = Gauge(
    "stream_scorer.circuit_breaker.open_time",
    "s",
    "Time since the circuit breaker left the closed state; 0 while closed.",
    service="run",
    attributes=(_OPEN_REASON,),
)
CIRCUIT_BREAKER_NEXT_PROBE: Final = Gauge(
    "stream_scorer.circuit_breaker.next_probe",
    "s",
    "Until the next half-open probe; while throttled, until the next request.",
    service="run",
    attributes=(_OPEN_REASON,),
)
CIRCUIT_BREAKER_PROBES: Final = Counter(
    "stream_scorer.circuit_breaker.probes",
    "{probe}",
    "Half-open probes; `outcome`: recovered or failed.",
    note="A probe that has `recovered` closes the circuit breaker",
    service="run",
    attributes=(Attribute("outcome", ("recovered", "failed")),),
)
CIRCUIT_BREAKER_VERSIONS: Final = Gauge(
    "stream_scorer.circuit_breaker.versions",
    "{version}",
    "Model versions whose circuit breaker alone is open.",
    note="Their contacts go to the retry topics",
    service="run",
)

# --- callbacks

CALLBACKS_PLANNED: Final = Counter(
    "stream_scorer.callbacks.planned", "{callback}", "Callbacks planned.", service="callbacks"
)
CALLBACK_CONTACTS: Final = Counter(
    "stream_scorer.callbacks.contacts", "{contact}", "Contacts in callbacks planned.", service="callbacks"
)
CALLBACKS_FINISHED: Final = Counter(
    "stream_scorer.callbacks.finished",
    "{callback}",
    "Callbacks with a receipt: delivered, refused, gave_up or expired.",
    service="callbacks",
    attributes=(Attribute("outcome", tuple(outcome.lower() for outcome in CallbackOutcome)),),
)
CALLBACK_CONTACTS_REFUSED: Final = Counter(
    "stream_scorer.callbacks.contacts_refused",
    "{contact}",
    "Contacts that were refused alone, by `reason`.",
    service="callbacks",
    attributes=(Attribute("reason", ("refused", "no_address", "no_contact_id")),),
)
RECORDS_INVALID: Final = Counter(
    "stream_scorer.callbacks.invalid",
    "{message}",
    "Records that are not a score or a callback, by `reason`.",
    service="callbacks",
    attributes=(Attribute("reason"),),
    series=({"reason": "undecodable"},),
)
CALLBACKS_DEFERRED: Final = Counter(
    "stream_scorer.callbacks.deferred",
    "{callback}",
    "Callbacks written to a retry topic, by reason.",
    note=(
        "`circuit_open`: no round is counted; `held`: its body does not fit the target; `not_due`: its partition"
        " had been paused for the longest time"
    ),
    service="callbacks",
    attributes=(Attribute("retry_topic"), Attribute("reason", tuple(DeferReason))),
    series=({"retry_topic": 1, "reason": "retry"}, {"retry_topic": 1, "reason": "circuit_open"}),
)
DELIVERY_DURATION: Final = Histogram(
    "http.client.request.duration",
    "s",
    "Duration of attempts to deliver a callback.",
    service="callbacks",
    bounds=_SECONDS,
    attributes=(_POST, _STATUS, Attribute("result", tuple(DeliveryKind))),
)
DELIVERIES_IN_FLIGHT: Final = Gauge(
    "stream_scorer.callbacks.in_flight", "{request}", "Requests at the campaign manager now.", service="callbacks"
)
CALLBACKS_WAITING: Final = Gauge(
    "stream_scorer.callbacks.waiting",
    "{callback}",
    "Callbacks in memory that wait for a slot, a quick retry or to be a probe; retry topics whose head is not due.",
    note="`retry_topic` counts partitions of retry topics",
    service="callbacks",
    attributes=(Attribute("reason", ("slot", "retry", "retry_topic", "probe")),),
    series=(),
)
CALLBACKS_UNCOMMITTED: Final = Gauge(
    "stream_scorer.callbacks.uncommitted", "{callback}", "Callbacks read and not yet committed.", service="callbacks"
)
CALLBACKS_CIRCUIT_BREAKER_OPEN: Final = Gauge(
    "stream_scorer.callbacks.circuit_breaker.open",
    "1",
    "1 while the circuit breaker is open; `reason`: target, kafka or registry.",
    note=(
        "`target`: it accepts no callback of any campaign; `kafka`: no transaction can be written; `registry`: records"
        " wait for a schema. The planner has no `target`"
    ),
    service="callbacks",
    attributes=(Attribute("reason", ("target", "kafka", "registry")), LOOP),
    series=(
        *({"loop": "planner", "reason": reason} for reason in ("kafka", "registry")),
        *({"loop": "deliverer", "reason": reason} for reason in ("target", "kafka", "registry")),
    ),
)
CAMPAIGNS_BLOCKED: Final = Gauge(
    "stream_scorer.callbacks.campaigns_blocked",
    "{campaign}",
    "Campaigns whose circuit breaker is not closed; `status`: open or switched_off.",
    note="`switched_off`: the last response was 410",
    service="callbacks",
    attributes=(Attribute("status", ("open", "switched_off")),),
)
CAMPAIGN_BLOCKED: Final = Gauge(
    "stream_scorer.callbacks.campaign.blocked",
    "1",
    "1 for each of the first 100 campaigns whose circuit breaker is not closed, with its last failure.",
    note="Status 0: there was no response. `remedy`: what to do. A series ends with its condition",
    service="callbacks",
    attributes=(
        *(Attribute("campaign_id"), Attribute("target"), Attribute("status", ("open", "switched_off"))),
        *(Attribute("http.response.status_code"), Attribute("remedy")),
    ),
    series=(),
)
CALLBACKS_HELD: Final = Gauge(
    "stream_scorer.callbacks.held",
    "{callback}",
    "Callbacks held since the start, because their bodies were made for another target or other columns.",
    service="callbacks",
)
OLDEST_UNDELIVERED_AGE: Final = Gauge(
    "stream_scorer.callbacks.oldest_undelivered.age",
    "s",
    "Time since the plan of the oldest callback that this worker has read and not delivered.",
    note="Of a retry topic the first record counts",
    service="callbacks",
)
IN_RETRY_TOPIC: Final = Gauge(
    "stream_scorer.callbacks.in_retry_topic",
    "{callback}",
    "Records of each retry topic above the group's commits.",
    service="callbacks",
    attributes=(Attribute("retry_topic", CALLBACK_RETRY_LEVELS),),
)

INSTRUMENTS: Final = tuple(one for one in tuple(globals().values()) if isinstance(one, Instrument))


def instruments_of(service: Service) -> tuple[Instrument, ...]:
    """Return the entries that a service has."""
    return tuple(one for one in INSTRUMENTS if one.service in (None, service))
