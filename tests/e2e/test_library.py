"""The library against the simulator, and against responses that the simulator does not send."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from raw_http import RawServer, answer, raw_server, results

from stream_scorer import (
    AuditLogger,
    ConfidenceVerifier,
    ContactFeatureVector,
    GenesysAuthManager,
    PredictiveScoreCalculator,
    ScoreClient,
    ScoreResult,
    ScoringOutcome,
    ScoringPayload,
)
from stream_scorer.errors import ApiRefused, ApiUnavailable, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_scorer.local.simulator import Simulator

EXPECTED = ["previous_calls", "avg_handle_time", "last_contact_days", "segment_id"]
IMPUTE = {"previous_calls": 0, "avg_handle_time": 180.0, "last_contact_days": 30, "segment_id": "default"}
GOOD = {"previous_calls": 3, "avg_handle_time": 150, "last_contact_days": 5, "segment_id": "premium"}
SCORE_PATH = "/api/v2/predictiveengagement/models/"


class Waits(list[float]):
    """Replacement of ``time.sleep`` that records the waits."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def calculator_for(audit: Path, waits: Waits) -> Iterator[Callable[..., PredictiveScoreCalculator]]:
    made: list[PredictiveScoreCalculator] = []

    def make(base_url: str, *, model_id: str = "simulator-model", secret: str | None = None, **more: Any) -> Any:
        auth = GenesysAuthManager("simulator-client", secret or "simulator-secret", base_url)
        client = ScoreClient(auth, base_url, sleep=waits, requests_per_minute=100_000)
        made.append(
            PredictiveScoreCalculator(
                model_id, "", "", EXPECTED, IMPUTE, client=client, auditor=AuditLogger(str(audit)), **more
            )
        )
        return made[-1]

    yield make
    for calculator in made:
        calculator.close()


@pytest.fixture
def calculator(
    simulator: Simulator, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> PredictiveScoreCalculator:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0, quota=100_000)
    return calculator_for(simulator.base_url)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(lambda request, conn: conn.sendall(results(request)))
        yield server


def contacts(*ids: str, **features: Any) -> list[dict[str, Any]]:
    return [{"contactId": one, "features": {**GOOD, **features}} for one in ids]


def audited(path: Path) -> dict[str, str]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["contact_id"]: line["outcome"] for line in found if "contact_id" in line}


def ids(found: Any) -> list[str]:
    return [one.contact_id for one in found]


def test_the_ten_lines_of_the_readme(simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0)
    handed: list[list[ScoreResult]] = []
    calculator = PredictiveScoreCalculator(
        "simulator-model", "simulator-client", "simulator-secret", EXPECTED, IMPUTE, handed.append, simulator.base_url
    )
    raw = [*contacts("CUST-001"), {"contactId": "CUST-002", "features": {"previous_calls": None}}]
    scores = calculator.calculate_scores(raw)
    calculator.close()
    assert ids(scores) == ["CUST-001", "CUST-002"]
    assert handed == [scores]
    assert scores[0].imputed_features == ()
    assert set(scores[1].imputed_features) == set(EXPECTED)
    assert all(0 <= one.score <= 1 and one.latency_ms > 0 and one.timestamp.endswith("+00:00") for one in scores)
    assert raw[1]["features"] == {"previous_calls": None}
    assert audited(tmp_path / "predictive_engagement_audit.log") == {"CUST-001": "SCORED", "CUST-002": "SCORED"}


def test_2500_contacts_are_three_requests_in_input_order(
    simulator: Simulator, calculator: PredictiveScoreCalculator
) -> None:
    names = [f"c{n}" for n in range(2500)]
    assert ids(calculator.calculate_scores(contacts(*names))) == names
    assert simulator.stats().requests_with("score", 200) == 3
    assert simulator.stats().contacts_scored == 2500


def test_no_contacts_cost_nothing(simulator: Simulator, calculator: PredictiveScoreCalculator) -> None:
    assert calculator.calculate([]) == ScoringOutcome((), (), ())
    assert calculator.calculate_scores([]) == []
    assert simulator.stats().requests == {}


