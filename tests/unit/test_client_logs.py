"""Log lines of the Kafka client: without secrets from any source, and repeated at most every half minute."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING

from stream_scorer.kafka.client.logs import RateLimitFilter, client_logger, without_numbers

if TYPE_CHECKING:
    import pytest

PROPERTIES = {
    "sasl.oauthbearer.client.id": "scorer",
    "sasl.oauthbearer.client.secret": "the client's secret",
    "sasl.username": "scorer",
    "sasl.password": "the password",
    "sasl.oauthbearer.extensions": "tenant=the-tenant's-key,zone=eu",
    "ssl.key.location": "/run/secrets/key.pem",
}


def test_a_login_service_that_quotes_its_request_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    quoted = base64.b64encode(b"scorer:the client's secret").decode()
    logger = client_logger(PROPERTIES)
    with caplog.at_level(logging.WARNING, logger.name):
        logger.error("OIDC %s: you sent Basic %s, that is %s", "consumer-1", quoted, "the client's secret")
        logger.error("SASL: %s", "the password")
        logger.error("extension tenant=the-tenant's-key, user scorer, %s in zone eu", "/run/secrets/key.pem")
    known = "extension tenant=***, user scorer, /run/secrets/key.pem in zone eu"
    said = [one.getMessage() for one in caplog.records if one.name == logger.name]
    assert said == ["OIDC consumer-1: you sent Basic ***=, that is ***", "SASL: ***", known]


def test_the_same_but_for_numbers_is_let_through_once_in_half_a_minute() -> None:
    now = 0.0
    let_through = RateLimitFilter(30.0, without_numbers, lambda: now)

    def said(text: str) -> bool:
        return let_through.filter(logging.LogRecord("librdkafka", logging.ERROR, "", 0, text, None, None))

    assert said("broker 1 is away for 10 ms")
    assert not said("broker 2 is away for 500 ms")
    assert said("another thing")
    now = 30.0
    assert said("broker 1 is away for 30000 ms")


def test_what_every_healthy_worker_begins_with_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Lines of librdkafka 2.16 for static members and for a new cluster."""
    logger = client_logger({})
    with caplog.at_level(logging.WARNING, logger.name):
        logger.warning(
            "CONFWARN [stream-scorer#producer-15] [thrd:app]: Configuration property group.instance.id is a consumer"
            " property and will be ignored by this producer instance"
        )
        logger.warning(
            "GETPID [stream-scorer#producer-14] [thrd:main]: Failed to acquire transactional PID from broker"
            " TxnCoordinator/1: Broker: Coordinator load in progress: retrying"
        )
        logger.warning("GETPID [stream-scorer#producer-14] [thrd:main]: Failed to acquire transactional PID: fatal")
    assert len([one for one in caplog.records if one.name == logger.name]) == 1
