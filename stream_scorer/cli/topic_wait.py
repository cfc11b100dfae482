"""What both workers do before they work: wait for brokers that are away, or far away, and look at the topics."""

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

# A worker that is started in an outage of the brokers goes on by itself when it is short.
_TIMEOUT_S: Final = 30.0


def wait_for_topics(settings: Settings, names: Iterable[str], rights: Sequence[Permission]) -> None:
    """Look at the topics as `check_topics` does, but with patience; says so where it is needed.

    Raises:
        BrokerUnavailable: no broker has answered in all this time.
        BrokerRefused: see `check_topics`.
    """
    names = list(names)
    try:
        check_topics(settings, names, rights=rights)
    except BrokerUnavailable as error:
        structlog.get_logger("stream_scorer").warning("waiting for Kafka", detail=str(error), for_s=_TIMEOUT_S)
        check_topics(settings, names, rights=rights, timeout_s=_TIMEOUT_S)


def require_start(start: str | None, *, new_topic: bool) -> None:
    """Check that a topic is accepted only together with the place where it is to be read from.

    Raises:
        UsageError: ``--new-topic`` without ``--from``.
    """
    if new_topic and start is None:
        raise UsageError("--new-topic: add --from earliest, --from latest or --from and an ISO time")


def log_start(report: StartReport) -> None:
    """Log which topics were accepted, and which cannot be distinguished from a former topic of the same name."""
    log = structlog.get_logger("stream_scorer")
    if report.replaced:
        log.warning("new topics accepted", topics=list(report.replaced))
    if report.without_id:
        detail = "the brokers show no topic ids, so a topic that is deleted and created again is not noticed"
        log.warning("topic ids not shown", topics=list(report.without_id), detail=detail)
