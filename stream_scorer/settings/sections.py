"""Sections of the settings; names and defaults are those of the contract (docs/contract.md, section 4)."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotation
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StrictBool, StrictInt, StrictStr, model_validator

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
_MOST_TIERS = 4
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
    group_id: Text = "stream-scorer"
    instance_id: Text = Field(default_factory=generate_instance_id)
    start_from: StartFrom = "earliest"
    allow_new_group: bool = False
    properties: Mapping[Text, Property] = Field(default_factory=dict, repr=False)

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
    properties: Mapping[Text, Property] = Field(default_factory=dict, repr=False)


class GenesysSettings(Section):
    """Scoring API: address, credentials, time-outs and retries.

    ``client_secret_file``: the file of ``client_secret``; None: the secret was given directly or by a pipe.
    """

    region: Text = regions.DEFAULT_REGION
    base_url: BaseUrl | None = None
    login_url: BaseUrl | None = None
    client_id: Text | None = None
    client_secret: Secret | None = None
    client_secret_file: SecretFile | None = Field(default=None, exclude=True)
    model_id: Text | None = None
    model_version: Text | None = None
    timeout_s: Seconds = 30
    token_timeout_s: Seconds = 15
    max_retries: Annotated[CountOrZero, Field(le=100)] = 3
    backoff_base_s: Seconds = 2.0
    max_backoff_s: Seconds = 60
    max_retry_after_s: Seconds = 900
    probe_interval_s: Seconds = 10
    requests_per_minute: Count = 300

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
    max_request_bytes: Annotated[Count, Field(ge=1024, le=512_000)] = 512_000
    linger_ms: Milliseconds = 200
    max_in_flight: Annotated[Count, Field(le=1000)] = 8
    max_uncommitted: Annotated[Count, Field(le=10_000_000)] = 16_000
    commit_interval_ms: Milliseconds = 200
    revoke_wait_s: SecondsOrZero = 5
    shutdown_timeout_s: SecondsOrZero = 25
    max_contacts_per_minute: Count | None = None
    max_event_age_s: Seconds | None = None
    retry_delays_s: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=_MOST_RETRY_LEVELS)] = (60, 600, 3600)
    max_refused_share: Annotated[Number, Field(gt=0, le=1)] = 0.01

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
    max_interval_width: Annotated[Number, Field(gt=0, le=1)] | None = None

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
    """Campaign worker. ``run`` does not use this section, but checks it, since settings files are shared.

    ``probe_interval_s``: interval of probes to a receiver that has answered 410.
    """

    target: Literal["webhook", "genesys-outbound", "log"] = "webhook"
    url: ExactUrl | None = Field(default=None, repr=False)
    threshold: Annotated[Number, Field(ge=0, le=1)] = 0.75
    secret: Secret | None = None
    secret_previous: Secret | None = None
    group_id: Text | None = None
    max_contacts: Annotated[Count, Field(le=1000)] = 75
    linger_ms: Milliseconds = 200
    retry_delays_s: Annotated[tuple[Seconds, ...], Field(min_length=1, max_length=_MOST_TIERS)] = (60, 600, 3600, 21600)
    max_per_minute: Count | None = None
    max_age_s: Seconds = 86400
    probe_interval_s: Seconds = 10
    allow_http: bool = False
    contact_list_id: Text | None = None
    admin_port: Port = 9465

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_ascending(self.retry_delays_s, "callbacks.retry_delays_s")
        return self


class AuditSettings(Section):
    """Audit: retention of the audit topic in days."""

    retention_days: Annotated[Count, Field(le=36_500)] = 400


class AdminSettings(Section):
    """Address of ``/livez``, ``/readyz`` and ``/metrics``; port 0: none.

    ``max_unexplained_wait_s``: how long a record may wait without a known reason before ``/livez`` fails.
    """

    host: Text = "127.0.0.1"
    port: Port = 9464
    max_unexplained_wait_s: Seconds = 300


class LogSettings(Section):
    """Level and format of the log; ``auto``: text on a terminal, else JSON."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class TopicsSettings(Section):
    """Names of the topics. Several may be one topic, unless a service would then read its own output."""

    features: Topic = "contact-features"
    features_retry: Topic = "contact-features-retry"
    scores: Topic = "contact-scores"
    review: Topic = "contact-scores-review"
    rejected: Topic = "contact-features-rejected"
    audit: Topic = "scoring-audit"
    callbacks: Topic = "campaign-callbacks"
    callbacks_retry: Topic = "campaign-callbacks-retry"
    callbacks_rejected: Topic = "campaign-callbacks-rejected"
    receipts: Topic = "campaign-receipts"

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
        tiers = self.retries()
        written = {
            "callbacks": self.callbacks,
            "callbacks_rejected": self.callbacks_rejected,
            "receipts": self.receipts,
        }
        read = {"scores": (self.scores,), "callbacks": (self.callbacks,), "callbacks_retry": tiers}
        for reads, names in read.items():
            for writes, name in written.items():
                if name in names and reads != writes:
                    text = (
                        f"topics.{writes} and topics.{reads} are both {name!r}:"
                        " the campaign worker would read its own records as another kind"
                    )
                    raise conflict(text, f"topics.{writes}", f"topics.{reads}")
        if self.scores in tiers:
            text = f"topics.scores is {self.scores!r}, which is a retry topic of topics.callbacks_retry"
            raise conflict(text, "topics.scores", "topics.callbacks_retry")

    @property
    def scoring(self) -> tuple[str, ...]:
        """Topics of the scoring worker without its retry topics, each name once, the input first."""
        return tuple(dict.fromkeys((self.features, self.scores, self.review, self.rejected, self.audit)))

    def contact_retries(self, levels: int = _MOST_RETRY_LEVELS) -> tuple[str, ...]:
        """Return the retry topics of contacts, level 1 first; by default those of all levels."""
        return retry_topics(self.features_retry, levels)

    def retries(self, tiers: int = _MOST_TIERS) -> tuple[str, ...]:
        """Return the retry topics of callbacks, level 1 first; by default those of all levels."""
        return retry_topics(self.callbacks_retry, tiers)

    def campaign(self, tiers: int) -> tuple[str, ...]:
        """Return the campaign worker's topics, each once, the input first; ``tiers``: number of retry topics."""
        return tuple(
            dict.fromkeys((self.scores, self.callbacks, *self.retries(tiers), self.callbacks_rejected, self.receipts)),
        )
