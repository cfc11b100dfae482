"""Sections of the settings. docs/settings.md is generated from the fields and the texts below them."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotation
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StrictBool, StrictInt, StrictStr, model_validator

from stream_scorer.core.callbacks.columns import DEFAULT_FIELDS, MAX_COLUMNS, attribute_of, source_problem
from stream_scorer.core.retry_topics import retry_topics
from stream_scorer.errors import SettingsError
from stream_scorer.genesys import regions
from stream_scorer.settings.secret_file import SecretFile  # noqa: TC001 - pydantic reads the annotation
from stream_scorer.settings.types import (
    BaseUrl,
    BootstrapServers,
    Count,
    CountOrZero,
    ExactUrl,
    Milliseconds,
    Number,
    Port,
    Seconds,
    SecondsOrZero,
    Section,
    StartFrom,
    Text,
    Topic,
    Url,
    conflict,
)

Secret = Annotated[SecretStr, Field(min_length=1, max_length=10_000)]
# The callbacks' retry topics end with -1 to -4; those above the setting's number are read, too.
_MAX_LEVELS = 4
# The same for the contacts' retry topics: -1 to -9.
_MOST_RETRY_LEVELS = 9
Property = StrictBool | StrictInt | Annotated[float, Field(strict=True)] | StrictStr


def _check_ascending(delays_s: tuple[float, ...], key: str) -> None:
    """Raise an error if retry delays are not in ascending order."""
    if list(delays_s) != sorted(delays_s):
        text = f"{key} must be in ascending order: each retry topic is for records that have been in those before"
        raise conflict(text, key)


def generate_instance_id() -> str:
    """Return a unique instance id: the host's name and a random suffix."""
    return f"{socket.gethostname()[:200]}-{secrets.token_hex(4)}"


class KafkaSettings(Section):
    """Kafka cluster, and this worker's place in its group. ``properties`` are librdkafka's (`kafka.client.config`)."""

    bootstrap_servers: BootstrapServers = "127.0.0.1:9092"
    """Brokers to connect to first, as `host:port`, several separated by commas."""
    group_id: Text = "stream-scorer"
    """Consumer group of the scoring workers."""
    instance_id: Text = Field(default_factory=generate_instance_id)
    """Name of the worker. Set it where a worker has a stable name: its open transaction is then ended at once after a
    crash. Two running workers must never share one. The transactional id is group, `-`, instance, `-` and role
    (`scorer`, `planner`, `deliverer`).
    """
    start_from: StartFrom = "earliest"
    """Start of a group without any commit: `earliest`, `latest` or an ISO time with a zone."""
    allow_new_group: bool = False
    """Let a group without any commit start at `kafka.start_from` although its output topics were written to before: for
    unattended first starts on shared topics. Remove it once the group has started: with it, a group whose commits have
    expired starts over.
    """
    properties: Mapping[Text, Property] = Field(default_factory=dict, repr=False)
    """Properties of librdkafka (SASL, TLS, time-outs). Fixed values of `bootstrap.servers`, `group.id`,
    `transactional.id`, `enable.*`, `isolation.level`, `auto.offset.reset` and `acks` take precedence, with a warning.
    """

    @property
    def transactional_id(self) -> str:
        """Transactional id of this scoring worker, by which the broker fences an earlier process of it."""
        return self.transactional_id_of("scorer", self.group_id)

    def transactional_id_of(self, role: Literal["scorer", "planner", "deliverer"], group_id: str) -> str:
        """Return the transactional id of a producer, by which the broker fences an earlier process of it.

        The group comes first, for ACLs by prefix. The role comes last, so that two roles never share an id, whatever
        the names of groups and instances.
        """
        return f"{group_id}-{self.instance_id}-{role}"

    @property
    def start_at_ms(self) -> int | None:
        """The time in ``start_from`` as Unix milliseconds; None for ``earliest`` and ``latest``."""
        if self.start_from in ("earliest", "latest"):
            return None
        return round(datetime.fromisoformat(self.start_from).timestamp() * 1000)


