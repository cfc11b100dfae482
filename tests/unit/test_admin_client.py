"""Time limit of admin requests, and the suggestions of the error without a response."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.errors import BrokerUnavailable
from stream_scorer.kafka.admin.admin_client import ClusterAdmin
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def hanging_up() -> Iterator[str]:
    """The address of a server that closes every connection at once, as a load balancer without brokers."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def administrator(servers: str, properties: dict[str, Any]) -> ClusterAdmin:
    environ = {
        "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": servers,
        "STREAM_SCORER_KAFKA__PROPERTIES": json.dumps(properties),
    }
    return ClusterAdmin(load_settings(environ=environ))


def test_immediate_disconnects_are_retried_until_the_time_limit() -> None:
    began = time.monotonic()
    with hanging_up() as servers, pytest.raises(BrokerUnavailable, match=r"within 1 s \(if its port speaks TLS"):
        administrator(servers, {}).topics(1.0)
    assert time.monotonic() - began >= 1.0


def test_the_error_suggests_the_security_settings() -> None:
    with silent() as servers, pytest.raises(BrokerUnavailable, match="if its port asks for a user, set security"):
        administrator(servers, {"security.protocol": "ssl"}).topics(0.3)
