"""Arguments that default to the environment, the region, and the reprs of the library."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer import (
    AuditLogger,
    ConfidenceVerifier,
    ContactFeatureVector,
    GenesysAuthManager,
    PredictiveScoreCalculator,
    RejectedContact,
    ScoreClient,
    ScoringOutcome,
    ScoringPayload,
    SettingsError,
)

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2-of-the-environment"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any variable of the platform."""
    for name in [one for one in os.environ if one.startswith(("GENESYS_", "STREAM_SCORER_"))]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def credentials(environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    environment.setenv("GENESYS_MODEL_ID", "model-of-the-environment")
    environment.setenv("GENESYS_CLIENT_ID", "id-of-the-environment")
    environment.setenv("GENESYS_CLIENT_SECRET", SECRET)
    return environment


def authorization(auth: GenesysAuthManager) -> str:
    return auth.tokens._read_secret()


def test_all_arguments_from_the_environment(credentials: pytest.MonkeyPatch) -> None:
    credentials.setenv("GENESYS_REGION", "mypurecloud.de")
    calculator = PredictiveScoreCalculator(expected_features=["calls"])
    assert calculator.model_id == "model-of-the-environment"
    assert calculator.auth.client_id == "id-of-the-environment"
    assert authorization(calculator.auth) == SECRET
    assert calculator.client.base_url == "https://api.mypurecloud.de"
    assert calculator.auth.auth_url == "https://login.mypurecloud.de/oauth/token"
    assert calculator.imputation_map == {}


def test_explicit_arguments_win(credentials: pytest.MonkeyPatch) -> None:
    credentials.setenv("GENESYS_BASE_URL", "http://environment:1")
    credentials.setenv("GENESYS_LOGIN_URL", "http://environment:2")
    calculator = PredictiveScoreCalculator("m", "id", "secret", ["calls"], {}, base_url="https://api.mypurecloud.ie")
    assert (calculator.model_id, calculator.auth.client_id, authorization(calculator.auth)) == ("m", "id", "secret")
    assert calculator.client.base_url == "https://api.mypurecloud.ie"
    assert calculator.auth.auth_url == "https://login.mypurecloud.ie/oauth/token"  # belongs to the explicit URL


def test_the_longer_names_win(credentials: pytest.MonkeyPatch) -> None:
    credentials.setenv("STREAM_SCORER_GENESYS__CLIENT_ID", "longer")
    credentials.setenv("STREAM_SCORER_GENESYS__BASE_URL", "http://longer:1")
    credentials.setenv("GENESYS_BASE_URL", "http://shorter:1")
    auth = GenesysAuthManager()
    assert (auth.client_id, auth.base_url) == ("longer", "http://longer:1")


def test_urls_of_the_environment(credentials: pytest.MonkeyPatch) -> None:
    credentials.setenv("GENESYS_BASE_URL", "http://api:1")
    credentials.setenv("GENESYS_LOGIN_URL", "http://login:2")
    credentials.setenv("GENESYS_REGION", "mypurecloud.de")  # less than a URL, as for a worker
    auth = GenesysAuthManager()
    assert (auth.base_url, auth.auth_url) == ("http://api:1", "http://login:2/oauth/token")
    assert ScoreClient(auth).base_url == "http://api:1"
    assert ScoreClient(auth, "http://other:3").base_url == "http://other:3"


def test_an_empty_variable_counts_as_not_set(credentials: pytest.MonkeyPatch) -> None:
    credentials.setenv("GENESYS_BASE_URL", "")
    credentials.setenv("STREAM_SCORER_GENESYS__CLIENT_ID", "")
    auth = GenesysAuthManager()
    assert (auth.base_url, auth.client_id) == ("https://api.mypurecloud.com", "id-of-the-environment")


@pytest.mark.parametrize("region", ["mypurecloud.de", "usw2.pure.cloud"])
def test_region(region: str, credentials: pytest.MonkeyPatch) -> None:
    credentials.setenv("GENESYS_BASE_URL", "http://environment:1")
    auth = GenesysAuthManager("id", "secret", region=region)
    assert (auth.base_url, auth.auth_url) == (f"https://api.{region}", f"https://login.{region}/oauth/token")
    calculator = PredictiveScoreCalculator("m", "id", "secret", ["calls"], region=region)
    assert calculator.client.base_url == f"https://api.{region}"


@pytest.mark.parametrize("region", ["mypurecloud.fr", "", 5, ["mypurecloud.de"], "https://user:hunter2@host"])
def test_region_that_does_not_exist(region: Any) -> None:
    with pytest.raises(SettingsError, match=r"^region") as caught:
        GenesysAuthManager("id", "secret", region=region)
    assert "hunter2" not in str(caught.value)
    assert "genesys." not in str(caught.value)


def test_region_and_base_url_contradict_each_other() -> None:
    with pytest.raises(SettingsError, match="base_url and region contradict each other"):
        GenesysAuthManager("id", "secret", "http://127.0.0.1:1", region="mypurecloud.de")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GENESYS_REGION", "mypurecloud.fr"),
        ("GENESYS_BASE_URL", "ftp://user:hunter2@host"),
        ("GENESYS_LOGIN_URL", "hunter2"),
        ("GENESYS_CLIENT_SECRET", "'hunter2'"),
        ("GENESYS_CLIENT_ID", "\udc80"),
    ],
)
def test_an_invalid_variable_is_named(credentials: pytest.MonkeyPatch, name: str, value: str) -> None:
    credentials.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}") as caught:
        GenesysAuthManager()
    assert "hunter2" not in str(caught.value)