class SchemaRegistrySettings(Section):
    """Schema registry; without a URL values are single-object encoded.

    ``properties`` are those of confluent-kafka's registry client, such as ``basic.auth.user.info``.
    """

    url: Url | None = Field(default=None, repr=False)
    """Confluent-compatible registry, see [registry.md](registry.md). Without it, values are single-object encoded."""
    properties: Mapping[Text, Property] = Field(default_factory=dict, repr=False)
    """Properties of confluent-kafka's registry client, such as `basic.auth.user.info` and `ssl.ca.location`."""


class GenesysSettings(Section):
    """Scoring API: address, credentials, time-outs and retries.

    ``client_secret_file``: the file of ``client_secret``; None: the secret was given directly or by a pipe.
    """

    region: Text = regions.DEFAULT_REGION
    """Region of Genesys Cloud: gives `https://api.{region}` and `https://login.{region}`."""
    base_url: BaseUrl | None = None
    """URL of the API instead of the region's: for proxies, tests and the simulator."""
    login_url: BaseUrl | None = None
    """URL of the login service instead of the region's. It follows `genesys.base_url` if that is set."""
    client_id: Text | None = None
    """Id of the OAuth client; required."""
    client_secret: Secret | None = None
    """Secret of the OAuth client; required. Its file is read again before each token request."""
    client_secret_file: SecretFile | None = Field(default=None, exclude=True)
    model_id: Text | None = None
    """Id of the model; required."""
    model_version: Text | None = None
    """Version of the model for events without one. Without it, the platform's current version."""
    timeout_s: Seconds = 30
    """Deadline of a whole exchange with the API, in seconds."""
    token_timeout_s: Seconds = 15
    """Deadline of a token request, in seconds."""
    max_retries: Annotated[CountOrZero, Field(le=100)] = 3
    """Retries after the first attempt of a request."""
    backoff_base_s: Seconds = 2.0
    """Base of the exponential backoff in seconds: the n-th retry waits `backoff_base_s ** n` with jitter, at least half
    of it. A base below 1 is the wait itself.
    """
    max_backoff_s: Seconds = 60
    """Longest backoff in seconds. A `Retry-After` is not cut to it."""
    max_retry_after_s: Seconds = 900
    """Longest `Retry-After` in seconds that is obeyed at a time."""
    probe_interval_s: Seconds = 10
    """Seconds between probes while the circuit breaker is open."""
    requests_per_minute: Count = 300
    """Quota of this worker. The API's `inin-ratelimit-*` headers are obeyed too; the lower limit holds."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.backoff_base_s > self.max_backoff_s:
            text = (
                f"genesys.backoff_base_s ({self.backoff_base_s:g}) is longer than genesys.max_backoff_s"
                f" ({self.max_backoff_s:g}): no retry could wait that long"
            )
            raise conflict(text, "genesys.backoff_base_s", "genesys.max_backoff_s")
        if self.base_url is None and self.region not in regions.REGIONS:
            known = ", ".join(regions.REGIONS)
            text = (
                f"genesys.region {regions.quoted_region(self.region)}is no region of Genesys Cloud: use one of {known},"
                " or set genesys.base_url"
            )
            raise conflict(text, "genesys.region")
        return self

    def read_client_secret(self) -> str:
        """Return the current client secret; a secret file is read again.

        Raises:
            SettingsError: there is no secret, or its file cannot be read; names the key and the file's setting.
        """
        if self.client_secret_file is not None:
            return self.client_secret_file.read()
        if self.client_secret is None:
            raise SettingsError("genesys.client_secret is missing")
        return self.client_secret.get_secret_value()

    @property
    def api_url(self) -> str:
        """Base URL of the API, without a trailing slash."""
        return self.base_url or regions.api_url(self.region)

    @property
    def token_url(self) -> str:
        """Base URL of the login service, without a trailing slash.

        It follows ``base_url`` if ``login_url`` is not set: the secret for a proxy or simulator must not be sent to the
        platform, nor the other way round.
        """
        if self.login_url is not None:
            return self.login_url
        return regions.login_url_for(self.base_url) if self.base_url else regions.login_url(self.region)


class ScoringSettings(Section):
    """Scoring worker: request size, concurrency, commit interval."""

    max_contacts: Annotated[Count, Field(le=1000)] = 1000
    """Contacts in a request."""
    max_request_bytes: Annotated[Count, Field(ge=1024, le=512_000)] = 512_000
    """Bytes of a request body."""
    linger_ms: Milliseconds = 200
    """Milliseconds after which a batch that is not full is closed, if quota and a free slot allow sending it."""
    max_in_flight: Annotated[Count, Field(le=1000)] = 8
    """Requests at once."""
    max_uncommitted: Annotated[Count, Field(le=10_000_000)] = 16_000
    """Contacts that are read and not committed: the maximum that a crash can cost."""
    commit_interval_ms: Milliseconds = 200
    """Milliseconds between transactions at most, while there are outcomes to commit."""
    revoke_wait_s: SecondsOrZero = 5
    """Seconds that a rebalance waits for responses about revoked partitions."""
    shutdown_timeout_s: SecondsOrZero = 25
    """Seconds that a shutdown waits for responses in flight, and for requests that block finished outcomes. The process
    ends 8 s later at most.
    """
    max_contacts_per_minute: Count | None = None
    """Spend limit of this worker: contacts sent in any 60 s; the others wait."""
    max_event_age_s: Seconds | None = None
    """Events that were older, in seconds, when they were written to the features topic are rejected as `expired`: the
    record's timestamp minus `occurred_at`. The time that a record waits in Kafka or in the worker does not count.
    """
    retry_delays_s: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=_MOST_RETRY_LEVELS)] = (60, 600, 3600)
    """Seconds that a contact waits in each retry topic, one to nine in ascending order; `topics create` creates a topic
    for each. Records in topics of higher levels are read, too.
    """
    max_refused_share: Annotated[Number, Field(gt=0, le=1)] = 0.01
    """Largest share of the contacts finished in the last 10 minutes that is rejected for one status and model version;
    the others wait. 1: no limit.
    """

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_ascending(self.retry_delays_s, "scoring.retry_delays_s")
        if self.max_uncommitted < self.max_contacts:
            text = (
                f"scoring.max_uncommitted ({self.max_uncommitted}) is less than scoring.max_contacts"
                f" ({self.max_contacts}): no batch could ever be full"
            )
            raise conflict(text, "scoring.max_uncommitted", "scoring.max_contacts")
        return self


class VerificationSettings(Section):
    """Limits for confidence intervals; scores outside them go to review."""

    min_interval_width: Annotated[Number, Field(ge=0, le=1)] = 0.15
    """A score with a narrower confidence interval goes to review."""
    max_interval_width: Annotated[Number, Field(gt=0, le=1)] | None = None
    """A score with a wider confidence interval goes to review."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_interval_width is not None and self.max_interval_width <= self.min_interval_width:
            text = (
                f"verification.max_interval_width ({self.max_interval_width:g}) is not greater than"
                f" verification.min_interval_width ({self.min_interval_width:g}): every score would go to review"
            )
            raise conflict(text, "verification.max_interval_width", "verification.min_interval_width")
        return self


