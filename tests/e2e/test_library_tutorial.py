"""The sequence of the tutorial that the project starts from, with its names and arguments, against the simulator.

The calls are the tutorial's: positions, keywords and order. Only the text around them is this project's.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer import (
    AuditLogger,
    ConfidenceVerifier,
    ContactFeatureVector,
    GenesysAuthManager,
    PredictiveScoreCalculator,
    ScoreClient,
    ScoreResult,
    ScoringPayload,
)

if TYPE_CHECKING:
    from pathlib import Path

    from stream_scorer.local.simulator import Simulator

EXPECTED_FEATURES = ["previous_calls", "avg_handle_time", "last_contact_days", "segment_id"]
IMPUTATION_MAP = {"previous_calls": 0, "avg_handle_time": 180.0, "last_contact_days": 30, "segment_id": "default"}


def sample_contacts() -> list[dict[str, Any]]:
    first = {"previous_calls": 3, "avg_handle_time": 150, "last_contact_days": 5, "segment_id": "premium"}
    second = {"previous_calls": None, "avg_handle_time": 200, "last_contact_days": 12, "segment_id": "standard"}
    return [{"contactId": "CUST-001", "features": first}, {"contactId": "CUST-002", "features": second}]


@pytest.fixture(autouse=True)
def environment(simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the tutorial reads, and the address of the simulator in place of the platform's."""
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0)
    for name in [one for one in os.environ if one.startswith(("GENESYS_", "STREAM_SCORER_GENESYS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GENESYS_MODEL_ID", "simulator-model")
    monkeypatch.setenv("GENESYS_CLIENT_ID", "simulator-client")
    monkeypatch.setenv("GENESYS_CLIENT_SECRET", "simulator-secret")
    monkeypatch.setenv("GENESYS_BASE_URL", simulator.base_url)
    monkeypatch.chdir(tmp_path)


def payload_of(raw_contacts: list[dict[str, Any]]) -> ScoringPayload:
    return ScoringPayload(contacts=[ContactFeatureVector(**c) for c in raw_contacts])


def test_usage_example(tmp_path: Path) -> None:
    high_priority: list[ScoreResult] = []

    def campaign_callback(results: list[ScoreResult]) -> None:
        high_priority.extend(r for r in results if r.score >= 0.0)

    calculator = PredictiveScoreCalculator(
        model_id=os.getenv("GENESYS_MODEL_ID"),
        client_id=os.getenv("GENESYS_CLIENT_ID"),
        client_secret=os.getenv("GENESYS_CLIENT_SECRET"),
        expected_features=EXPECTED_FEATURES,
        imputation_map=IMPUTATION_MAP,
        callback_handler=campaign_callback,
    )
    scores = calculator.calculate_scores(sample_contacts())
    printed = json.loads(json.dumps([asdict(s) for s in scores], indent=2))
    assert [one["contact_id"] for one in printed] == ["CUST-001", "CUST-002"]
    assert set(printed[0]) >= {
        *("contact_id", "score", "confidence_interval_lower", "confidence_interval_upper", "latency_ms", "timestamp")
    }
    assert printed[1]["imputed_features"] == ["previous_calls"]
    assert high_priority == scores
    assert "CUST-002" in (tmp_path / "predictive_engagement_audit.log").read_text()
    calculator.close()


def test_null_passes_the_check_of_dimensions_and_is_imputed_afterwards() -> None:
    payload = payload_of(sample_contacts())
    payload.validate_dimensions(EXPECTED_FEATURES)
    payload.impute_missing_values(IMPUTATION_MAP)
    assert payload.contacts[1].features["previous_calls"] == 0
    assert payload.contacts[1].imputed_features == ("previous_calls",)
    assert len(payload.chunk()) == 1


@pytest.mark.parametrize("change", [{"absent": "segment_id"}, {"extra": "shoe_size"}])
def test_a_missing_or_unsupported_feature_raises_there(change: dict[str, str]) -> None:
    raw = sample_contacts()
    if "absent" in change:
        del raw[0]["features"]["segment_id"]
    else:
        raw[0]["features"]["shoe_size"] = 44
    with pytest.raises(ValueError, match=rf"CUST-001.*{next(iter(change.values()))}"):
        payload_of(raw).validate_dimensions(EXPECTED_FEATURES)


def test_an_empty_contact_id_raises() -> None:
    with pytest.raises(ValueError, match="contactId must not be empty"):
        ContactFeatureVector(contactId="", features={})


def test_step_by_step(simulator: Simulator, tmp_path: Path) -> None:
    """Authentication, payload, request, verification and audit by hand, as in the steps of the tutorial."""
    auth = GenesysAuthManager(os.environ["GENESYS_CLIENT_ID"], os.environ["GENESYS_CLIENT_SECRET"])
    assert auth.get_token() == auth.get_token()
    headers = auth.get_headers()
    assert "Bearer" in headers["Authorization"]
    client = ScoreClient(auth)
    verifier, auditor = ConfidenceVerifier(min_confidence_width=0.15), AuditLogger(log_file="audit.log")
    payload = payload_of(sample_contacts())
    payload.validate_dimensions(EXPECTED_FEATURES)
    payload.impute_missing_values(IMPUTATION_MAP)
    all_results = []
    for chunk in payload.chunk():
        response = client.submit_score_batch(chunk, os.environ["GENESYS_MODEL_ID"])
        response.raise_for_status()
        for item in response.json().get("results", []):
            result = ScoreResult(
                contact_id=item["contactId"],
                score=item["score"],
                confidence_interval_lower=item["confidenceInterval"]["lower"],
                confidence_interval_upper=item["confidenceInterval"]["upper"],
                latency_ms=response.latency_ms,
                timestamp="2027-01-15T08:00:00+00:00",
            )
            if verifier.verify(result):
                all_results.append(result)
    auditor.log_score_batch(all_results, os.environ["GENESYS_MODEL_ID"], len(payload.contacts))
    assert [one.contact_id for one in all_results] == ["CUST-001", "CUST-002"]
    assert (tmp_path / "audit.log").read_text().count("SCORED") == 2
    assert simulator.stats().requests_with("score", 200) == 1
    auth.close()


def test_model_version_and_limits_by_the_names_of_the_tutorial() -> None:
    contacts = [ContactFeatureVector(**c) for c in sample_contacts()]
    payload = ScoringPayload(contacts=contacts, modelVersion="v2", max_features=50, batch_limit=1)
    chunks = payload.impute_missing_values(IMPUTATION_MAP).chunk()
    assert [(len(one.contacts), one.model_version, one.batch_limit) for one in chunks] == [(1, "v2", 1)] * 2
    dumped = payload.model_dump(by_alias=True)
    assert set(dumped) == {"contacts", "modelVersion"}
    assert set(dumped["contacts"][0]) == {"contactId", "features"}


def test_a_429_is_retried_and_logged(simulator: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    simulator.add_fault(status=429, retry_after=1, times=1)
    with (
        caplog.at_level(logging.WARNING),
        PredictiveScoreCalculator(expected_features=EXPECTED_FEATURES, imputation_map=IMPUTATION_MAP) as calculator,
    ):
        assert len(calculator.calculate_scores(sample_contacts())) == 2
    assert "request retried" in caplog.text
    assert "status_code 429" in caplog.text
