"""A real Kafka with authentication and ACLs for tests: one shared by all, also across xdist workers.

A pytest plugin; as with the broker (`kafka_fixture`), the controlling process owns the folder and stops it. Three
listeners, one for each mechanism (SCRAM over TLS, client certificates, tokens), all with ACLs; on the plain listener
every client is the superuser, with which tests grant and revoke rights.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support_certificates import ISSUER, Authority, token_key, write_jwks

from stream_scorer.local.files import folder_lock
from stream_scorer.local.kafka.broker import EmbeddedKafka
from stream_scorer.local.kafka.config import KafkaConfig
from stream_scorer.local.kafka.node import Listener
from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER_VARIABLE = "TEST_SECURED_FOLDER"
AUDIENCE = "kafka"
LISTENERS = {"SCRAM": "SASL_SSL", "CERTIFICATE": "SSL", "TOKEN": "SASL_SSL"}
_OAUTH = "org.apache.kafka.common.security.oauthbearer"
_FOLDER = pytest.StashKey[Path]()


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """Addresses, and the folder with its authority and keys. Use users, topics and groups of your own."""

    folder: Path
    ports: dict[str, int]
    open_servers: str

    def servers(self, listener: str, host: str = "localhost") -> str:
        """Return `kafka.bootstrap_servers`; the certificate is for ``localhost`` only."""
        return f"{host}:{self.ports[listener]}"

    @property
    def authority(self) -> Authority:
        """Return the authority that signed its certificate and that it trusts."""
        return Authority(self.folder)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[_FOLDER] = Path(tempfile.mkdtemp(prefix="stream-scorer-test-secured-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["secured_folder"] = str(node.config.stash[_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_FOLDER, None)
    if folder is not None:
        EmbeddedKafka(KafkaConfig(data_dir=folder / "kafka", port=0)).stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def secured(pytestconfig: pytest.Config) -> SecuredKafka:
    """The secured Kafka that all tests share; a running one where TEST_SECURED_FOLDER names its folder."""
    workerinput = getattr(pytestconfig, "workerinput", None)
    folder = Path(workerinput["secured_folder"]) if workerinput else pytestconfig.stash[_FOLDER]
    folder = Path(os.environ.get(FOLDER_VARIABLE, folder))
    with folder_lock(folder, "secured"):
        prepared = folder / "prepared.json"
        if not prepared.exists():
            prepared.write_text(json.dumps(_prepare(folder)), encoding="utf-8")
        ports = json.loads(prepared.read_text(encoding="utf-8"))
        with _allowed(_jwks(folder)):
            running = EmbeddedKafka(_config(folder, ports)).start()
    return SecuredKafka(folder, ports, running.bootstrap_servers)


def _prepare(folder: Path) -> dict[str, int]:
    authority = Authority.make(folder)
    authority.issue("broker", host="localhost")
    write_jwks(folder / "jwks.json", token_key(folder))
    ports: dict[str, int] = {}
    while len(ports) < len(LISTENERS):
        port = free_port()
        if port not in ports.values():
            ports[list(LISTENERS)[len(ports)]] = port
    return ports


def _jwks(folder: Path) -> str:
    return (folder / "jwks.json").as_uri()


@contextmanager
def _allowed(url: str) -> Iterator[None]:
    """Allow the key folder on the command line: Kafka reads keys only from allowed places."""
    before = os.environ.get("JDK_JAVA_OPTIONS")
    os.environ["JDK_JAVA_OPTIONS"] = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={url}"
    yield
    if before is None:
        del os.environ["JDK_JAVA_OPTIONS"]
    else:
        os.environ["JDK_JAVA_OPTIONS"] = before


def _config(folder: Path, ports: dict[str, int]) -> KafkaConfig:
    token = "listener.name.token"
    properties = {
        "group.min.session.timeout.ms": "1000",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "authority.pem"),
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.certificate.ssl.client.auth": "required",
        f"{token}.sasl.enabled.mechanisms": "OAUTHBEARER",
        f"{token}.oauthbearer.sasl.jaas.config": f"{_OAUTH}.OAuthBearerLoginModule required;",
        f"{token}.oauthbearer.sasl.server.callback.handler.class": f"{_OAUTH}.OAuthBearerValidatorCallbackHandler",
        f"{token}.sasl.oauthbearer.jwks.endpoint.url": _jwks(folder),
        f"{token}.sasl.oauthbearer.expected.audience": AUDIENCE,
        f"{token}.sasl.oauthbearer.expected.issuer": ISSUER,
    }
    listeners = tuple(
        Listener(name, ports[name], protocol, advertised_host="localhost") for name, protocol in LISTENERS.items()
    )
    return KafkaConfig(data_dir=folder / "kafka", port=0, properties=properties, listeners=listeners)