class CallbacksSettings(Section):
    """Campaign worker. ``run`` does not use this section, but checks it, since settings files are shared."""

    target: Literal["webhook", "genesys-outbound", "log"] = "webhook"
    """Destination of callbacks, see [targets.md](targets.md)."""
    url: ExactUrl | None = Field(default=None, repr=False)
    """URL of the webhook: `https`, or `http` to this machine."""
    threshold: Annotated[Number, Field(ge=0, le=1)] = 0.75
    """Lowest score that causes a callback."""
    secret: Secret | None = None
    """Signs the webhook: base64 of at least 24 bytes."""
    secret_previous: Secret | None = None
    """Signs the webhook too, while the secret changes."""
    group_id: Text | None = None
    """Consumer group of the planner; with `-delivery` added, of the deliverer."""
    max_contacts: Annotated[Count, Field(le=1000)] = 75
    """Contacts in a callback."""
    linger_ms: Milliseconds = 200
    """Longest time in milliseconds between reading a score and planning its callback."""
    retry_delays_s: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=_MAX_LEVELS)] = (
        60,
        600,
        3600,
        21600,
    )
    """Seconds that a callback waits in each retry topic, one to four in ascending order; `topics create` creates a
    topic for each. Records in topics of higher levels are delivered, too.
    """
    max_per_minute: Count | None = None
    """Callbacks of one campaign in any 60 s, for this worker; the others wait in a retry topic."""
    max_age_s: Seconds = 86400
    """A score that is older, in seconds, when it is planned gets the receipt `EXPIRED` and no callback."""
    timeout_s: Annotated[Seconds, Field(le=300)] = 15
    """Deadline of one attempt of a webhook, in seconds."""
    probe_interval_s: Seconds = 10
    """Seconds between probes while a circuit breaker is open; 60 of these intervals between probes of a campaign that
    is switched off (410).
    """
    allow_http: bool = False
    """Allow `http` to other machines."""
    contact_list_id: Text | None = None
    """Contact list of `genesys-outbound`, for all campaigns that `contact_lists` does not name."""
    contact_lists: Mapping[Text, Text] = Field(default_factory=dict)
    """Contact lists by campaign id; in the environment as JSON."""
    columns: Annotated[Mapping[Text, Text], Field(min_length=1)] = Field(
        default_factory=lambda: {name: name for name in DEFAULT_FIELDS}
    )
    """By column of the contact list `contact_id`, a field of the score, or `attributes.NAME`; at most 50; in the
    environment as JSON, see [targets.md](targets.md#genesys-cloud-outbound).
    """
    contact_id: Text = "derived"
    """Id of a contact in the list: `derived` (a UUIDv5 of list and contact id), `contact_id` or `attributes.NAME`."""
    requeue: Literal["never", "newer_score"] = "never"
    """`newer_score`: a contact of the list is dialled again for a newer score; its `scored_at` is read first."""
    admin_port: Port = 9465
    """Port of `/livez`, `/readyz` and `/metrics` of `callbacks`; 0: off."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_ascending(self.retry_delays_s, "callbacks.retry_delays_s")
        self._check_contacts()
        return self

    def _check_contacts(self) -> None:
        """Check the contacts of a contact list."""
        if len(self.columns) > MAX_COLUMNS:
            text = f"callbacks.columns has {len(self.columns)} columns, and a contact list at most {MAX_COLUMNS}"
            raise conflict(text, *(f"callbacks.columns.{column}" for column in self.columns))
        for column, source in self.columns.items():
            if (problem := source_problem(source)) is not None:
                raise conflict(f"callbacks.columns.{column} {problem}", f"callbacks.columns.{column}")
        if self.contact_id not in ("derived", "contact_id") and attribute_of(self.contact_id) is None:
            text = "callbacks.contact_id must be derived, contact_id or attributes.NAME"
            raise conflict(text, "callbacks.contact_id")
        if self.requeue == "newer_score" and "scored_at" not in self.columns.values():
            text = 'callbacks.requeue = "newer_score" needs a column that is filled from scored_at in callbacks.columns'
            raise conflict(text, "callbacks.requeue", "callbacks.columns")


class AuditSettings(Section):
    """Audit: retention of the audit topic in days."""

    retention_days: Annotated[Count, Field(le=36_500)] = 400
    """Days for which the audit topic must keep its events. `topics create` sets it on a new topic, `topics create
    --update-retention` on an existing one. A shorter retention is a warning at start and a failure of `config check
    --connect`.
    """


class AdminSettings(Section):
    """Address of ``/livez``, ``/readyz`` and ``/metrics``; port 0: none.

    ``max_unexplained_wait_s``: how long a record may wait without a known reason before ``/livez`` fails.
    """

    host: Text = "127.0.0.1"
    """Address of `/livez`, `/readyz` and `/metrics`."""
    port: Port = 9464
    """Port of `/livez`, `/readyz` and `/metrics` of `run`; 0: off."""
    max_unexplained_wait_s: Seconds = 300
    """Seconds that the oldest record may wait without a known reason before `/livez` fails."""


class LogSettings(Section):
    """Level and format of the log; ``auto``: text on a terminal, else JSON."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged. Ids of contacts are logged at `debug` only."""
    format: Literal["auto", "json", "text"] = "auto"
    """`json`, `text`, or `auto`: text on a terminal, else JSON."""


