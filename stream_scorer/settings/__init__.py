"""Settings: frozen sections, read from a TOML file, the environment and flags; the later source wins."""

from stream_scorer.settings.load import LoadedSettings, load, load_settings
from stream_scorer.settings.model import ModelSettings
from stream_scorer.settings.sections import (
    AdminSettings,
    AuditSettings,
    CallbacksSettings,
    GenesysSettings,
    KafkaSettings,
    SchemaRegistrySettings,
    ScoringSettings,
    TopicsSettings,
    VerificationSettings,
)
from stream_scorer.settings.service_links import service_link_notes
from stream_scorer.settings.settings import Settings

__all__ = [
    "AdminSettings",
    "AuditSettings",
    "CallbacksSettings",
    "GenesysSettings",
    "KafkaSettings",
    "LoadedSettings",
    "ModelSettings",
    "SchemaRegistrySettings",
    "ScoringSettings",
    "Settings",
    "TopicsSettings",
    "VerificationSettings",
    "load",
    "load_settings",
    "service_link_notes",
]
