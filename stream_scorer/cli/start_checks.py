"""Start checks of both workers: wait for unavailable brokers, and check the topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from stream_scorer.errors import BrokerUnavailable, UsageError
from stream_scorer.kafka.admin.topics import check_topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_scorer.kafka.admin.acls import Permission
    from stream_scorer.kafka.consumer.initial_offsets import StartReport
    from stream_scorer.settings import Settings

# A worker that starts during a short outage of the brokers continues when it ends.
_TIMEOUT_S: Final = 30.0


def wait_for_topics(settings: Settings, names: Iterable[str], rights: Sequence[Permission]) -> None:
    """Check the topics like `check_topics`, waiting up to 30 s for the brokers; log a warning before waiting.

    Raises:
        BrokerUnavailable: no broker has answered within that time.
        BrokerRefused: see `check_topics`.
    """
    names = list(names)
    try:
        check_topics(settings, names, rights=rights)
    except BrokerUnavailable as error:
        structlog.get_logger("stream_scorer").warning("waiting for Kafka", detail=str(error), for_s=_TIMEOUT_S)
        check_topics(settings, names, rights=rights, timeout_s=_TIMEOUT_S)


def require_start(start: str | None, *, new_topic: bool) -> None:
    """Check that ``--new-topic`` is given together with a start position.

    Raises:
        UsageError: ``--new-topic`` without ``--from``.
    """
    if new_topic and start is None:
        raise UsageError("--new-topic: add --from earliest, --from latest or --from and an ISO time")


def log_start(report: StartReport) -> None:
    """Log accepted new topics, and topics without an id, whose replacement cannot be detected."""
    log = structlog.get_logger("stream_scorer")
    if report.replaced:
        log.warning("new topics accepted", topics=list(report.replaced))
    if report.without_id:
        detail = "the brokers show no topic ids, so a topic that is deleted and created again is not noticed"
        log.warning("topic ids not shown", topics=list(report.without_id), detail=detail)
