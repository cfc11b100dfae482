"""Scores contacts from Kafka through Genesys Cloud Predictive Engagement, exactly once.

The names below are the library: scores for a list of dicts, no Kafka needed. They are imported when first used, so that
a program that needs only a part of the package does not load all of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_scorer.errors import (
        ApiError,
        ApiRefused,
        ApiUnavailable,
        ClientClosed,
        ContactError,
        InputError,
        InputTypeError,
        SettingsError,
        StreamScorerError,
    )
    from stream_scorer.library.audit_chain import verify_audit_chain
    from stream_scorer.library.audit_log import AuditLogger
    from stream_scorer.library.calculator import PredictiveScoreCalculator
    from stream_scorer.library.client import GenesysAuthManager, ScoreClient, ScoreResponse
    from stream_scorer.library.payload import ContactFeatureVector, ScoringPayload
    from stream_scorer.library.results import ConfidenceVerifier, RejectedContact, ScoreResult, ScoringOutcome

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "ApiRefused",
    "ApiUnavailable",
    "AuditLogger",
    "ClientClosed",
    "ConfidenceVerifier",
    "ContactError",
    "ContactFeatureVector",
    "GenesysAuthManager",
    "InputError",
    "InputTypeError",
    "PredictiveScoreCalculator",
    "RejectedContact",
    "ScoreClient",
    "ScoreResponse",
    "ScoreResult",
    "ScoringOutcome",
    "ScoringPayload",
    "SettingsError",
    "StreamScorerError",
    "__version__",
    "verify_audit_chain",
]

_HOMES = {
    "ApiError": "errors",
    "ApiRefused": "errors",
    "ApiUnavailable": "errors",
    "AuditLogger": "library.audit_log",
    "ClientClosed": "errors",
    "ConfidenceVerifier": "library.results",
    "ContactError": "errors",
    "ContactFeatureVector": "library.payload",
    "GenesysAuthManager": "library.client",
    "InputError": "errors",
    "InputTypeError": "errors",
    "PredictiveScoreCalculator": "library.calculator",
    "RejectedContact": "library.results",
    "ScoreClient": "library.client",
    "ScoreResponse": "library.client",
    "ScoreResult": "library.results",
    "ScoringOutcome": "library.results",
    "ScoringPayload": "library.payload",
    "SettingsError": "errors",
    "StreamScorerError": "errors",
    "verify_audit_chain": "library.audit_chain",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
