from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.errors import InputError, SettingsError
from stream_scorer.local.simulator.api import SimulatedApi
from stream_scorer.local.simulator.config import TUTORIAL_FEATURES, SimulatorConfig, read_features

if TYPE_CHECKING:
    from pathlib import Path

    from stream_scorer.local.simulator.replies import Reply

FORM = {b"content-type": b"application/x-www-form-urlencoded"}
JSON = {b"content-type": b"application/json; charset=utf-8"}
GRANT = b"grant_type=client_credentials"
FEATURES = {"previous_calls": 2, "avg_handle_time": 240.5, "last_contact_days": 7, "segment_id": "retired"}


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def basic(client_id: str, secret: str) -> dict[bytes, bytes]:
    return {**FORM, b"authorization": b"Basic " + base64.b64encode(f"{client_id}:{secret}".encode())}


def content(reply: Reply) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(reply.body)
    return parsed


def token(api: SimulatedApi) -> dict[bytes, bytes]:
    issued = content(api.token(basic("simulator-client", "simulator-secret"), GRANT))
    return {**JSON, b"authorization": f"Bearer {issued['access_token']}".encode()}


def body(*ids: str, **more: Any) -> bytes:
    return json.dumps({"contacts": [{"contactId": i, "features": FEATURES} for i in ids], **more}).encode()


def score(
    api: SimulatedApi, request: bytes, headers: dict[bytes, bytes] = JSON, model: str = "simulator-model"
) -> Reply:
    return api.score(model, headers, request, "ctx")


def test_a_token_is_given_for_basic_and_for_form_credentials() -> None:
    api = SimulatedApi(SimulatorConfig(expires_in=600))
    form = GRANT + b"&client_id=simulator-client&client_secret=simulator-secret"
    for reply in (api.token(basic("simulator-client", "simulator-secret"), GRANT), api.token(FORM, form)):
        assert reply.status == 200
        assert content(reply).keys() == {"access_token", "token_type", "expires_in"}
        assert content(reply)["token_type"] == "bearer"
        assert content(reply)["expires_in"] == 600
    assert api.stats().tokens_issued == 2


@pytest.mark.parametrize(
    ("headers", "form", "status", "error"),
    [
        (basic("simulator-client", "wrong"), GRANT, 401, "invalid_client"),
        (basic("someone", "simulator-secret"), GRANT, 400, "invalid_client"),
        (FORM, GRANT, 400, "invalid_client"),
        ({**FORM, b"authorization": b"Basic !!"}, GRANT, 400, "invalid_client"),
        (basic("simulator-client", "simulator-secret"), b"grant_type=password", 400, "unsupported_grant_type"),
        (basic("simulator-client", "simulator-secret"), b"", 400, "unsupported_grant_type"),
        ({**basic("simulator-client", "simulator-secret"), **JSON}, b"{}", 400, "invalid_request"),
    ],
)
def test_a_token_is_refused_in_the_form_of_oauth(
    headers: dict[bytes, bytes], form: bytes, status: int, error: str
) -> None:
    reply = SimulatedApi(SimulatorConfig()).token(headers, form)
    assert reply.status == status
    assert content(reply)["error"] == error
    assert content(reply)["description"] == content(reply)["error_description"]


def test_a_request_needs_a_token_that_was_given_has_not_expired_and_was_not_revoked() -> None:
    clock = Clock()
    api = SimulatedApi(SimulatorConfig(expires_in=300), clock=clock)

    def code(headers: dict[bytes, bytes]) -> str | None:
        refusal = api.admit(headers, "ctx")
        assert refusal is None or refusal.status == 401
        return refusal and content(refusal)["code"]

    first = token(api)
    assert code(JSON) == "authentication.required"
    assert code(basic("simulator-client", "simulator-secret")) == "authentication.required"
    assert code({b"authorization": b"Bearer invented"}) == "bad.credentials"
    assert code(first) is None
    clock.now += 299.9
    assert code(first) is None
    clock.now += 0.1
    assert code(first) == "bad.credentials"
    second = token(api)
    assert code(second) is None
    assert api.tokens.revoke_all() == 1
    assert code(second) == "bad.credentials"


def test_a_client_without_the_scope_gets_the_name_of_the_missing_scope() -> None:
    api = SimulatedApi(SimulatorConfig(scopes=()))
    refusal = api.admit(token(api), "ctx")
    assert refusal is not None
    assert (refusal.status, content(refusal)["code"]) == (403, "missing.permissions")
    assert "predictiveengagement:score" in content(refusal)["message"]


def test_over_quota_is_429_until_the_window_closes_and_costs_nothing() -> None:
    clock = Clock()
    api = SimulatedApi(SimulatorConfig(quota=2, quota_window_s=60), clock=clock)
    headers = token(api)
    assert api.admit(headers, "ctx") is None
    clock.now += 20.5
    assert api.admit(headers, "ctx") is None
    refusal = api.admit(headers, "ctx")
    assert refusal is not None
    assert (refusal.status, content(refusal)["code"]) == (429, "too.many.requests")
    assert refusal.headers == (("Retry-After", "40"),)
    assert api.common_headers("ctx") == {
        b"inin-correlation-id": b"ctx",
        b"inin-ratelimit-count": b"2",
        b"inin-ratelimit-allowed": b"2",
        b"inin-ratelimit-reset": b"40",
    }
    clock.now += 39.5
    assert api.admit(headers, "ctx") is None
    assert (api.stats().quota_count, api.stats().quota_reset_s) == (1, 60)