BAD = [
    ({"contactId": "extra", "features": {**GOOD, "shoe_size": 44}}, "extra", "unsupported_feature"),
    ({"contactId": "nested", "features": {**GOOD, "segment_id": ["a"]}}, "nested", "wrong_type"),
    ({"contactId": "inf", "features": {**GOOD, "avg_handle_time": float("inf")}}, "inf", "out_of_range"),
    ({"contactId": "big", "features": {**GOOD, "segment_id": "x" * 600_000}}, "big", "too_large"),
    ({"contactId": "many", "features": {f"f{n}": n for n in range(51)}}, "many", "too_many_features"),
    ({"contactId": "", "features": GOOD}, "", "invalid_contact"),
    ({"contactId": "x" * 257, "features": GOOD}, "x" * 257, "invalid_contact"),
    ({"contactId": 7, "features": GOOD}, "", "invalid_contact"),
    ({"features": GOOD}, "", "invalid_contact"),
    ({"contactId": "bare"}, "bare", "invalid_contact"),
    ({"contactId": "list", "features": []}, "list", "invalid_contact"),
    ("no dict", "", "invalid_contact"),
    (None, "", "invalid_contact"),
    ({"contactId": "\ud800", "features": GOOD}, "", "invalid_contact"),
]


def test_bad_contacts_do_not_affect_others(
    simulator: Simulator, calculator: PredictiveScoreCalculator, audit: Path
) -> None:
    outcome = calculator.calculate([*contacts("first"), *(raw for raw, _, _ in BAD), *contacts("last")])
    assert ids(outcome.scored) == ["first", "last"]
    assert [(one.index, one.contact_id, one.reasons[0]) for one in outcome.rejected] == [
        (index, contact_id, reason) for index, (_, contact_id, reason) in enumerate(BAD, start=1)
    ]
    assert all(one.detail and "\n" not in one.detail for one in outcome.rejected)
    assert outcome.rejected[0].contact is BAD[0][0]
    assert set(simulator.scored()) == {"first", "last"}
    assert audited(audit)["extra"] == "REJECTED"


def test_results_for_review_are_separate_and_audited(
    simulator: Simulator, calculator: PredictiveScoreCalculator, audit: Path
) -> None:
    simulator.configure(narrow_share=0.5)
    names = [f"c{n}" for n in range(40)]
    outcome = calculator.calculate(contacts(*names))
    assert outcome.scored
    assert outcome.review
    assert sorted(ids(outcome.scored) + ids(outcome.review)) == sorted(names)
    assert all(one.review_reasons == ("narrow_interval",) for one in outcome.review)
    found = audited(audit)
    assert {name for name, what in found.items() if what == "REVIEW"} == set(ids(outcome.review))
    assert len(found) == 40
    assert ids(calculator.calculate_scores(contacts(*names))) == ids(outcome.scored)


def test_own_verifier_counts(simulator: Simulator, calculator_for: Callable[..., PredictiveScoreCalculator]) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0)
    strict = calculator_for(simulator.base_url, verifier=ConfidenceVerifier(0.99))
    outcome = strict.calculate(contacts("a", "b"))
    assert (ids(outcome.scored), ids(outcome.review)) == ([], ["a", "b"])


@pytest.mark.parametrize(("bad", "at_most"), [("REFUSE-NAMED-x", 3), ("REFUSE-x", 22)])
def test_a_rejected_contact_does_not_affect_others(
    simulator: Simulator, calculator: PredictiveScoreCalculator, audit: Path, bad: str, at_most: int
) -> None:
    names = [f"c{n}" for n in range(999)]
    names.insert(700, bad)
    outcome = calculator.calculate(contacts(*names))
    names.remove(bad)
    assert ids(outcome.scored) == names
    assert [(one.contact_id, one.index, one.reasons) for one in outcome.rejected] == [(bad, 700, ("refused_by_api",))]
    counts = simulator.stats().requests["score"]
    assert sum(counts.values()) <= at_most
    assert simulator.stats().contacts_repeated == 0
    assert audited(audit)[bad] == "REJECTED"


def test_only_refused_contacts(calculator: PredictiveScoreCalculator) -> None:
    outcome = calculator.calculate(contacts("REFUSE-1", "REFUSE-2"))
    assert ids(outcome.rejected) == ["REFUSE-1", "REFUSE-2"]


