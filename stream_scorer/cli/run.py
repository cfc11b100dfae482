"""``stream-scorer run``: the scoring worker."""

from __future__ import annotations

import gc
import os

import structlog

from stream_scorer.cli.config import all_warnings, defaults_in_use
from stream_scorer.cli.lifecycle import EndLimit, install_signal_handlers, log_fatal_errors
from stream_scorer.cli.options import ConfigOption, NewTopicOption, StartOption
from stream_scorer.cli.start_checks import log_start, wait_for_topics, worker_settings
from stream_scorer.kafka.admin.acls import scoring_rights
from stream_scorer.kafka.admin.output_topics import check_outputs
from stream_scorer.kafka.admin.retry_retention import check_retry_retention
from stream_scorer.kafka.admin.topics import existing_topics
from stream_scorer.kafka.consumer.initial_offsets import read_bounds, scoring_start, write_start
from stream_scorer.telemetry.otel_components import check_otel_environment
from stream_scorer.wiring.scoring import ScoringService


def run(
    config: ConfigOption = None,
    *,
    start: StartOption = None,
    new_topic: NewTopicOption = False,
) -> None:
    """Score contacts from the features topic until SIGTERM or Ctrl-C. A second signal ends immediately."""
    settings = worker_settings(config, start, new_topic=new_topic)
    settings.require_api()
    log = structlog.get_logger("stream_scorer")
    for warning in all_warnings(settings):
        log.warning("settings warning", detail=warning)
    for default in defaults_in_use(settings):
        log.info("default setting used", detail=default)
    with log_fatal_errors(log), EndLimit(settings.scoring.shutdown_timeout_s) as limit:
        check_otel_environment(os.environ)
        wait_for_topics(settings, settings.scoring_topics, scoring_rights(settings))
        if (short := check_outputs(settings, settings.topics.scoring[1:]).audit_retention) is not None:
            log.warning("audit retention short", detail=short)
        # All existing ones: contacts may wait in the topics of higher levels after the setting has become shorter.
        retry_topics = existing_topics(settings, settings.topics.contact_retries())
        if (unchecked := check_retry_retention(settings, retry_topics)) is not None:
            log.warning("retry topics not checked", detail=unchecked)
        group = scoring_start(settings, retry_topics)
        log_start(write_start(settings, group, chosen=start is not None, new_topic=new_topic))
        service = ScoringService(settings, retry_topics, read_bounds(settings, group))
        limit.watch(service.stopping)
        install_signal_handlers(service.stop)
        log.info("started", group_id=settings.kafka.group_id, instance_id=settings.kafka.instance_id)
        # Waiting contacts are many, live for seconds and form no cycles. With Python's default thresholds the collector
        # traverses them repeatedly, which took a third of the loop's time (docs/internals/benchmarks.md).
        gc.freeze()
        gc.set_threshold(100_000, 20, 50)
        service.run()
    log.info("stopped")
