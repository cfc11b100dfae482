from __future__ import annotations

import io
import json
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import structlog
from support_otlp import OtlpReceiver

from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.types import Reason, ReviewReason
from stream_scorer.errors import SettingsError
from stream_scorer.runtime import metric_definitions
from stream_scorer.settings import Settings
from stream_scorer.telemetry import collectors
from stream_scorer.telemetry.collectors import close_within_limit
from stream_scorer.telemetry.logs import configure_logging
from stream_scorer.telemetry.meter_provider import ServiceMetrics
from stream_scorer.telemetry.otel_env import metric_values
from stream_scorer.wiring.scoring import ScoringService

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    root, urllib3 = logging.getLogger(), logging.getLogger("urllib3")
    handlers, level, urllib3_level = root.handlers[:], root.level, urllib3.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    urllib3.setLevel(urllib3_level)
    structlog.reset_defaults()


def lines(logs: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in logs.getvalue().splitlines()]


def test_our_lines_and_those_of_libraries_are_json(logs: io.StringIO) -> None:
    configure_logging(form="json", stream=logs)
    structlog.get_logger("ours").info("scored", contacts=3)
    logging.getLogger("theirs").warning("broker %s is back", "a:1")
    ours, theirs = lines(logs)
    assert (ours["event"], ours["contacts"], ours["level"], ours["logger"]) == ("scored", 3, "info", "ours")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("broker a:1 is back", "warning", "theirs")
    assert str(ours["timestamp"]).endswith("Z")


def test_events_below_the_level_are_not_written(logs: io.StringIO) -> None:
    configure_logging(form="json", level="warning", stream=logs)
    structlog.get_logger("ours").info("no")
    logging.getLogger("theirs").info("no")
    structlog.get_logger("ours").warning("yes")
    assert [line["event"] for line in lines(logs)] == ["yes"]


def test_no_terminal_means_json_and_configuring_twice_means_one_line(logs: io.StringIO) -> None:
    configure_logging(stream=logs)
    configure_logging(stream=logs)
    structlog.get_logger("ours").info("once")
    assert len(lines(logs)) == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_hidden_at_any_depth(logs: io.StringIO, as_json: bool) -> None:
    configure_logging(form="json" if as_json else "text", stream=logs)
    structlog.get_logger("ours").info(
        "sent",
        client_secret="s3cr3t",
        headers={"Authorization": "Bearer s3cr3t", "Host": "api"},
        attempts=[{"access_token": "s3cr3t"}],
        token_renewed=True,
    )
    assert "s3cr3t" not in logs.getvalue()
    assert "api" in logs.getvalue()
    assert ("true" if as_json else "True") in logs.getvalue()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_record_is_one_line_whatever_is_in_it(logs: io.StringIO, as_json: bool) -> None:
    configure_logging(form="json" if as_json else "text", stream=logs)
    evil = "a\n2030-01-31T06:00:00Z [info ] stopped\r\x1b[2J\x85\u2028b"
    structlog.get_logger("ours").info("campaign deliveries failing", campaign_id=evil)
    logging.getLogger("theirs").warning("connection to %s failed", evil)
    first, second = logs.getvalue().splitlines()
    assert "stopped" in first
    assert "stopped" in second
    assert logs.getvalue().replace("\n", "").isprintable()


@pytest.mark.parametrize("as_json", [True, False])
def test_the_text_of_a_librarys_exception_is_not_written(logs: io.StringIO, as_json: bool) -> None:
    configure_logging(form="json" if as_json else "text", stream=logs)
    try:
        raise ValueError("Failed to parse: http://svc:hunter2#x@proxy:3128")  # noqa: TRY301 - as urllib3 does
    except ValueError as error:
        theirs = logging.getLogger("theirs")
        theirs.exception("exporting failed")
        theirs.error("code: %s, reason: %s", None, error, stack_info=True)
        theirs.error("reason: %(reason)s", {"reason": error})
    said = logs.getvalue()
    assert "hunter2" not in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 3
    for words in ("exporting failed (ValueError)", "code: None, reason: ValueError", "reason: ValueError"):
        assert words in said


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variables(logs: io.StringIO, as_json: bool) -> None:
    configure_logging(form="json" if as_json else "text", stream=logs)
    password = "s3" + "cr3t"
    try:
        int(password and "x")
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    assert "ValueError" in logs.getvalue()
    assert password not in logs.getvalue()


def samples(metrics: ServiceMetrics) -> dict[str, float]:
    found = {}
    for line in metrics.exposition()[1].decode().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            labels = [
                label for label in name[name.find("{") + 1 : -1].split(",") if "{" in name and "otel_scope" not in label
            ]
            found[name.partition("{")[0] + ("{" + ",".join(labels) + "}" if labels else "")] = float(value)
    return found


