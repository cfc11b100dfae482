"""Errors of the library as its caller sees them, against the simulator and raw answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, hang_up, raw_server

from stream_scorer import (
    ApiError,
    ApiRefused,
    ApiUnavailable,
    AuditLogger,
    ContactFeatureVector,
    GenesysAuthManager,
    InputError,
    PredictiveScoreCalculator,
    ScoreClient,
    ScoringPayload,
    verify_audit_chain,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTACT = {"contactId": "a", "features": {"calls": 1}}


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        yield server


@pytest.fixture
def calculator(server: RawServer, tmp_path: Path) -> Iterator[PredictiveScoreCalculator]:
    auth = GenesysAuthManager("id", "secret", server.url)
    client = ScoreClient(auth, server.url, max_retries=0, sleep=lambda _: None)
    auditor = AuditLogger(tmp_path / "audit.log")
    with PredictiveScoreCalculator("m", "", "", ["calls"], {}, client=client, auditor=auditor) as calculator:
        yield calculator


def failing(status: int, body: Any = b"") -> bytes:
    return answer(status, body, {"ININ-Correlation-Id": f"corr-{status}"})


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, ApiRefused),
        (403, ApiRefused),
        (404, ApiRefused),
        (429, ApiUnavailable),
        (503, ApiUnavailable),
        (302, ApiUnavailable),
    ],
)
def test_status_and_correlation_id(
    server: RawServer, calculator: PredictiveScoreCalculator, status: int, kind: type[ApiError]
) -> None:
    server.respond(failing(status, {"code": "some.code", "message": "x", "status": status}))
    with pytest.raises(kind) as caught:
        calculator.calculate([CONTACT])
    assert (caught.value.status_code, caught.value.correlation_id) == (status, f"corr-{status}")
    assert "genesys." not in str(caught.value)


def test_status_and_correlation_id_of_an_api_that_refuses_all(
    server: RawServer, calculator: PredictiveScoreCalculator
) -> None:
    server.respond(failing(400))
    with pytest.raises(ApiRefused, match="refuses every contact") as caught:
        calculator.calculate([{**CONTACT, "contactId": f"c{number}"} for number in range(9)])
    assert (caught.value.status_code, caught.value.correlation_id) == (400, "corr-400")


def test_status_and_correlation_id_of_the_login(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    server.respond(failing(401, {"error": "invalid_client"}), path="/oauth/token")
    with pytest.raises(ApiRefused, match="check client_id, client_secret and region") as caught:
        calculator.auth.get_token()
    assert (caught.value.status_code, caught.value.correlation_id) == (401, "corr-401")
    payload = ScoringPayload(contacts=[ContactFeatureVector(**CONTACT)])
    with pytest.raises(ApiRefused) as caught:
        calculator.client.submit_score_batch(payload, "m")
    assert (caught.value.status_code, caught.value.correlation_id) == (401, "corr-401")


def test_no_status_without_a_response(calculator: PredictiveScoreCalculator, server: RawServer) -> None:
    calculator.auth.get_token()
    server.respond(hang_up)
    with pytest.raises(ApiUnavailable) as caught:
        calculator.calculate([CONTACT])
    assert (caught.value.status_code, caught.value.correlation_id) == (None, None)


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (CONTACT, r"\[contact\]"),
        ("a", "a list of dicts"),
        (b"a", "a list of dicts"),
        (7, "a list of dicts"),
        (None, "a list"),
    ],
)
def test_an_argument_other_than_a_list_is_a_type_error_with_the_remedy(
    server: RawServer, calculator: PredictiveScoreCalculator, given: Any, remedy: str
) -> None:
    for call in (calculator.calculate, calculator.calculate_scores):
        with pytest.raises(TypeError, match=f"pass .*{remedy}") as caught:
            call(given)
        assert isinstance(caught.value, InputError)
    assert server.requests == []


def test_a_frame_is_a_type_error_with_the_remedy(calculator: PredictiveScoreCalculator) -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match="use calculate_frame"):
        calculator.calculate(pandas.DataFrame({"calls": [1]}))
    with pytest.raises(TypeError, match="takes a pandas DataFrame, not list"):
        calculator.calculate_frame([CONTACT], id="contactId")


@pytest.mark.parametrize("values", [b"one value", ["text"]])
def test_values_of_the_audit_topic_of_the_wrong_type(values: Any) -> None:
    with pytest.raises(TypeError, match="pass"):
        verify_audit_chain(values)
