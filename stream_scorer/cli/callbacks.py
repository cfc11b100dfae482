"""``stream-scorer callbacks``: the campaign worker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import structlog

from stream_scorer.cli.lifecycle import EndLimit, install_signal_handlers, log_fatal_errors
from stream_scorer.cli.options import ConfigOption, NewTopicOption, StartOption
from stream_scorer.cli.start_checks import log_start, wait_for_topics, worker_settings
from stream_scorer.errors import SettingsError
from stream_scorer.kafka.admin.acls import callback_rights
from stream_scorer.kafka.admin.output_topics import check_outputs
from stream_scorer.kafka.admin.topics import existing_topics
from stream_scorer.kafka.client.config import property_warnings
from stream_scorer.kafka.consumer.delivery_start import delivery_start
from stream_scorer.kafka.consumer.initial_offsets import planning_start, write_start
from stream_scorer.settings import service_link_notes
from stream_scorer.targets.factory import build_target, check_contact_lists
from stream_scorer.telemetry.otel_components import check_otel_environment
from stream_scorer.wiring.callbacks import CallbackService

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.targets.contact_list import ContactListCheck


def callbacks(
    config: ConfigOption = None,
    *,
    start: StartOption = None,
    new_topic: NewTopicOption = False,
) -> None:
    """Deliver high scores to the campaign manager until SIGTERM or Ctrl-C. A second signal ends immediately."""
    settings = worker_settings(config, start, new_topic=new_topic)
    log = structlog.get_logger("stream_scorer")
    for warning in (*settings.security_warnings, *property_warnings(settings), *service_link_notes(os.environ)):
        log.warning("settings warning", detail=warning)
    with log_fatal_errors(log), EndLimit(settings.scoring.shutdown_timeout_s) as limit:
        check_otel_environment(os.environ)
        target = build_target(settings)
        _log_contact_lists(check_contact_lists(target), log)
        topics = settings.campaign_topics
        wait_for_topics(settings, topics, callback_rights(settings))
        check_outputs(settings, topics[1:])
        # All existing ones: records may wait in later retry topics after the setting has become shorter.
        retry_topics = existing_topics(settings, settings.topics.retries())
        is_chosen = start is not None
        # Judged before a start is committed, where the planner's group may begin: after a refusal both are still new.
        # Elsewhere the planner's check comes first: it names a mistyped group.
        delivery = delivery_start(settings, retry_topics) if is_chosen or settings.kafka.allow_new_group else None
        log_start(write_start(settings, planning_start(settings), chosen=is_chosen, new_topic=new_topic))
        delivery = delivery or delivery_start(settings, retry_topics)
        # Without the planner's check: only its group can show that commits have been lost.
        write_start(settings, delivery, chosen=True, new_topic=new_topic)
        service = CallbackService(settings, target, retry_topics)
        limit.watch(service.stopping)
        install_signal_handlers(service.stop)
        log.info(
            "started",
            group_id=settings.callbacks_group_id,
            instance_id=settings.kafka.instance_id,
            target=target.name,
            threshold=settings.callbacks.threshold,
        )
        service.run()
    log.info("stopped")


def _log_contact_lists(checks: Iterable[ContactListCheck], log: Any) -> None:
    """Log what is wrong with contact lists: the callbacks of the other lists go on, so one list ends no start.

    Raises:
        SettingsError: no list has the columns of ``callbacks.columns``.
    """
    first = None
    has_fitting = False
    for checked in checks:
        if checked.info is None:
            # Often the API or the login is the cause, and each list could wait as long: read when a callback is due.
            log.warning("settings warning", detail=f"contact list {checked.list_id}: {checked.problem}")
            return
        first = first or checked
        has_fitting = has_fitting or not checked.has_other_columns
        if checked.problem is not None:
            log.warning("settings warning", detail=f"contact list {checked.list_id}: {checked.problem}")
    if first is not None and not has_fitting:
        raise SettingsError(f"contact list {first.list_id}: {first.problem}")
