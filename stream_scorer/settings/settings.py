"""All sections together, with the checks that commands run before they start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from stream_scorer.errors import SettingsError
from stream_scorer.http_client.environment import check_http_environment
from stream_scorer.settings.model import ModelSettings
from stream_scorer.settings.names import dotted, variable
from stream_scorer.settings.sections import (
    AdminSettings,
    AuditSettings,
    CallbacksSettings,
    GenesysSettings,
    KafkaSettings,
    LogSettings,
    SchemaRegistrySettings,
    ScoringSettings,
    TopicsSettings,
    VerificationSettings,
)
from stream_scorer.settings.types import Section, conflict, is_in_clear

if TYPE_CHECKING:
    from collections.abc import Callable


class Settings(Section):
    """Effective settings. Frozen; the repr shows no secret.

    `stream_scorer.settings.load_settings` reads them from file, environment and flags. The constructor uses defaults
    for missing values and reads no environment.
    """

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    topics: TopicsSettings = Field(default_factory=TopicsSettings)
    schema_registry: SchemaRegistrySettings = Field(default_factory=SchemaRegistrySettings)
    genesys: GenesysSettings = Field(default_factory=GenesysSettings)
    scoring: ScoringSettings = Field(default_factory=ScoringSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    verification: VerificationSettings = Field(default_factory=VerificationSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    callbacks: CallbacksSettings = Field(default_factory=CallbacksSettings)
    admin: AdminSettings = Field(default_factory=AdminSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.callbacks.group_id == self.kafka.group_id:
            text = (
                f"callbacks.group_id and kafka.group_id are both {self.kafka.group_id!r}:"
                " two services in one group would take each other's partitions"
            )
            raise conflict(text, "callbacks.group_id", "kafka.group_id")
        if self.delivery_group_id == self.kafka.group_id:
            text = (
                f"kafka.group_id is {self.kafka.group_id!r}, which is the group in which callbacks are delivered"
                " (callbacks.group_id and -delivery): two services in one group would take each other's partitions"
            )
            raise conflict(text, "kafka.group_id", "callbacks.group_id")
        if self.schema_registry.properties and self.schema_registry.url is None:
            text = "schema_registry.properties are set, and schema_registry.url is not: no registry would be used"
            raise conflict(text, "schema_registry.properties", "schema_registry.url")
        return self

    @property
    def callbacks_group_id(self) -> str:
        """Consumer group of the planner: ``callbacks.group_id``, else ``<kafka.group_id>-callbacks``."""
        return self.callbacks.group_id or f"{self.kafka.group_id}-callbacks"

    @property
    def delivery_group_id(self) -> str:
        """Consumer group of the deliverer, which reads planned callbacks."""
        return f"{self.callbacks_group_id}-delivery"

    @property
    def contact_retry_topics(self) -> tuple[str, ...]:
        """Retry topics for ``scoring.retry_delays_s``, the shortest delay first."""
        return self.topics.contact_retries(len(self.scoring.retry_delays_s))

    @property
    def scoring_topics(self) -> tuple[str, ...]:
        """All topics of the scoring worker, each name once, the input first."""
        return (*self.topics.scoring, *self.contact_retry_topics)

    @property
    def campaign_topics(self) -> tuple[str, ...]:
        """All topics of the campaign worker, each name once, the input first."""
        return self.topics.campaign(levels=len(self.callbacks.retry_delays_s))

    @property
    def planner_transactional_id(self) -> str:
        """Transactional id of the campaign worker's planner."""
        return self.kafka.transactional_id_of("planner", self.callbacks_group_id)

    @property
    def deliverer_transactional_id(self) -> str:
        """Transactional id of the campaign worker's deliverer."""
        return self.kafka.transactional_id_of("deliverer", self.delivery_group_id)

    @property
    def all_topics(self) -> tuple[str, ...]:
        """All topics that ``topics create`` creates, each name once."""
        return tuple(dict.fromkeys((*self.scoring_topics, *self.campaign_topics, self.topics.decisions)))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about settings that work and are probably not intended, one line each."""
        found = []
        full_batches = self.scoring.max_uncommitted // self.scoring.max_contacts
        if full_batches < self.scoring.max_in_flight:
            found.append(
                f"scoring.max_uncommitted ({self.scoring.max_uncommitted}) holds {full_batches} full batches of"
                f" scoring.max_contacts, so scoring.max_in_flight ({self.scoring.max_in_flight}) is not reached"
            )
        longest_s = self.genesys.timeout_s + self.genesys.token_timeout_s
        if self.admin.port and self.admin.max_unexplained_wait_s <= longest_s:
            found.append(
                f"admin.max_unexplained_wait_s ({self.admin.max_unexplained_wait_s:g}) is not longer than a request may"
                f" take (genesys.timeout_s and genesys.token_timeout_s, {longest_s:g} s): /livez would have the worker"
                " restarted while an answer is still to come"
            )
        return (*found, *self.security_warnings)

    @property
    def security_warnings(self) -> tuple[str, ...]:
        """Warnings about data that can be read on the network, one line each."""
        found = []
        urls = {"base_url": self.genesys.api_url, "login_url": self.genesys.token_url}
        if shown := [f"genesys.{key}" for key, url in urls.items() if is_in_clear(url)]:
            found.append(
                f"{' and '.join(shown)}: plain http shows the client's secret, tokens and contacts to everyone on the"
                " way: use https"
            )
        registry = self.schema_registry
        if any("auth." in name for name in registry.properties) and is_in_clear(registry.url or ""):
            found.append(
                "schema_registry.url: plain http shows the user and password in schema_registry.properties to everyone"
                " on the way: use https"
            )
        return tuple(found)

    def require_api(self) -> None:
        """Check that the settings for requests to the API are complete.

        Raises:
            SettingsError: client id, client secret or model id is missing, one line for each; or proxy or certificate
                variables are invalid.
        """
        if problems := self._missing("client_id", "client_secret", "model_id"):
            raise SettingsError(problems)
        check_http_environment((self.genesys.api_url, self.genesys.token_url), os.environ)

    def require_client(self) -> tuple[str, Callable[[], str]]:
        """Return id and secret of the OAuth client; the secret as a function, since its file is read again.

        Raises:
            SettingsError: one is missing, one line for each; or proxy or certificate variables are invalid.
        """
        client_id = self.genesys.client_id
        if client_id is None or self.genesys.client_secret is None:
            raise SettingsError(self._missing("client_id", "client_secret"))
        check_http_environment((self.genesys.api_url, self.genesys.token_url), os.environ)
        return client_id, self.genesys.read_client_secret

    def _missing(self, *keys: str) -> str:
        problems = []
        for key in keys:
            if getattr(self.genesys, key) is None:
                path = ("genesys", key)
                names = [variable(path), f"GENESYS_{key.upper()}"]
                if key == "client_secret":
                    names.append(f"{variable(path)}_FILE")
                problems.append(f"{dotted(path)} is missing: set {', '.join(names[:-1])} or {names[-1]}")
        return "\n".join(problems)
