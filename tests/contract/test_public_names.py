"""The public names, their parameters and their fields: other people's programs are written against these."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from types import MappingProxyType

import pytest

import stream_scorer

NAMES = {
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
}

# What may be given by position, in this order, with its default ("…": none; None of address and credentials: from the
# environment).
POSITIONAL = {
    "PredictiveScoreCalculator": {
        "model_id": None,
        "client_id": None,
        "client_secret": None,
        "expected_features": None,
        "imputation_map": MappingProxyType({}),
        "callback_handler": None,
        "base_url": None,
    },
    "GenesysAuthManager": {"client_id": None, "client_secret": None, "base_url": None},
    "ScoreClient": {"auth": "…", "base_url": None},
    "ConfidenceVerifier": {"min_confidence_width": 0.15},
    "verify_audit_chain": {"values": "…"},
    "AuditLogger": {"log_file": "predictive_engagement_audit.log"},
    "ScoreResult": {
        "contact_id": "…",
        "score": "…",
        "confidence_interval_lower": "…",
        "confidence_interval_upper": "…",
        "latency_ms": "…",
        "timestamp": "…",
    },
}

METHODS = {
    "PredictiveScoreCalculator": {"calculate_scores": ["raw_contacts"], "calculate": ["raw_contacts"]},
    "GenesysAuthManager": {"get_token": [], "get_headers": []},
    "ScoreClient": {"submit_score_batch": ["payload", "model_id"]},
    "ScoringPayload": {
        "validate_dimensions": ["expected_features"],
        "impute_missing_values": ["imputation_map"],
        "chunk": [],
    },
    "ConfidenceVerifier": {"verify": ["result"]},
    "AuditLogger": {"log_score_batch": ["results", "model_id", "batch_size"]},
}


def test_the_names_are_these_and_all_can_be_imported() -> None:
    assert set(stream_scorer.__all__) == NAMES
    assert set(dir(stream_scorer)) >= NAMES
    for name in NAMES:
        assert getattr(stream_scorer, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = stream_scorer.no_such_name


@pytest.mark.parametrize("name", POSITIONAL)
def test_constructor_parameters(name: str) -> None:
    parameters = list(inspect.signature(getattr(stream_scorer, name)).parameters.values())
    given = {
        one.name: "…" if one.default is inspect.Parameter.empty else one.default
        for one in parameters
        if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    }
    wanted = POSITIONAL[name]
    assert dict(list(given.items())[: len(wanted)]) == wanted
    assert list(given)[: len(wanted)] == list(wanted)
    more = [one for one in parameters if one.name not in wanted]
    assert all(one.default is not inspect.Parameter.empty for one in more)


@pytest.mark.parametrize(("name", "method"), [(name, method) for name, found in METHODS.items() for method in found])
def test_methods(name: str, method: str) -> None:
    parameters = inspect.signature(getattr(getattr(stream_scorer, name), method)).parameters.values()
    needed = [one.name for one in parameters if one.default is inspect.Parameter.empty and one.name != "self"]
    assert needed == METHODS[name][method]


def test_fields() -> None:
    assert [field.name for field in dataclasses.fields(stream_scorer.ScoringOutcome)] == [
        "scored",
        "review",
        "rejected",
    ]
    vector = stream_scorer.ContactFeatureVector.model_fields
    assert {name: field.alias for name, field in vector.items()} == {"contact_id": "contactId", "features": None}
    payload = stream_scorer.ScoringPayload.model_fields
    assert {name: field.alias for name, field in payload.items()} == {
        "contacts": None,
        "model_version": "modelVersion",
        "max_features": None,
        "batch_limit": None,
    }
    assert (payload["max_features"].default, payload["batch_limit"].default) == (50, 1000)


def test_importing_the_package_loads_no_library_until_it_is_used() -> None:
    code = "import sys, stream_scorer; print(sorted({'requests', 'pydantic', 'confluent_kafka'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