def test_a_refused_token_is_no_request_of_the_quota() -> None:
    api = SimulatedApi(SimulatorConfig())
    assert api.admit({b"authorization": b"Bearer invented"}, "ctx") is not None
    assert api.stats().quota_count == 0


def test_an_error_has_the_platforms_form() -> None:
    reply = score(SimulatedApi(SimulatorConfig()), body("REFUSE-NAMED-1"))
    assert content(reply) == {
        "message": "the contact cannot be scored",
        "code": "invalid.value",
        "status": 400,
        "contextId": "ctx",
        "messageWithParams": "the contact cannot be scored",
        "messageParams": {},
        "details": [{"errorCode": "invalid.value", "fieldName": "contacts", "entityId": "REFUSE-NAMED-1"}],
        "errors": [],
    }


def test_the_reason_of_a_refusal_decides_its_status() -> None:
    api = SimulatedApi(SimulatorConfig())
    large = body(*(f"contact-{number}-{'x' * 400}" for number in range(1000)))
    assert len(large) > 512_000
    cases = {
        (404, "not.found"): score(api, body("a"), model="other"),
        (404, "not.found", "v9"): score(api, body("a", modelVersion="v9")),
        (413, "request.entity.too.large"): score(api, large),
        (415, "unsupported.media.type"): score(api, body("a"), FORM),
        (415, "unsupported.media.type", "gzip"): score(api, body("a"), {**JSON, b"content-encoding": b"gzip"}),
        (400, "bad.request"): score(api, b"{"),
        (400, "bad.request", "nan"): score(api, b'{"contacts":[{"contactId":"a","features":{"x":NaN}}]}'),
        (400, "bad.request", "deep"): score(api, b"[" * 100_000 + b"]" * 100_000),
        (400, "bad.request", "extra"): score(api, body("a", batch_limit=1000)),
    }
    for expected, reply in cases.items():
        assert (reply.status, content(reply)["code"]) == expected[:2]
    assert api.stats().contacts_scored == 0


def test_a_request_of_exactly_the_limit_passes() -> None:
    exact = body("a", "b")
    assert score(SimulatedApi(SimulatorConfig(max_request_bytes=len(exact))), exact).status == 200
    assert score(SimulatedApi(SimulatorConfig(max_request_bytes=len(exact) - 1)), exact).status == 413


def test_scored_contacts_are_counted_and_rejected_ones_are_not() -> None:
    api = SimulatedApi(SimulatorConfig())
    assert score(api, body("a", "b")).status == 200
    assert score(api, body("b", "REFUSE-1")).status == 400
    assert score(api, body("b", "c")).status == 200
    stats = api.stats()
    assert api.request_log.scored == {"a": 1, "b": 2, "c": 1}
    assert (stats.contacts_scored, stats.contacts_distinct, stats.contacts_repeated) == (4, 3, 1)


def test_the_configuration_changes_immediately_and_reset_restores_the_first_one() -> None:
    api = SimulatedApi(SimulatorConfig(quota=5))
    headers = token(api)
    api.change({"client_secret": "other", "known_versions": ["v9"], "quota": 7})
    assert api.token(basic("simulator-client", "simulator-secret"), GRANT).status == 401
    assert score(api, body("a", modelVersion="v9")).status == 200
    assert api.stats().quota_allowed == 7
    api.reset()
    assert api.stats().quota_allowed == 5
    assert api.stats().contacts_scored == 0
    assert api.admit(headers, "ctx") is not None
    assert api.token(basic("simulator-client", "simulator-secret"), GRANT).status == 200


def test_an_impossible_change_is_refused_without_showing_a_secret() -> None:
    api = SimulatedApi(SimulatorConfig())
    for change, part in (({"quotas": 1}, "quotas"), ({"quota": -1}, "quota"), ({"client_secret": 5}, "client_secret")):
        with pytest.raises(SettingsError, match=part) as refusal:
            api.change(change)
        assert "simulator-secret" not in str(refusal.value)
    assert api.config == SimulatorConfig()
    assert "simulator-secret" not in repr(api.config)


def test_features_are_read_from_a_list_of_types_or_from_the_workers_settings(tmp_path: Path) -> None:
    settings = tmp_path / "worker.toml"
    settings.write_text('[kafka]\ngroup_id = "x"\n[model.features.age]\ntype = "integer"\nimpute = 3\n')
    assert read_features(settings) == {"age": "integer"}
    plain = tmp_path / "features.json"
    plain.write_text(json.dumps(TUTORIAL_FEATURES))
    assert read_features(plain) == TUTORIAL_FEATURES
    for text in ("", "[model]\n", 'age = "int"\n', "= 3", "age = 3\n"):
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(text)
        with pytest.raises(InputError, match=r"wrong\.toml") as refusal:
            read_features(wrong)
        assert "\n" not in str(refusal.value)
