"""Start of both workers: settings and log, the wait for unavailable brokers, and the check of the topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from stream_scorer.errors import BrokerUnavailable, UsageError
from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.client.config import check_properties
from stream_scorer.settings import load_settings
from stream_scorer.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

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


def worker_settings(config: Path | None, start: str | None, *, new_topic: bool) -> Settings:
    """Return the settings of a worker, and configure its log.

    Raises:
        UsageError: see `require_start`.
        SettingsError: a setting is invalid.
    """
    require_start(start, new_topic=new_topic)
    settings = load_settings(config, flags={"kafka.start_from": start} if start is not None else None)
    check_properties(settings)
    configure_logging(level=settings.log.level, form=settings.log.format)
    return settings


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