def test_what_is_missing_is_one_error() -> None:
    with pytest.raises(SettingsError) as caught:
        PredictiveScoreCalculator(expected_features=["calls"])
    assert str(caught.value) == (
        "model_id, client_id and client_secret are missing: pass them, or set GENESYS_MODEL_ID, GENESYS_CLIENT_ID and"
        " GENESYS_CLIENT_SECRET (or GENESYS_CLIENT_SECRET_FILE)"
    )
    with pytest.raises(SettingsError, match=r"^client_id is missing: pass it, or set GENESYS_CLIENT_ID$"):
        GenesysAuthManager(client_secret="secret")
    with pytest.raises(SettingsError, match=r"^model_id is missing"):
        PredictiveScoreCalculator(client=ScoreClient(GenesysAuthManager("id", "secret")), expected_features=["calls"])
    with pytest.raises(SettingsError, match="expected_features must be a list of names"):
        PredictiveScoreCalculator("m", "id", "secret")


def test_the_secret_file_is_read_again(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first\n")
    environment.setenv("GENESYS_CLIENT_SECRET_FILE", str(file))
    auth = GenesysAuthManager("id")
    assert authorization(auth) == "first"
    file.write_text("second\n")
    assert authorization(auth) == "second"


def test_a_secret_file_that_cannot_be_read(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("GENESYS_CLIENT_SECRET_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="GENESYS_CLIENT_SECRET_FILE: No such file"):
        GenesysAuthManager("id")


def test_reprs_are_short_and_have_no_secret(credentials: pytest.MonkeyPatch) -> None:
    credentials.setenv("GENESYS_REGION", "mypurecloud.de")
    calculator = PredictiveScoreCalculator(expected_features=["calls"])
    vector = ContactFeatureVector(contactId="c", features={"phone": "+49 30 1"})
    objects = {
        "https://api.mypurecloud.de": calculator,
        "id-of-the-environment": calculator.auth,
        "base_url=": calculator.client,
        "max_bytes=5": AuditLogger("a.log", max_bytes=5),
        "min_confidence_width=0.2": ConfidenceVerifier(0.2),
        "contacts=3": ScoringPayload(contacts=[vector] * 3),
        "scored=0, review=0, rejected=1": ScoringOutcome((), (), (RejectedContact(0, "c", ("wrong_type",), "no"),)),
        "wrong_type": RejectedContact(0, "c", ("wrong_type",), "no", {"phone": "+49 30 1"}),
    }
    for words, value in objects.items():
        assert words in repr(value)
        assert len(repr(value)) < 300
        assert SECRET not in repr(value)
        assert "+49 30 1" not in repr(value)
    calculator.close()
    assert "closed" in repr(calculator)