def test_an_api_that_rejects_everything_blames_no_contact(
    simulator: Simulator, calculator: PredictiveScoreCalculator
) -> None:
    simulator.add_fault(status=400, times=None)
    with pytest.raises(ApiRefused, match="refuses every"):
        calculator.calculate(contacts(*(f"c{n}" for n in range(1000))))
    assert simulator.stats().requests_with("score", 400) <= 31


def test_a_repeated_contact_is_sent_in_separate_requests(
    simulator: Simulator, calculator: PredictiveScoreCalculator
) -> None:
    raw = contacts("a") + contacts("b") + contacts("a", previous_calls=9) + contacts("c")
    scores = calculator.calculate_scores(raw)
    assert ids(scores) == ["a", "b", "a", "c"]
    assert scores[0].score != scores[2].score
    assert simulator.stats().requests_with("score", 200) == 2


def test_large_contacts_are_spread_over_requests(simulator: Simulator, calculator: PredictiveScoreCalculator) -> None:
    raw = [one for n in range(6) for one in contacts(f"c{n}", segment_id="s" * 200_000)]
    assert len(calculator.calculate_scores(raw)) == 6
    assert simulator.stats().requests == {"score": {"200": 3}, "token": {"200": 1}}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_transient_failures_are_retried(
    simulator: Simulator, calculator: PredictiveScoreCalculator, waits: Waits, status: int
) -> None:
    simulator.add_fault(status=status, times=2)
    assert ids(calculator.calculate_scores(contacts("a"))) == ["a"]
    assert len(waits) == 2
    assert 1.0 <= waits[0] <= 2.0 <= waits[1] <= 4.0


def test_retry_after_is_kept(simulator: Simulator, calculator: PredictiveScoreCalculator, waits: Waits) -> None:
    simulator.add_fault(status=503, retry_after=17, times=1)
    calculator.calculate_scores(contacts("a"))
    assert waits == pytest.approx([17.0], abs=1.0)


def test_retry_after_of_hours_is_not_waited_for(
    simulator: Simulator, calculator: PredictiveScoreCalculator, waits: Waits
) -> None:
    simulator.add_fault(status=429, retry_after=7200, times=1)
    with pytest.raises(ApiUnavailable, match="7200 s"):
        calculator.calculate(contacts("a"))
    assert waits == []


def test_an_outage_rejects_no_contact_and_returns_the_finished_results(
    simulator: Simulator, calculator: PredictiveScoreCalculator
) -> None:
    simulator.add_fault(status=500, times=None, after=1)
    names = [f"c{n}" for n in range(1500)]
    with pytest.raises(ApiUnavailable) as caught:
        calculator.calculate([None, *contacts(*names)])
    assert isinstance(caught.value.partial, ScoringOutcome)
    assert ids(caught.value.partial.scored) == names[:1000]
    assert [one.reasons for one in caught.value.partial.rejected] == [("invalid_contact",)]


@pytest.mark.parametrize("poisoned", [0, 7, 39])
def test_a_contact_that_breaks_the_api_does_not_affect_others(
    simulator: Simulator, calculator: PredictiveScoreCalculator, poisoned: int
) -> None:
    names = [f"c{n}" for n in range(40)]
    simulator.add_fault(status=500, contact_id=names[poisoned], times=None)
    outcome = calculator.calculate(contacts(*names))
    assert ids(outcome.rejected) == [names[poisoned]]
    assert outcome.rejected[0].reasons == ("refused_by_api",)
    assert ids(outcome.scored) == [name for name in names if name != names[poisoned]]


def test_a_dropped_connection_is_retried(simulator: Simulator, calculator: PredictiveScoreCalculator) -> None:
    simulator.add_fault(drop="before", times=1)
    assert len(calculator.calculate_scores(contacts("a"))) == 1