class TopicsSettings(Section):
    """Names of the topics. Several may be one topic, unless a service would then read its own output."""

    features: Topic = "contact-features"
    """Input of the scoring worker."""
    features_retry: Topic = "contact-features-retry"
    """Prefix of the retry topics of contacts: `-1` to `-9` is added, one for each of `scoring.retry_delays_s`."""
    scores: Topic = "contact-scores"
    """Scored contacts."""
    review: Topic = "contact-scores-review"
    """Scores that a person should check."""
    rejected: Topic = "contact-features-rejected"
    """Contacts without a score, with the reasons."""
    audit: Topic = "scoring-audit"
    """Audit events, with an entry for each outcome."""
    callbacks: Topic = "campaign-callbacks"
    """Planned callbacks."""
    callbacks_retry: Topic = "campaign-callbacks-retry"
    """Prefix of the retry topics of callbacks: `-1` to `-4` is added, one for each of `callbacks.retry_delays_s`."""
    callbacks_rejected: Topic = "campaign-callbacks-rejected"
    """Callbacks that were refused or given up, and records that are not a score or a callback."""
    receipts: Topic = "campaign-receipts"
    """Final outcomes of callbacks."""
    decisions: Topic = "scoring-decisions"
    """Decisions of operators: what was replayed, discarded, accepted or delivered again."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for output in ("scores", "review", "rejected", "audit"):
            if getattr(self, output) == self.features:
                text = (
                    f"topics.{output} and topics.features are both {self.features!r}:"
                    " the scorer would read its own output endlessly"
                )
                raise conflict(text, f"topics.{output}", "topics.features")
        self._check_retries()
        self._check_campaign()
        self._check_decisions()
        return self

    def _check_retries(self) -> None:
        """Raise an error if a contact retry topic has another use: its records are read as contacts."""
        levels = set(self.contact_retries())
        for key in type(self).model_fields:
            name = getattr(self, key)
            if name in levels:
                text = f"topics.{key} is {name!r}, which is a retry topic of topics.features_retry"
                raise conflict(text, f"topics.{key}", "topics.features_retry")
        if both := levels.intersection(self.retries()):
            text = f"topics.features_retry and topics.callbacks_retry both have the retry topic {min(both)!r}"
            raise conflict(text, "topics.features_retry", "topics.callbacks_retry")

    def _check_campaign(self) -> None:
        """Raise an error if a loop of the campaign worker would read another reader's records."""
        retries = self.retries()
        written = {
            "callbacks": self.callbacks,
            "callbacks_rejected": self.callbacks_rejected,
            "receipts": self.receipts,
        }
        read = {"scores": (self.scores,), "callbacks": (self.callbacks,), "callbacks_retry": retries}
        for reads, names in read.items():
            for writes, name in written.items():
                if name in names and reads != writes:
                    text = (
                        f"topics.{writes} and topics.{reads} are both {name!r}:"
                        " the campaign worker would read its own records as another kind"
                    )
                    raise conflict(text, f"topics.{writes}", f"topics.{reads}")
        if self.scores in retries:
            text = f"topics.scores is {self.scores!r}, which is a retry topic of topics.callbacks_retry"
            raise conflict(text, "topics.scores", "topics.callbacks_retry")

    def _check_decisions(self) -> None:
        """Raise an error if the decisions topic has another use: its records are the state of all jobs."""
        others: dict[str, tuple[str, ...]] = {
            key: (getattr(self, key),) for key in type(self).model_fields if key != "decisions"
        }
        others |= {"features_retry": self.contact_retries(), "callbacks_retry": self.retries()}
        for key, names in others.items():
            if self.decisions in names:
                text = f"topics.decisions and topics.{key} are both {self.decisions!r}: decisions need their own topic"
                raise conflict(text, "topics.decisions", f"topics.{key}")

    @property
    def scoring(self) -> tuple[str, ...]:
        """Topics of the scoring worker without its retry topics, each name once, the input first."""
        return tuple(dict.fromkeys((self.features, self.scores, self.review, self.rejected, self.audit)))

    def contact_retries(self, levels: int = _MOST_RETRY_LEVELS) -> tuple[str, ...]:
        """Return the retry topics of contacts, level 1 first; by default those of all levels."""
        return retry_topics(self.features_retry, levels)

    def retries(self, levels: int = _MAX_LEVELS) -> tuple[str, ...]:
        """Return the retry topics of callbacks, level 1 first; by default those of all levels."""
        return retry_topics(self.callbacks_retry, levels)

    def campaign(self, levels: int) -> tuple[str, ...]:
        """Return the campaign worker's topics, each once, the input first; ``levels``: number of retry topics."""
        return tuple(
            dict.fromkeys((self.scores, self.callbacks, *self.retries(levels), self.callbacks_rejected, self.receipts)),
        )
