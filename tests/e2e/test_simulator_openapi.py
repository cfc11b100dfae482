"""The simulator against its OpenAPI description: every response conforms to the description."""

from __future__ import annotations

import base64
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import requests
import schemathesis
from hypothesis import settings
from jsonschema_rs import Draft202012Validator

from stream_scorer.local.simulator import Simulator, SimulatorConfig
from stream_scorer.local.simulator.config import SCORE_SCOPE
from stream_scorer.local.simulator.openapi import SCORE_PATH, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCORE_OPERATION = "scoreContacts"
FEATURES = {"previous_calls": 2, "avg_handle_time": 240.5, "last_contact_days": 7, "segment_id": "retired"}
LIMITS = settings(max_examples=100, deadline=None, derandomize=True)


def log_in(simulator: Simulator) -> str:
    answer = requests.post(
        f"{simulator.base_url}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(simulator.config.client_id, simulator.config.client_secret),
        timeout=10,
    )
    return str(answer.json()["access_token"])


# Few contacts a request: the limit is met with small bodies. All the quota there is: 429 has a test of its own.
CONFIG = SimulatorConfig(quota=1_000_000, max_contacts=20)
SCHEMATHESIS = schemathesis.Config.from_dict(
    {
        # The test authorizes every request (the check `ignored_auth` takes that away again). An
        # undeclared query parameter is no flaw: the platform ignores it.
        "generation": {"with-security-parameters": False, "allow-extra-parameters": False},
        # 413 is a refusal as well.
        "checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}},
    }
)
api = schemathesis.openapi.from_dict(describe(CONFIG), config=SCHEMATHESIS)


@pytest.fixture(scope="module")
def generous() -> Iterator[Simulator]:
    with Simulator(CONFIG) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def credentials(generous: Simulator) -> dict[str, str]:
    """The ``Authorization`` of each operation."""
    client = base64.b64encode(f"{CONFIG.client_id}:{CONFIG.client_secret}".encode()).decode()
    bearer = f"Bearer {log_in(generous)}"
    operations = (SCORE_OPERATION, "addContacts", "readContacts", "readContactList")
    return {"getToken": f"Basic {client}", **dict.fromkeys(operations, bearer)}


@api.parametrize()
@LIMITS
def test_every_answer_is_as_described(
    case: schemathesis.Case, generous: Simulator, credentials: dict[str, str]
) -> None:
    operation = case.operation.definition.raw["operationId"]
    if operation == SCORE_OPERATION:
        make_ids_unique(case)
    case.call_and_validate(base_url=generous.base_url, headers={"Authorization": credentials[operation]})


def make_ids_unique(case: schemathesis.Case) -> None:
    """Make the ids of valid requests unique, which the simulator requires and JSON Schema cannot express."""
    if case.meta is not None and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        contacts = case.body.get("contacts", [])
        case.body = case.body | {
            "contacts": [c | {"contactId": f"{n}-{c['contactId']}"} for n, c in enumerate(contacts)]
        }


# --- answers that need a state of the simulator


def answers_to(simulator: Simulator, path: str, **request: Any) -> requests.Response:
    return requests.post(simulator.base_url + path, timeout=10, allow_redirects=False, **request)


def check(answer: requests.Response, path: str, description: dict[str, Any]) -> None:
    """Check status, content type, body and headers of a response against the description."""
    operation = description["paths"][path]["post"]
    promised = resolved(operation["responses"][str(answer.status_code)], description)
    media_type = answer.headers["Content-Type"].partition(";")[0]
    schema = {**promised["content"][media_type]["schema"], "components": description["components"]}
    content = answer.json() if media_type == "application/json" else answer.text
    Draft202012Validator(schema).validate(content)
    for name, header in promised["headers"].items():
        rule = resolved(header, description)
        assert name in answer.headers or not rule.get("required"), f"{answer.status_code} without {name}"
        if name in answer.headers and rule["schema"].get("type") == "integer":
            assert int(answer.headers[name]) >= rule["schema"]["minimum"]


def resolved(part: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        found: Any = description
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def test_the_answers_of_every_state_are_as_described(make_simulator: Callable[..., Simulator]) -> None:
    simulator = make_simulator(quota=12, max_request_bytes=1000)
    description = requests.get(f"{simulator.base_url}/openapi.json", timeout=10).json()
    path = SCORE_PATH.format(modelId=simulator.config.model_id)
    bearer = {"Authorization": f"Bearer {log_in(simulator)}"}

    def score(*ids: str, **more: Any) -> int:
        contacts = [{"contactId": contact_id, "features": FEATURES} for contact_id in ids]
        request: dict[str, Any] = {"json": {"contacts": contacts}, "headers": bearer, **more}
        answer = answers_to(simulator, path, **request)
        check(answer, SCORE_PATH, description)
        return answer.status_code

    assert score("a") == 200
    assert score("REFUSE-NAMED-1") == 400
    assert score("a", headers={}) == 401
    assert score("a", headers={**bearer, "Content-Type": "text/plain"}) == 415
    assert score("a", json={"contacts": [{"contactId": "a", "features": FEATURES}], "modelVersion": "v9"}) == 404
    assert score("x" * 2000) == 413
    simulator.configure(scopes=[])
    assert score("a") == 403
    simulator.configure(scopes=[SCORE_SCOPE])
    for status in (422, 429, 408, 500, 503, 504):
        simulator.add_fault(status=status, retry_after=1)
        assert score("a") == status
    simulator.add_fault(status=502, body="html")
    assert score("a") == 502
    assert score("a") == 429, "the quota is used up"
    simulator.add_fault(path="token", status=503)
    for wanted, secret in ((503, "simulator-secret"), (200, "simulator-secret"), (401, "wrong")):
        form = {"grant_type": "client_credentials"}
        answer = answers_to(simulator, "/oauth/token", data=form, auth=("simulator-client", secret))
        assert answer.status_code == wanted
        check(answer, "/oauth/token", description)


def test_the_description_matches_the_configuration() -> None:
    shipped = orjson.loads((resources.files("stream_scorer.local.simulator") / "openapi.json").read_bytes())
    plain = describe(SimulatorConfig())
    assert shipped["paths"].keys() == plain["paths"].keys()
    schemas = plain["components"]["schemas"]
    assert schemas["Features"]["required"] == list(FEATURES)
    assert schemas["Features"]["properties"]["avg_handle_time"] == {"type": "number"}
    assert schemas["ScoreRequest"]["properties"]["modelVersion"]["enum"] == ["v1", "v2"]
    other = describe(SimulatorConfig(features=None, known_versions=None, max_contacts=7, model_id="m"))
    schemas = other["components"]["schemas"]
    assert set(schemas["Features"]["additionalProperties"]["type"]) == {"integer", "number", "boolean", "string"}
    assert "enum" not in schemas["ScoreRequest"]["properties"]["modelVersion"]
    assert schemas["ScoreRequest"]["properties"]["contacts"]["maxItems"] == 7
    assert other["paths"][SCORE_PATH]["post"]["parameters"][0]["schema"]["enum"] == ["m"]


def test_every_reference_of_the_description_resolves() -> None:
    description = describe(SimulatorConfig())

    def walk(part: Any) -> None:
        if isinstance(part, dict):
            if "$ref" in part:
                assert resolved(part, description)
            for inner in part.values():
                walk(inner)
        elif isinstance(part, list):
            for inner in part:
                walk(inner)

    walk(description)


def test_the_description_is_read_only(simulator: Simulator) -> None:
    answer = requests.head(f"{simulator.base_url}/openapi.json", timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")
    answer = requests.post(f"{simulator.base_url}/openapi.json", timeout=10)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