def test_expires_in_counts(simulator: Simulator, calculator_for: Callable[..., PredictiveScoreCalculator]) -> None:
    simulator.configure(expires_in=86_400)
    long = calculator_for(simulator.base_url)
    long.calculate(contacts("a"))
    long.calculate(contacts("a"))
    assert simulator.stats().tokens_issued == 1
    simulator.revoke_tokens()
    assert long.calculate(contacts("a")).rejected == ()
    assert simulator.stats().tokens_issued == 2
    simulator.configure(expires_in=1)
    short = calculator_for(simulator.base_url)
    short.calculate(contacts("a"))
    time.sleep(0.6)  # half of the token's lifetime: then it is renewed. Continuous requests would use up the quota
    short.calculate(contacts("a"))
    assert simulator.stats().tokens_issued == 4
    assert simulator.stats().requests_with("score", 401) == 1


def test_wrong_secret_scope_and_model_are_named(
    simulator: Simulator, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> None:
    with pytest.raises(ApiRefused, match="simulator-client") as caught:
        calculator_for(simulator.base_url, secret="wrong").calculate(contacts("a"))
    assert "wrong" not in str(caught.value)
    with pytest.raises(ApiRefused, match="'absent'"):
        calculator_for(simulator.base_url, model_id="absent").calculate(contacts("a"))
    simulator.configure(scopes=[])
    simulator.revoke_tokens()
    with pytest.raises(ApiRefused, match="predictiveengagement:score"):
        calculator_for(simulator.base_url).calculate(contacts("a"))


def test_body_holds_contacts_and_version_only(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> None:
    calculator_for(server.url).calculate(contacts("a"))
    calculator_for(server.url, model_version="v3").calculate(contacts("a"))
    without, with_version = server.to(SCORE_PATH)
    assert without.json == {"contacts": [{"contactId": "a", "features": GOOD}]}
    assert with_version.json == {**without.json, "modelVersion": "v3"}


def test_an_unanswered_contact_is_sent_once_more(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator], audit: Path
) -> None:
    def without_b(request: Any, conn: Any) -> None:
        known = [one for one in request.json["contacts"] if one["contactId"] != "b"]
        conn.sendall(results(replace(request, json={"contacts": known})))

    server.respond(without_b)
    outcome = calculator_for(server.url).calculate(contacts("a", "b", "c"))
    assert ids(outcome.scored) == ["a", "c"]
    assert [(one.contact_id, one.reasons) for one in outcome.rejected] == [("b", ("no_result",))]
    assert [[one["contactId"] for one in request.json["contacts"]] for request in server.to(SCORE_PATH)] == [
        ["a", "b", "c"],
        ["b"],
    ]
    assert audited(audit) == {"a": "SCORED", "b": "REJECTED", "c": "SCORED"}


def test_submit_score_batch(simulator: Simulator, waits: Waits) -> None:
    payload = ScoringPayload(contacts=[ContactFeatureVector(contactId="a", features=dict(GOOD))])
    with GenesysAuthManager("simulator-client", "simulator-secret", simulator.base_url) as auth:
        client = ScoreClient(auth, simulator.base_url, sleep=waits)
        simulator.add_fault(status=502, times=1)
        response = client.submit_score_batch(payload, "simulator-model")
        assert isinstance(response, requests.Response)
        response.raise_for_status()
        assert response.status_code == 200
        assert response.json()["results"][0]["contactId"] == "a"
        assert response.latency_ms == pytest.approx(response.elapsed.total_seconds() * 1000, rel=0.01)
        assert not [name for name in response.headers if "latency" in name.lower()]
        assert len(waits) == 1
        simulator.add_fault(status=500, times=None)
        failed = client.submit_score_batch(payload, "simulator-model")
        assert (failed.status_code, len(waits)) == (500, 4)
        with pytest.raises(requests.HTTPError):
            failed.raise_for_status()
        with pytest.raises(ValueError, match="chunk"):
            client.submit_score_batch(payload.model_copy(update={"contacts": payload.contacts * 1001}), "m")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le"])
def test_a_paid_answer_in_any_encoding_is_json(server: RawServer, encoding: str) -> None:
    found = json.dumps({"results": [{"contactId": "ä", "score": 0.5}]}, ensure_ascii=False)
    server.respond(answer(200, found.encode(encoding)))
    payload = ScoringPayload(contacts=[ContactFeatureVector(contactId="ä", features=dict(GOOD))])
    with GenesysAuthManager("id", "secret", server.url) as auth:
        response = ScoreClient(auth, server.url).submit_score_batch(payload, "m")
    assert (response.json()["results"][0]["contactId"], response.text) == ("ä", found)


def test_a_binary_response_is_passed_on_unchanged(server: RawServer) -> None:
    server.respond(answer(400, b"\xff\xfe\x00"))
    payload = ScoringPayload(contacts=[ContactFeatureVector(contactId="a", features=dict(GOOD))])
    with GenesysAuthManager("id", "secret", server.url) as auth:
        assert ScoreClient(auth, server.url).submit_score_batch(payload, "m").content == b"\xff\xfe\x00"


@pytest.mark.parametrize("written", ["{}\n", "{}\r\n", "\ufeff{}", " {}\0 "])
def test_a_secret_with_a_line_end_or_byte_order_mark(simulator: Simulator, written: str) -> None:
    with GenesysAuthManager("simulator-client", written.format("simulator-secret"), simulator.base_url) as auth:
        assert auth.get_token()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("'hunter2'", "is in quotation marks"),
        ("hunter2\nmore", "has several lines"),
        ("client_secret=hunter2", "a name"),
    ],
)
def test_an_implausible_secret_is_not_sent(written: str, words: str) -> None:
    with pytest.raises(SettingsError, match=f"^client_secret .*{words}") as caught:
        GenesysAuthManager("id", written, "http://127.0.0.1:9")
    assert "hunter2" not in str(caught.value)