def test_every_metric_comes_out_under_its_name() -> None:
    metrics = ServiceMetrics("run")
    for amount in (5, 2):
        metrics.add(metric_definitions.CONSUMED, amount)
    metrics.add(metric_definitions.SENT, 4)
    metrics.add(metric_definitions.CONTACTS, 3, {"outcome": "scored", "reason": ""})
    metrics.add(metric_definitions.CONTACTS, 1, {"outcome": "rejected", "reason": "wrong_type"})
    metrics.add(metric_definitions.CONTACTS_RETRIED, 2)
    metrics.add(metric_definitions.UNMATCHED_RESULTS)
    metrics.record(metric_definitions.REQUEST_DURATION, 0.2, {"http.response.status_code": 200})
    metrics.record(metric_definitions.REQUEST_DURATION, 30.0, {"error.type": "timeout"})
    metrics.add(metric_definitions.TRANSACTIONS, 1, {"outcome": "committed"})
    for gauge, value in (
        (metric_definitions.REQUESTS_IN_FLIGHT, 8),
        (metric_definitions.REQUESTS_IN_FLIGHT, 6),
        (metric_definitions.CONTACTS_UNCOMMITTED, 900),
        (metric_definitions.QUOTA_REMAINING, 299),
        (metric_definitions.QUOTA_ALLOWED, 300),
        (metric_definitions.QUOTA_WAIT, 0.5),
        (metric_definitions.QUOTA_TIME_TO_EXHAUSTION, 42.5),
    ):
        metrics.set(gauge, value)
    for seconds, reason in ((1.5, "own_quota"), (0.25, "own_quota"), (3.0, "spend_limit")):
        metrics.add(metric_definitions.REQUEST_WAIT_TIME, seconds, {"reason": reason})
    for outcome in ("failed", "recovered"):
        metrics.add(metric_definitions.CIRCUIT_BREAKER_PROBES, 1, {"outcome": outcome})
    found = samples(metrics)
    poll, send = (
        f'{{messaging_operation_name="{name}",messaging_operation_type="{kind}",messaging_system="kafka"}}'
        for name, kind in (("poll", "receive"), ("send", "send"))
    )
    assert found[f"messaging_client_consumed_messages_total{poll}"] == 7
    assert found[f"messaging_client_sent_messages_total{send}"] == 4
    assert found['stream_scorer_contacts_total{outcome="scored",reason=""}'] == 3
    assert found['stream_scorer_contacts_total{outcome="rejected",reason="wrong_type"}'] == 1
    assert found["stream_scorer_contacts_retried_total"] == 2
    assert found["stream_scorer_results_unmatched_total"] == 1
    assert found['stream_scorer_transactions_total{outcome="committed"}'] == 1
    assert found["stream_scorer_requests_in_flight"] == 6
    assert found["stream_scorer_contacts_uncommitted"] == 900
    assert found["stream_scorer_quota_remaining"] == 299
    assert found["stream_scorer_quota_allowed"] == 300
    assert found["stream_scorer_quota_wait_seconds"] == 0.5
    assert found["stream_scorer_quota_time_to_exhaustion_seconds"] == 42.5
    assert found['stream_scorer_requests_wait_time_seconds_total{reason="own_quota"}'] == 1.75
    assert found['stream_scorer_requests_wait_time_seconds_total{reason="spend_limit"}'] == 3.0
    assert found['stream_scorer_circuit_breaker_probes_total{outcome="failed"}'] == 1
    assert found['stream_scorer_circuit_breaker_probes_total{outcome="recovered"}'] == 1
    counts = {name: value for name, value in found.items() if name.startswith("http_client_request_duration_seconds_c")}
    assert sorted(counts.values()) == [1, 1]
    assert any('http_response_status_code="200"' in name for name in counts)
    assert any('error_type="timeout"' in name for name in counts)
    metrics.close()


def test_two_services_in_one_process_do_not_mix() -> None:
    first, second = ServiceMetrics("run"), ServiceMetrics("run")
    first.add(metric_definitions.CONSUMED)
    assert [value for name, value in samples(second).items() if "consumed" in name] == [0]
    first.close()
    second.close()


def test_the_standard_variables_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "scorer-eu")
    metrics = ServiceMetrics("run")
    metrics.add(metric_definitions.CONSUMED)
    assert 'service_name="scorer-eu"' in metrics.exposition()[1].decode()
    metrics.close()


