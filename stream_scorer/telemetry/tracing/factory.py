"""Factories of tracers, configured by the ``OTEL_*`` variables. The SDK is imported only if traces are on."""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from stream_scorer.callbacks.trace_headers import Untraced as UntracedCampaign
from stream_scorer.genesys.wire import score_path
from stream_scorer.kafka.producer.bulk_producer import Untraced as UntracedProducer
from stream_scorer.scoring.ports import Untraced
from stream_scorer.telemetry.otel_components import check_installed_exporter, check_installed_sdk
from stream_scorer.telemetry.otel_env import trace_values
from stream_scorer.telemetry.otlp_env import TRACES

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.callbacks.trace_headers import DelivererTrace, PlannerTrace
    from stream_scorer.kafka.producer.bulk_producer import Trace as ProducerTrace
    from stream_scorer.scoring.ports import Trace
    from stream_scorer.settings import Settings
    from stream_scorer.telemetry.tracing.spans import Spans


class CallbackTraces(NamedTuple):
    """Tracers of the campaign worker's two loops; ``close`` exports the buffered spans of both."""

    planner: PlannerTrace
    deliverer: DelivererTrace
    close: Callable[[], None]


def scoring_trace(settings: Settings) -> Trace:
    """Return the tracer of the scoring worker.

    Raises:
        SettingsError: a variable asks for an unsupported exporter or protocol, or is invalid.
    """
    spans = _spans(settings, "stream-scorer")
    if spans is None:
        return Untraced()
    from stream_scorer.telemetry.tracing.scoring import ScoringTracer

    genesys = settings.genesys
    return ScoringTracer(
        spans,
        topic=settings.topics.features,
        group=settings.kafka.group_id,
        api_url=genesys.api_url.rstrip("/") + score_path(genesys.model_id or ""),
        login_url=genesys.token_url,
    )


def callback_traces(settings: Settings) -> CallbackTraces:
    """Return the tracers of the campaign worker.

    Raises:
        SettingsError: as `scoring_trace`.
    """
    spans = _spans(settings, "stream-scorer-callbacks")
    if spans is None:
        untraced = UntracedCampaign()
        return CallbackTraces(untraced, untraced, lambda: None)
    from stream_scorer.telemetry.tracing.callbacks import DelivererTracer, PlannerTracer

    topic = settings.topics.callbacks
    deliverer = DelivererTracer(spans, topic=topic, group=settings.delivery_group_id, url=_target_url(settings))
    return CallbackTraces(PlannerTracer(spans, topic, settings.topics.receipts), deliverer, spans.close)


def producer_trace(settings: Settings) -> ProducerTrace:
    """Return the tracer of the producer of contacts.

    Raises:
        SettingsError: as `scoring_trace`.
    """
    spans = _spans(settings, "stream-scorer-produce")
    if spans is None:
        return UntracedProducer()
    from stream_scorer.telemetry.tracing.producer import ProducerTracer

    return ProducerTracer(spans, settings.topics.features)


def _spans(settings: Settings, service: str) -> Spans | None:
    """Return the span factory of a service; None: traces are off."""
    # Before the import of the SDK, which reads one of the variables at import time.
    values = trace_values(os.environ)
    if values is None:
        return None
    check_installed_sdk(os.environ)
    if "otlp" in values.exporters:
        check_installed_exporter(os.environ, TRACES)
    from stream_scorer.telemetry.tracing.spans import make_spans

    return make_spans(values, service, settings.kafka.instance_id)


def _target_url(settings: Settings) -> str | None:
    """Return scheme, host and port of the callback target: path and query are often the sender's credential."""
    callbacks = settings.callbacks
    if callbacks.target == "genesys-outbound":
        return settings.genesys.api_url
    url = callbacks.url
    if callbacks.target != "webhook" or url is None:
        return None
    return urlsplit(url)._replace(path="/", query="", fragment="").geturl()