def test_tokens_and_headers(simulator: Simulator) -> None:
    with GenesysAuthManager("simulator-client", "simulator-secret", simulator.base_url) as auth:
        token = auth.get_token()
        assert auth.get_token() == token
        assert auth.get_headers()["Authorization"] == f"Bearer {token}"
        assert simulator.stats().tokens_issued == 1
        assert "simulator-secret" not in repr(auth)
        assert token not in repr(vars(auth))
    with (
        GenesysAuthManager("simulator-client", "other", simulator.base_url) as auth,
        pytest.raises(ApiRefused, match="client_secret"),
    ):
        auth.get_token()
    simulator.add_fault(path="token", status=503, times=1)
    with (
        GenesysAuthManager("simulator-client", "simulator-secret", simulator.base_url) as auth,
        pytest.raises(ApiUnavailable, match="503"),
    ):
        auth.get_token()


def test_login_host_follows_the_api_host() -> None:
    assert GenesysAuthManager("a", "b").auth_url == "https://login.mypurecloud.com/oauth/token"
    assert GenesysAuthManager("a", "b", "https://api.mypurecloud.ie").auth_url.startswith(
        "https://login.mypurecloud.ie/"
    )


def test_no_response(server: RawServer, waits: Waits) -> None:
    server.respond(lambda _, conn: conn.shutdown(socket.SHUT_RDWR))
    payload = ScoringPayload(contacts=[ContactFeatureVector(contactId="a", features=dict(GOOD))])
    with GenesysAuthManager("a", "b", server.url) as auth:
        client = ScoreClient(auth, server.url, sleep=waits)
        with pytest.raises(ApiUnavailable, match=server.url.removeprefix("http://")):
            client.submit_score_batch(payload, "m")
    assert len(waits) == 3


def test_unknown_status_is_named(server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator]) -> None:
    server.respond(answer(302, b"", {"location": "/"}))
    with pytest.raises(ApiUnavailable, match="HTTP 302"):
        calculator_for(server.url).calculate(contacts("a"))


def test_a_contact_with_an_unknown_status_is_rejected_once_another_was_answered(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> None:
    def firewall(request: Any, conn: Any) -> None:
        bad = any(one["contactId"] == "b" for one in request.json["contacts"])
        conn.sendall(answer(409, b"<html>") if bad else results(request))

    server.respond(firewall)
    outcome = calculator_for(server.url).calculate(contacts("a", "b", "c"))
    assert ids(outcome.scored) == ["a", "c"]
    assert [(one.contact_id, one.reasons) for one in outcome.rejected] == [("b", ("refused_by_api",))]


@pytest.mark.parametrize("broken", [{"other": 1}, {"segment_id": [1]}, {"segment_id": float("inf")}])
def test_imputation_map_is_checked_at_once(broken: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="imputation_map"):
        PredictiveScoreCalculator("m", "id", "secret", EXPECTED, {**IMPUTE, **broken})
