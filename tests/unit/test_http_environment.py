"""Proxies and certificates of the environment: invalid ones are named at startup, without passwords."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import requests
from raw_http import RawServer, answer, raw_server
from support_targets import SECRET, certificate
from support_targets import settings as settings_of

from stream_scorer import GenesysAuthManager, ScoreClient
from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.errors import RegistryRefused, RegistryUnavailable, SettingsError
from stream_scorer.http_client.client import Http, TransportFailure
from stream_scorer.http_client.environment import (
    SOCKS_FOR_API,
    check_http_environment,
    check_proxy,
    check_tls_environment,
    proxy_variable,
)
from stream_scorer.kafka.registry.client import SchemaRegistry
from stream_scorer.settings import load_settings
from stream_scorer.targets.factory import build_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

API = "https://api.mypurecloud.com"
BAD_PROXIES = [
    "http://svc:hunter2#x@proxy:3128",
    "http://svc:8#hunter2@proxy:3128",
    "http://svc:hunter2/x@proxy:3128",
    "http://svc:9/hunter2@proxy:3128",
    "http://svc:hunter2?x@proxy:3128",
    "http://svc:hunter2@proxy:port",
    "http://svc:hunter2@proxy:99999",
    "http://svc:hunter2@:3128",
    "http://svc:hunter2@proxy:3128/path",
    "http://svc:hunter2@pro xy\n:3128",
    "svc:hunter2#@proxy:3128",
    "http://[::1:3128",
    "ftp://svc:hunter2@proxy",
    "http://",
    "http://svc:hunter2@pro xy:3128",
    "http://svc:hunter2@proxy:3128 ",
    "http://svc:hunter2@..:3128",
    f"http://svc:hunter2@{'a' * 64}.test:3128",
    " ",
]
GOOD_PROXIES = [
    "http://svc:hunter2%23x@proxy:3128",
    "https://proxy",
    "proxy:3128",
    "svc:hunter2@proxy:3128",
    "http://[::1]:3128/",
]
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *NAMES,
        *map(str.upper, NAMES),
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SSLKEYLOGFILE",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("value", BAD_PROXIES)
def test_a_proxy_that_is_no_url_is_named_and_its_password_is_not_shown(value: str) -> None:
    with pytest.raises(SettingsError, match=r"^HTTPS_PROXY ") as refused:
        check_http_environment([API], {"HTTPS_PROXY": value})
    assert "hunter2" not in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("value", GOOD_PROXIES)
def test_a_proxy_that_is_a_url(value: str) -> None:
    check_http_environment([API], {"HTTPS_PROXY": value})


def test_a_socks_proxy_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^ALL_PROXY names a SOCKS proxy, .*pip install PySocks"):
        check_http_environment([API], {"ALL_PROXY": "socks5h://svc:hunter2@proxy:1080"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    check_proxy("ALL_PROXY", "socks5h://svc:hunter2@proxy:1080", SOCKS_FOR_API)


CHOICES: list[tuple[str, dict[str, str], str | None]] = [
    (API, {}, None),
    (API, {"HTTPS_PROXY": "http://a"}, "HTTPS_PROXY"),
    (API, {"HTTPS_PROXY": "http://a", "https_proxy": "http://b"}, "https_proxy"),
    (API, {"HTTPS_PROXY": "http://a", "https_proxy": ""}, None),
    (API, {"HTTP_PROXY": "http://a"}, None),
    (API, {"HTTP_PROXY": "http://a", "ALL_PROXY": "http://c"}, "ALL_PROXY"),
    (API, {"HTTPS_PROXY": "http://a", "NO_PROXY": "mypurecloud.com"}, None),
    (API, {"HTTPS_PROXY": "http://a", "no_proxy": "*"}, None),
    (API, {"HTTPS_PROXY": "http://a", "NO_PROXY": "other.com, api.mypurecloud.com:443"}, "HTTPS_PROXY"),
    ("http://10.1.2.3:8081", {"http_proxy": "http://a", "NO_PROXY": "10.0.0.0/8"}, None),
    ("http://10.1.2.3:8081", {"http_proxy": "http://a", "NO_PROXY": "localhost"}, "http_proxy"),
]


@pytest.mark.parametrize(("url", "environ", "variable"), CHOICES)
def test_which_proxy_is_taken(
    url: str, environ: dict[str, str], variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert proxy_variable(url, environ) == variable
    for name, value in environ.items():  # as requests does it
        monkeypatch.setenv(name, value)
    proxies = requests.utils.get_environ_proxies(url)
    assert requests.utils.select_proxy(url, proxies) == (None if variable is None else environ[variable])


def test_an_unused_proxy_is_not_checked() -> None:
    environ = {"HTTPS_PROXY": BAD_PROXIES[0], "ALL_PROXY": "socks5h://x", "NO_PROXY": "api.mypurecloud.com"}
    check_http_environment([API], environ)
    check_http_environment(["http://127.0.0.1:8090"], {"HTTPS_PROXY": BAD_PROXIES[0]})


def test_certificates(tmp_path: Path) -> None:
    authority, _ = certificate(tmp_path, "localhost")
    text = tmp_path / "text.pem"
    text.write_text("nonsense")
    for good in ({"REQUESTS_CA_BUNDLE": str(authority)}, {"CURL_CA_BUNDLE": str(tmp_path)}, {"REQUESTS_CA_BUNDLE": ""}):
        check_http_environment([API], good)
    bad = {"REQUESTS_CA_BUNDLE": str(tmp_path / "missing.pem")}
    with pytest.raises(SettingsError, match=r"^REQUESTS_CA_BUNDLE names .*missing\.pem, which cannot be read: No such"):
        check_http_environment([API], bad)
    with pytest.raises(SettingsError, match=r"^CURL_CA_BUNDLE names .*text\.pem, which holds no certificate"):
        check_tls_environment({"CURL_CA_BUNDLE": str(text)})
    check_http_environment(["http://127.0.0.1:8090"], bad)  # no certificate is needed there


def test_a_file_of_session_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_http_environment([API], {"SSLKEYLOGFILE": str(tmp_path / "keys")})
    bad = str(tmp_path / "missing\r" / "keys")
    with pytest.raises(
        SettingsError, match=r"^SSLKEYLOGFILE names .*missing\\r/keys, which cannot be written: No such"
    ):
        check_http_environment([API], {"SSLKEYLOGFILE": bad})
    check_http_environment(["http://127.0.0.1:8090"], {"SSLKEYLOGFILE": bad})
    monkeypatch.setenv("SSLKEYLOGFILE", bad)
    for url in ("https://registry", "http://registry:8081"):
        with pytest.raises(SettingsError, match=r"^SSLKEYLOGFILE "):
            registry(url)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_path_with_a_line_end_is_one_line(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} names /no/such\\r, which cannot be read") as refused:
        check_http_environment([API], {name: "/no/such\r"})
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("value", ["localhost:{port}", "svc:hunter2@127.0.0.1:{port}", "http://localhost:{port}"])
def test_a_proxy_without_a_scheme_is_one_of_http(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    server.respond(and_close(answer(200, b"{}")))
    monkeypatch.setenv("HTTP_PROXY", value.format(port=server.url.rsplit(":", 1)[1]))
    check_http_environment(["http://api.test"], os.environ)
    with closing(Http()) as http:
        got = http.exchange("POST", "http://api.test/x", headers={}, body=b"", timeout_s=5, max_answer_bytes=100)
    assert (got.status, server.requests[0].path) == (200, "http://api.test/x")


def test_a_proxy_that_refuses_the_password_is_named(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.respond(and_close(answer(407, b"", {"proxy-authenticate": 'Basic realm="hush"'})))
    monkeypatch.setenv("HTTPS_PROXY", server.url.replace("http://", "http://svc:hunter2@"))
    with closing(Http()) as http, pytest.raises(TransportFailure) as failed:
        http.exchange("POST", "https://api.test/x", headers={}, body=b"", timeout_s=5, max_answer_bytes=100)
    assert failed.value.message == (
        "the proxy to api.test (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) does not connect: HTTP 407"
    )


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_plain_http_that_refuses_the_password_is_named(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    page = b"<html>who is svc:hunter2?</html>"
    server.respond(and_close(answer(407, page, {"proxy-authenticate": 'Basic realm="hush"'})))
    monkeypatch.setenv(variable, server.url.replace("http://", "http://svc:hunter2@"))
    named = f"the proxy to api.test does not accept the user and password of {variable}: HTTP 407"
    with closing(Http()) as http, pytest.raises(TransportFailure) as failed:
        http.exchange("POST", "http://api.test/x", headers={}, body=b"", timeout_s=5, max_answer_bytes=100)
    assert (failed.value.kind, failed.value.message) == (HttpFailure.NO_CONNECTION, named)
    registry = SchemaRegistry(load_settings(environ={"STREAM_SCORER_SCHEMA_REGISTRY__URL": "http://api.test"}))
    with pytest.raises(RegistryUnavailable, match=named):
        registry.writer(7)
    # Without a proxy it is the server's own answer.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with closing(Http()) as http:
        got = http.exchange("POST", f"{server.url}/x", headers={}, body=b"", timeout_s=5, max_answer_bytes=100)
    assert got.status == 407


def test_the_registry_names_its_own_proxy(server: RawServer) -> None:
    server.respond(and_close(answer(407, b"{}")))
    environ = {
        "STREAM_SCORER_SCHEMA_REGISTRY__URL": "http://api.test",
        "STREAM_SCORER_SCHEMA_REGISTRY__PROPERTIES": json.dumps({"proxy": server.url}),
    }
    with pytest.raises(RegistryUnavailable, match=r"user and password of schema_registry\.properties\.proxy: HTTP 407"):
        SchemaRegistry(load_settings(environ=environ)).writer(7)


def test_workers_check_at_their_start(monkeypatch: pytest.MonkeyPatch) -> None:
    client = {"GENESYS_CLIENT_ID": "id", "GENESYS_CLIENT_SECRET": "secret", "GENESYS_MODEL_ID": "m"}
    settings = load_settings(environ=client)
    monkeypatch.setenv("HTTPS_PROXY", BAD_PROXIES[0])
    for check in (settings.require_api, settings.require_client):
        with pytest.raises(SettingsError, match=r"^HTTPS_PROXY "):
            check()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    with pytest.raises(SettingsError, match=r"^REQUESTS_CA_BUNDLE names /no/such/file"):
        build_target(settings_of(url="https://127.0.0.1/hooks", secret=SECRET))


def test_the_library_checks_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = GenesysAuthManager("id", "secret", "https://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
    with pytest.raises(SettingsError, match="REQUESTS_CA_BUNDLE"):
        GenesysAuthManager("id", "secret")
    with pytest.raises(SettingsError, match="REQUESTS_CA_BUNDLE"):
        ScoreClient(auth)


# --- the schema registry


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(and_close(answer(200, {"schema": '{"type": "record", "name": "r", "fields": []}'})))
        yield server


def and_close(sent: bytes) -> Any:
    """Respond once and close the connection, which the client would keep open otherwise."""

    def respond(_: Any, conn: socket.socket) -> None:
        conn.sendall(sent)
        conn.shutdown(socket.SHUT_RDWR)

    return respond


def registry(url: str, **properties: Any) -> SchemaRegistry:
    environ = {"STREAM_SCORER_SCHEMA_REGISTRY__URL": url}
    given = {"max.retries": 0, **{name.replace("_", "."): value for name, value in properties.items()}}
    environ["STREAM_SCORER_SCHEMA_REGISTRY__PROPERTIES"] = json.dumps(given)
    return SchemaRegistry(load_settings(environ=environ))


def test_a_proxy_for_other_hosts_does_not_affect_the_registry(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://svc:hunter2@proxy:1080")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,127.0.0.1")
    asked = registry(server.url, basic_auth_user_info="name:hush")
    assert asked.writer(7) is not None
    assert server.requests[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("url", ["http://registry:8081", "https://registry"])
@pytest.mark.parametrize("value", [*BAD_PROXIES, "socks5h://svc:hunter2@proxy:1080"])
def test_a_proxy_for_the_registry_is_named(url: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "HTTPS_PROXY" if url.startswith("https") else "http_proxy"
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable} ") as refused:
        registry(url)
    assert "hunter2" not in str(refused.value)


def test_an_unsupported_no_proxy_entry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "xn--a")
    with pytest.raises(SettingsError, match=r"^schema_registry\.properties or NO_PROXY: "):
        registry("http://registry.test:8081")


def test_an_unreachable_proxy_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://svc:hunter2@127.0.0.1:9")
    with pytest.raises(RegistryUnavailable) as away:
        registry("http://registry.test:8081").writer(7)
    assert str(away.value) == (
        "schema id 7 cannot be fetched: schema registry registry.test:8081: no connection: Connection refused"
    )


def test_certificates_for_the_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with pytest.raises(SettingsError, match=r"^SSL_CERT_FILE names /no/such/file, which cannot be read: No such file"):
        registry("https://registry")
    authority, _ = certificate(tmp_path, "localhost")
    registry("https://registry", ssl_ca_location=str(authority))  # wins over the environment
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    registry("https://registry")


def test_quotes_of_the_registry_are_redacted(server: RawServer) -> None:
    quoted = "name:hush-hush sent Basic bmFtZTpodXNoLWh1c2g= and hush-hush, \x1b[2J denied"
    server.respond(and_close(answer(403, {"error_code": 40301, "message": quoted})))
    with pytest.raises(RegistryRefused) as refused:
        registry(server.url, basic_auth_user_info="name:hush-hush").writer(7)
    assert "hush-hush" not in str(refused.value)
    assert "bmFtZTpodXNoLWh1c2g" not in str(refused.value)
    assert str(refused.value).isprintable()
    assert "denied (HTTP 403, code 40301); check schema_registry.properties" in str(refused.value)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (answer(502, b"<html>hush</html>"), "HTTP 502, and no answer of a schema registry"),
        (answer(500, {"message": "hush"}), "HTTP 500, and no answer of a schema registry"),
        (answer(200, b"hush"), "its answer is not JSON"),
        (answer(200, b"[" * 100_000), "its answer is nested too deep"),
        (b"hush\r\n\r\n", "it does not answer in HTTP"),
        (answer(200, b"hush", {"content-encoding": "gzip"}), "its answer cannot be decompressed"),
        (answer(301, b"", {"location": "ftp://hush"}), "HTTP 301, and no answer of a schema registry"),
    ],
)
def test_invalid_responses(server: RawServer, sent: bytes, words: str) -> None:
    server.respond(and_close(sent))
    with pytest.raises(RegistryUnavailable) as away:
        registry(server.url).writer(7)
    assert str(away.value).endswith(f"schema registry {server.url[7:]}: {words}")
    assert "hush" not in str(away.value)


def test_a_login_service_that_quotes_the_secret(server: RawServer) -> None:
    body = {"error": "invalid_client", "error_description": "the secret hush-hush is wrong"}
    for sent, words in ((answer(401, body), "the login service gives no token"), (b"", "gives no token: ")):
        server.respond(and_close(sent), path="/token")
        bearer = {
            "bearer.auth.credentials.source": "OAUTHBEARER",
            "bearer.auth.logical.cluster": "c",
            "bearer.auth.client.id": "id",
            "bearer.auth.client.secret": "hush-hush",
            "bearer.auth.scope": "s",
            "bearer.auth.issuer.endpoint.url": f"{server.url}/token",
        }
        with pytest.raises(RegistryUnavailable, match=words) as away:
            registry(server.url, **bearer).writer(7)
        assert "hush" not in str(away.value)


def test_every_error_of_the_http_library_has_a_message() -> None:
    from confluent_kafka.schema_registry.common import _httpx_compat  # noqa: PLC0415 - whichever there is

    from stream_scorer.kafka.registry.errors import registry_error_text  # noqa: PLC0415

    httpx = _httpx_compat.httpx
    kinds = [kind for kind in vars(httpx).values() if isinstance(kind, type) and issubclass(kind, httpx.HTTPError)]
    assert len(kinds) > 15
    for kind in (*kinds, httpx.InvalidURL):
        error = kind.__new__(kind)
        error.args = ("hush",)
        text = registry_error_text(error, str)
        assert "unexpected" not in text, kind
        assert "hush" not in text
    assert registry_error_text(ZeroDivisionError("hush"), str) == "unexpected ZeroDivisionError of the client"


def test_the_environment_is_not_modified(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    before = dict(os.environ)
    registry(server.url)
    assert dict(os.environ) == before