def test_workers_have_an_instance_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a collector mixes their counters into one series that rises and falls."""
    for made in (ServiceMetrics("run", instance="scorer-0"), ServiceMetrics("callbacks", instance="scorer-0")):
        assert 'service_instance_id="scorer-0"' in made.exposition()[1].decode()
        made.close()
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=of-the-platform")
    metrics = ServiceMetrics("run", instance="scorer-0")
    assert 'service_instance_id="of-the-platform"' in metrics.exposition()[1].decode()
    metrics.close()


def test_every_reason_is_0_before_it_has_counted() -> None:
    metrics = ServiceMetrics("run")
    found = [name for name in samples(metrics) if name.startswith("stream_scorer_contacts_total")]
    assert len(found) == 1 + len(Reason) + len(ReviewReason) + len(range(1, 10))
    metrics.add(metric_definitions.CONTACTS, 7, {"outcome": "rejected", "reason": Reason.WRONG_TYPE})
    again = samples(metrics)
    assert again['stream_scorer_contacts_total{outcome="rejected",reason="wrong_type"}'] == 7
    assert [name for name in again if name.startswith("stream_scorer_contacts_total")] == found
    metrics.close()


# --- OTLP


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_METRICS_EXPORTER": "statsd"}, "OTEL_METRICS_EXPORTER: statsd is unknown; use otlp,"),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: grpc is not supported here; set it to http/protobuf",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: http/json is not supported here",
        ),
    ],
)
def test_an_unsupported_protocol_is_one_line(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        metric_values(environ)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_variables_decide(environ: dict[str, str], wanted: bool) -> None:
    assert (metric_values(environ) is not None) is wanted


def test_pending_telemetry_is_exported_at_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        metrics = ServiceMetrics("run")
        metrics.add(metric_definitions.CONTACTS, 3, {"outcome": "scored", "reason": ""})
        metrics.close()
        assert ("stream-scorer", "stream_scorer.contacts") in receiver.metrics


def test_an_unreachable_collector_delays_no_shutdown_and_is_one_line(
    monkeypatch: pytest.MonkeyPatch, logs: io.StringIO
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1/?key=s3cr3t-key")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    configure_logging(form="json", stream=logs)
    metrics = ServiceMetrics("run")
    metrics.add(metric_definitions.CONTACTS, 3, {"outcome": "scored", "reason": ""})
    began = time.monotonic()
    metrics.close()
    assert time.monotonic() - began < 10
    assert len([line for line in lines(logs) if "127.0.0.1" in str(line)]) <= 2  # a line a minute of each logger
    assert "s3cr3t-key" not in logs.getvalue()


def test_exporters_are_closed_in_parallel_with_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectors, "CLOSE_S", 1.0)
    never, done = threading.Event(), threading.Event()
    began = time.monotonic()
    close_within_limit(*[never.wait] * 9, done.set)
    assert 1.0 <= time.monotonic() - began < 8.0, "one after the other they take 9 s"
    assert done.is_set()
    never.set()


def test_a_hanging_collector_delays_the_shutdown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces and metrics in parallel: in sequence it took twice as long."""
    monkeypatch.setattr(collectors, "CLOSE_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as collector:  # accepts connections and never responds
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.getsockname()[1]}")
        settings = Settings.model_validate(
            {"admin": {"port": 0}, "genesys": {"client_id": "i", "client_secret": "s", "model_id": "m"}}
        )
        service = ScoringService(settings)
        monkeypatch.setattr(
            service, "_run", lambda _closing: service._trace.polled([SourceRecord("t", 0, 1, b"", b"", [])])
        )
        began = time.monotonic()
        service.run()
        assert time.monotonic() - began < 4.0


PROGRESS = {"rate_per_s": 5009.6, "scored": 19_329, "lag": 0, "quota_used": 20, "quota_allowed": 300}


def test_progress_is_one_line_of_text_and_fields_in_json(logs: io.StringIO) -> None:
    configure_logging(form="text", stream=logs)
    structlog.get_logger("ours").info("progress reported", **PROGRESS)
    assert logs.getvalue().endswith("5,010/s  scored 19,329  lag 0  quota 20/300\n")
    logs.truncate(0)
    logs.seek(0)
    configure_logging(form="json", stream=logs)
    structlog.get_logger("ours").info("progress reported", **PROGRESS)
    assert lines(logs)[0].items() >= PROGRESS.items()


@pytest.mark.parametrize(
    ("form", "level", "expected"), [("text", "info", 1), ("text", "debug", 3), ("json", "info", 3)]
)
def test_a_rebalance_is_one_line_of_text(logs: io.StringIO, form: str, level: str, expected: int) -> None:
    configure_logging(form=form, level=level, stream=logs)
    log = structlog.get_logger("ours")
    log.info("partition revoked", topic="t", partition=0)
    log.info("partition assigned", topic="t", partition=1, offset=0)
    log.info("rebalance completed", assigned=1, revoked=1, partitions=1)
    assert len(logs.getvalue().splitlines()) == expected
    assert "rebalance completed" in logs.getvalue()
