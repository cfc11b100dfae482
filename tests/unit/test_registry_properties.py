"""``schema_registry.properties``: an error is one line with the property, without traceback and secrets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support_targets import openssl

from stream_scorer.errors import SettingsError
from stream_scorer.kafka.registry.client import SchemaRegistry
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

BEARER = {
    "bearer.auth.credentials.source": "STATIC_TOKEN",
    "bearer.auth.token": "hush",
    "bearer.auth.logical.cluster": "c",
}


def registry(properties: dict[str, Any], url: str = "http://127.0.0.1:1") -> SchemaRegistry:
    environ = {
        "STREAM_SCORER_SCHEMA_REGISTRY__URL": url,
        "STREAM_SCORER_SCHEMA_REGISTRY__PROPERTIES": json.dumps(properties),
    }
    return SchemaRegistry(load_settings(environ=environ))


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"no.such": 1}, ".no.such is not known to the registry's client: take one of basic.auth.user.info, "),
        ({"url": "http://other"}, ".url is not known to the registry's client: it is schema_registry.url"),
        ({"basic.auth.user.info": 4711}, ".basic.auth.user.info must be name:secret"),
        ({"basic.auth.user.info": "hush"}, ".basic.auth.user.info must be name:secret"),
        ({"timeout": "5"}, ".timeout must be a number of seconds, more than 0"),
        ({"timeout": True}, ".timeout must be a number of seconds, more than 0"),
        ({"timeout": 0}, ".timeout must be a number of seconds, more than 0"),
        ({"max.retries": -1}, ".max.retries must be a number, 0 or more"),
        ({"cache.capacity": "many"}, ".cache.capacity must be a number, 0 or more"),
        ({"proxy": True}, ".proxy must be a URL that begins with http://, https:// or socks5://"),
        ({"proxy": "proxy:3128"}, ".proxy must be a URL that begins with http://, https:// or socks5://"),
        (
            {"ssl.ca.location": False},
            ".ssl.ca.location must be the path of a file; or write a folder. Certificates are",
        ),
        ({"ssl.ca.location": True}, ".ssl.ca.location must be the path of a file; or write a folder"),
        ({"ssl.ca.location": ""}, ".ssl.ca.location must be the path of a file; or write a folder"),
        ({"ssl.ca.location": "/no/such"}, ".ssl.ca.location is a path where there is no file; or write a folder"),
        ({"ssl.certificate.location": 1}, ".ssl.certificate.location must be the path of a file"),
        ({"ssl.certificate.location": "/no/such"}, ".ssl.certificate.location is a path where there is no file"),
        ({"ssl.key.password": 1}, ".ssl.key.password must be text"),
        ({"ssl.key.password": "hush"}, ".ssl.key.password is of no use without ssl.certificate.location"),
        ({"bearer.auth.token": "hush"}, ".bearer.auth.token is of no use without bearer.auth.credentials.source: set"),
        ({**BEARER, "bearer.auth.credentials.source": "CUSTOM"}, ".bearer.auth.credentials.source must be one of OAU"),
        ({**BEARER, "bearer.auth.token": 1}, ".bearer.auth.token must be text"),
        (
            {"bearer.auth.credentials.source": "STATIC_TOKEN"},
            ".bearer.auth.credentials.source STATIC_TOKEN needs bearer.",
        ),
        (
            {**BEARER, "bearer.auth.credentials.source": "OAUTHBEARER"},
            ".bearer.auth.credentials.source OAUTHBEARER needs bearer.auth.client.id, bearer.auth.client.secret, ",
        ),
        (
            {**BEARER, "bearer.auth.credentials.source": "OAUTHBEARER_AZURE_IMDS"},
            ".bearer.auth.credentials.source OAUTHBEARER_AZURE_IMDS needs bearer.auth.issuer.endpoint.query",
        ),
        ({"proxy": "http://svc:hush#x@proxy:3128"}, ".proxy is not the URL of a proxy: write http://user:password@"),
        ({"proxy": "http://svc:1#hush@proxy:3128"}, ".proxy is not the URL of a proxy: write http://user:password@"),
        ({"proxy": "socks5h://svc:hush@proxy"}, ".proxy names a SOCKS proxy, and the package for that is missing: "),
    ],
)
def test_a_property_the_client_rejects_is_one_line_with_its_name(properties: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        registry(properties)
    line = str(refused.value)
    assert line.startswith(f"schema_registry.properties{said}")
    assert "\n" not in line
    assert "hush" not in line
    assert refused.value.exit_code == 2


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nonsense")
    for properties, words in (
        ({"ssl.ca.location": str(file)}, "ca.location names .*ca.pem, which holds no certificate in PEM form"),
        ({"ssl.certificate.location": str(file)}, "certificate.location: .*ca.pem and its key are not in PEM form"),
    ):
        with pytest.raises(SettingsError, match=rf"^schema_registry\.properties\.ssl\.{words}"):
            registry(properties)


def test_a_key_with_a_password_is_not_asked_for_at_a_terminal(tmp_path: Path) -> None:
    key, made = tmp_path / "key.pem", tmp_path / "own.pem"
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-passout", "pass:hush", "-subj", "/CN=own", "-days", "2"),
        *("-keyout", key, "-out", made),
    )
    files = {"ssl.certificate.location": str(made), "ssl.key.location": str(key)}
    for wrong in (files, {**files, "ssl.key.password": "other"}):
        with pytest.raises(SettingsError, match=r"ssl\.key\.password is missing or wrong"):
            registry(wrong)
    assert registry({**files, "ssl.key.password": "hush"}).place == "127.0.0.1:1"


@pytest.mark.parametrize(
    "properties",
    [
        {},
        BEARER,
        {"basic.auth.user.info": "name:hush:hush", "timeout": 0.5, "max.retries": 0, "cache.capacity": 10},
        {"proxy": "http://user:hush@proxy:3128"},
    ],
)
def test_supported_properties_are_passed_on(properties: dict[str, Any]) -> None:
    assert registry(properties).place == "127.0.0.1:1"
