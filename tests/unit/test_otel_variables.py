"""The ``OTEL_*`` variables: their effect, and invalid values that the SDK would replace with its default."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    ParentBasedTraceIdRatio,
    TraceIdRatioBased,
)
from support_certificates import Authority

from stream_scorer.errors import SettingsError
from stream_scorer.telemetry.exporters import otlp_readers
from stream_scorer.telemetry.meter_provider import ServiceMetrics
from stream_scorer.telemetry.otel_components import check_installed_exporter
from stream_scorer.telemetry.otel_env import (
    SAMPLERS,
    MetricValues,
    Sampling,
    metric_values,
    trace_values,
)
from stream_scorer.telemetry.otlp_env import METRICS, TRACES, chosen_exporters
from stream_scorer.telemetry.tracing.sampler import make_sampler

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk.trace.sampling import Sampler

    from stream_scorer.telemetry.otlp_env import Signal

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
LARGEST = "2147483647"


class TestExporters:
    @pytest.mark.parametrize(
        ("environ", "exporters"),
        [
            ({}, set()),
            (COLLECTOR, {"otlp"}),
            ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, {"otlp"}),
            ({"OTEL_TRACES_EXPORTER": "otlp, console"}, {"otlp", "console"}),
            ({"OTEL_TRACES_EXPORTER": "OTLP", "OTEL_EXPORTER_OTLP_PROTOCOL": "HTTP/protobuf"}, {"otlp"}),
            ({"OTEL_TRACES_EXPORTER": "none", **COLLECTOR}, set()),
            ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, set()),
        ],
    )
    def test_traces_are_exported_if_an_exporter_is_chosen(self, environ: dict[str, str], exporters: set[str]) -> None:
        assert chosen_exporters(environ, TRACES) == exporters
        values = trace_values(environ)
        assert (values.exporters if values is not None else set()) == exporters

    @pytest.mark.parametrize(
        "value", ["authorization:Bearer hush", "authorization=Bearer%0Ahush", "a b=hush", "authorization=hush,x"]
    )
    @pytest.mark.parametrize("signal", [TRACES, METRICS])
    def test_headers_that_are_none_are_named_and_not_shown(self, value: str, signal: object) -> None:
        environ = {**COLLECTOR, "OTEL_EXPORTER_OTLP_HEADERS": value}
        with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_HEADERS") as refused:
            chosen_exporters(environ, TRACES if signal is TRACES else METRICS)
        assert "hush" not in str(refused.value)

    def test_good_headers_are_taken(self) -> None:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hush, x-tenant=a=b",
        }
        assert chosen_exporters(environ, TRACES) == chosen_exporters(environ, METRICS) == {"otlp"}

    @pytest.mark.parametrize(
        "url",
        [
            *("collector:4318", "http://", "http:///v1/traces", "http://collector:port", "http://collector:99999"),
            *("http://collector:0", "https://[::1", "http://hush hush", "grpc://collector:4317", "http://a\nb"),
        ],
    )
    @pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
    def test_an_endpoint_that_is_no_url_is_named(self, name: str, url: str) -> None:
        with pytest.raises(SettingsError, match=f"^{name}: is no URL") as refused:
            chosen_exporters({name: url}, TRACES)
        assert "hush" not in str(refused.value)

    @pytest.mark.parametrize("url", ["http://collector", "HTTPS://user:hush@[::1]:4318/v1/traces", " http://a:1 "])
    def test_an_endpoint_that_is_a_url(self, url: str) -> None:
        assert chosen_exporters({"OTEL_EXPORTER_OTLP_ENDPOINT": url}, TRACES) == {"otlp"}

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "use one of none, gzip, deflate"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "snappy", "use one of none, gzip, deflate"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "use a number of seconds, more than 0"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "use a number of seconds, more than 0"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "nan", "use a number of seconds, more than 0"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sum", "use one of cumulative, delta, lowmemory"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "x", "use one of explicit_bucket_histogram"),
        ],
    )
    def test_what_the_sdk_would_replace_by_its_default(self, name: str, value: str, words: str) -> None:
        with pytest.raises(SettingsError, match=f"^{name}: {value} .*{words}"):
            chosen_exporters({**COLLECTOR, name: value}, METRICS)
        assert chosen_exporters({**COLLECTOR, name: ""}, METRICS) == {"otlp"}
        assert chosen_exporters({name: value}, METRICS) == set()  # not read


class TestComponents:
    """Components that the SDK loads by name, and variables that it reads at import."""

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("OTEL_PYTHON_CONTEXT", "bogus", "bogus is not installed; use one of contextvars_context, or leave"),
            ("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "yes", "yes is unknown; use one of false, true"),
            ("OTEL_RESOURCE_ATTRIBUTES", "tenant:hush", "is no list of attributes; write name=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=hush", "is no list of attributes; write name=value"),
        ],
    )
    def test_of_every_service_are_named(
        self, name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError, match=f"^{name}: {words}") as refused:
            ServiceMetrics("callbacks")
        assert "hush" not in str(refused.value)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("OTEL_PYTHON_METER_PROVIDER", "use one of default_meter_provider, sdk_meter_provider, or leave"),
            ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "no package here has one: leave"),
            ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_METRICS_CREDENTIAL_PROVIDER", "no package here has one: leave"),
        ],
    )
    def test_of_an_exporter_are_named(self, name: str, words: str) -> None:
        with pytest.raises(SettingsError, match=f"^{name}: bogus is not installed; {words}"):
            otlp_readers({**COLLECTOR, name: "bogus"})
        assert otlp_readers({name: "bogus"}) == []

    @pytest.mark.parametrize("name", ["OTEL_PYTHON_METER_PROVIDER", "OTEL_PYTHON_CONTEXT"])
    def test_of_traces_are_one_line_in_a_process_of_its_own(self, name: str) -> None:
        """The SDK itself prints a traceback and raises an exception without a message."""
        program = (
            "from stream_scorer.cli.unexpected import print_no_tracebacks; print_no_tracebacks()\n"
            "from stream_scorer.errors import SettingsError\n"
            "from stream_scorer.telemetry.exporters import Meters\n"
            "from stream_scorer.telemetry.tracing.factory import scoring_trace\n"
            "try: scoring_trace(None)\n"
            "except SettingsError as error: print(error)\n"
        )
        environ = {**os.environ, **COLLECTOR, name: "bogus"}
        done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"{name}: bogus is not installed; ")
        assert done.stderr == ""

    def test_good_ones_are_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (
            ("OTEL_PYTHON_CONTEXT", "contextvars_context"),
            ("OTEL_PYTHON_METER_PROVIDER", "sdk_meter_provider"),
            ("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "False"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b, c.d=e=f,g=,"),
        ):
            monkeypatch.setenv(name, value)
        ServiceMetrics("callbacks").close()
        check_installed_exporter(os.environ, METRICS)

    @pytest.mark.parametrize("endpoint", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}])
    def test_a_proxy_on_the_way_to_the_collector_is_named(self, endpoint: dict[str, str]) -> None:
        environ = {**endpoint, "HTTP_PROXY": "http://svc:hunter2#x@proxy:3128"}
        with pytest.raises(SettingsError, match=r"^HTTP_PROXY is not the URL of a proxy") as refused:
            check_installed_exporter(environ, METRICS)
        assert "hunter2" not in str(refused.value)
        check_installed_exporter({**environ, "NO_PROXY": "collector,localhost"}, METRICS)

    @pytest.mark.parametrize("kind", ["CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"])
    @pytest.mark.parametrize("part", ["", "TRACES_"])
    def test_a_file_that_is_not_there_is_named(self, part: str, kind: str, tmp_path: Path) -> None:
        name = f"OTEL_EXPORTER_OTLP_{part}{kind}"
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318", name: str(tmp_path / "missing.pem")}
        with pytest.raises(SettingsError, match=f"^{name} names .*missing.pem, which cannot be read: No such file"):
            check_installed_exporter(environ, TRACES)
        (tmp_path / "missing.pem").write_text("x")
        problem = f"^{name} (names .*missing.pem.*PEM form|has no effect without a certificate)"
        with pytest.raises(SettingsError, match=problem):
            check_installed_exporter(environ, TRACES)
        check_installed_exporter({**environ, name: "/nowhere", **COLLECTOR}, TRACES)  # plain http uses none

    @pytest.mark.parametrize(
        ("signal", "part"), [(TRACES, ""), (TRACES, "TRACES_"), (METRICS, ""), (METRICS, "METRICS_")]
    )
    def test_a_file_without_a_certificate_is_named(self, signal: Signal, part: str, tmp_path: Path) -> None:
        authority = Authority.make(tmp_path)
        client, other = authority.issue("client"), authority.issue("other")
        locked = authority.issue("locked", password="hunter2")
        key = tmp_path / "key.pem"
        key.write_text(client.read_text().partition("-----BEGIN CERTIFICATE")[0])
        der = tmp_path / "authority.der"
        der.write_bytes(ssl.PEM_cert_to_DER_cert(authority.file.read_text()))

        def check(**files: Path) -> None:
            named = {f"OTEL_EXPORTER_OTLP_{part}{kind}": str(file) for kind, file in files.items()}
            check_installed_exporter({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318", **named}, signal)

        for good in (
            {"CERTIFICATE": authority.file},
            {"CERTIFICATE": tmp_path},
            {"CLIENT_CERTIFICATE": client},
            {"CLIENT_CERTIFICATE": client, "CLIENT_KEY": key, "CERTIFICATE": authority.file},
        ):
            check(**good)
        named = f"^OTEL_EXPORTER_OTLP_{part}"
        for bad in (der, key):
            with pytest.raises(SettingsError, match=f"{named}CERTIFICATE names .*no certificate in PEM form"):
                check(CERTIFICATE=bad)
        for bad_pair in (
            {"CLIENT_CERTIFICATE": authority.file},
            {"CLIENT_CERTIFICATE": other, "CLIENT_KEY": key},
            {"CLIENT_CERTIFICATE": client, "CLIENT_KEY": der},
            {"CLIENT_CERTIFICATE": locked},
        ):
            with pytest.raises(SettingsError, match=f"{named}CLIENT_CERTIFICATE names .*are not in PEM form"):
                check(**bad_pair)
        with pytest.raises(SettingsError, match=f"{named}CLIENT_KEY has no effect without a certificate"):
            check(CLIENT_KEY=key)

    def test_the_bundle_that_takes_precedence_is_checked_too(self, tmp_path: Path) -> None:
        """Requests prefers ``REQUESTS_CA_BUNDLE`` to the certificate that the SDK passes."""
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318", "REQUESTS_CA_BUNDLE": f"{tmp_path}/none"}
        with pytest.raises(SettingsError, match=r"^REQUESTS_CA_BUNDLE names .*which cannot be read"):
            check_installed_exporter(environ, TRACES)

    @pytest.mark.parametrize(
        ("name", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
    )
    def test_names_what_is_not_known(self, name: str, value: str) -> None:
        with pytest.raises(SettingsError, match=f"{name}: {value}"):
            chosen_exporters({**COLLECTOR, name: value}, TRACES)


class TestSampler:
    @pytest.mark.parametrize(
        ("environ", "sampling"),
        [
            ({}, Sampling("parentbased_always_on")),
            ({"OTEL_TRACES_SAMPLER": "", "OTEL_TRACES_SAMPLER_ARG": ""}, Sampling("parentbased_always_on")),
            ({"OTEL_TRACES_SAMPLER": " Always_Off "}, Sampling("always_off")),
            ({"OTEL_TRACES_SAMPLER": "traceidratio"}, Sampling("traceidratio", 1.0)),
            (
                {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1e-3"},
                Sampling("traceidratio", 0.001),
            ),
            # Each sampler defines its argument; this one has none.
            ({"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": "x"}, Sampling("always_on")),
        ],
    )
    def test_is_what_the_variables_say(self, environ: dict[str, str], sampling: Sampling) -> None:
        values = trace_values({**COLLECTOR, **environ})
        assert values is not None
        assert values.sampling == sampling

    @pytest.mark.parametrize("name", ["parentbased_traceidratio_", "traceidratio,0.1", "on", "xray", "a\nb"])
    def test_a_sampler_that_is_none_does_not_sample_everything(self, name: str) -> None:
        with pytest.raises(SettingsError) as refused:
            trace_values({**COLLECTOR, "OTEL_TRACES_SAMPLER": name})
        said = str(refused.value)
        assert said.startswith("OTEL_TRACES_SAMPLER: ")
        assert name in said or "\n" in name
        assert "\n" not in said
        assert all(known in said for known in SAMPLERS)
        assert refused.value.exit_code == 2

    @pytest.mark.parametrize("ratio", ["1%", "0,01", "1.1", "-0.1", "nan", "inf", "0_1", "x"])
    def test_a_ratio_that_is_none_does_not_sample_everything(self, ratio: str) -> None:
        environ = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio}
        with pytest.raises(SettingsError) as refused:
            trace_values({**COLLECTOR, **environ})
        assert str(refused.value) == f"OTEL_TRACES_SAMPLER_ARG: {ratio} is not a ratio; use a number from 0 to 1"

    def test_every_sampler_is_the_sdks(self) -> None:
        made: dict[str, Sampler] = {name: make_sampler(Sampling(name, 0.25)) for name in SAMPLERS}
        asked: dict[str, Sampler] = {
            "always_on": ALWAYS_ON,
            "always_off": ALWAYS_OFF,
            "traceidratio": TraceIdRatioBased(0.25),
            "parentbased_always_on": ParentBased(ALWAYS_ON),
            "parentbased_always_off": ParentBased(ALWAYS_OFF),
            "parentbased_traceidratio": ParentBasedTraceIdRatio(0.25),
        }
        assert {name: one.get_description() for name, one in made.items()} == {
            name: one.get_description() for name, one in asked.items()
        }


class TestNumbers:
    @pytest.mark.parametrize(
        ("name", "least"),
        [
            ("OTEL_BSP_MAX_QUEUE_SIZE", 1),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1),
            ("OTEL_BSP_SCHEDULE_DELAY", 0),
            ("OTEL_BSP_EXPORT_TIMEOUT", 0),
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", 0),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", 0),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", 0),
            ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", 0),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", 0),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", 0),
            ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", 0),
            ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", 0),
            ("OTEL_METRIC_EXPORT_INTERVAL", 1),
            ("OTEL_METRIC_EXPORT_TIMEOUT", 0),
        ],
    )
    def test_are_whole_numbers_and_nothing_else(self, name: str, least: int) -> None:
        read = metric_values if "METRIC" in name else trace_values
        for good in ("", " ", str(least), LARGEST if "BATCH" not in name else "512"):
            assert read({**COLLECTOR, name: good}) is not None
        for bad in ("abc", "-1", "1.5", "5s", "9" * 5_000, "2147483648", *(["0"] if least else [])):
            with pytest.raises(SettingsError) as refused:
                read({**COLLECTOR, name: bad})
            assert str(refused.value).startswith(f"{name}: {bad[:40]}")
            assert str(refused.value).endswith(f"use a whole number from {least} to {LARGEST}")

    def test_variables_of_a_signal_without_exporter_are_not_read(self) -> None:
        assert trace_values({"OTEL_BSP_MAX_QUEUE_SIZE": "abc", "OTEL_TRACES_SAMPLER": "x"}) is None
        assert metric_values({"OTEL_METRIC_EXPORT_INTERVAL": "abc"}) is None

    def test_a_batch_is_never_larger_than_the_queue(self) -> None:
        small = trace_values({**COLLECTOR, "OTEL_BSP_MAX_QUEUE_SIZE": "100"})
        assert small is not None
        assert (small.queue, small.batch) == (100, 100)
        with pytest.raises(SettingsError, match=r"OTEL_BSP_MAX_EXPORT_BATCH_SIZE: 101 .* OTEL_BSP_MAX_QUEUE_SIZE"):
            trace_values({**COLLECTOR, "OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "101"})

    def test_a_time_out_of_zero_is_no_limit(self) -> None:
        assert metric_values({**COLLECTOR, "OTEL_METRIC_EXPORT_TIMEOUT": "0"}) == MetricValues(60_000, 86_400_000)

    def test_the_sdk_reads_none_of_its_own_that_is_wrong(self) -> None:
        """Not even at import: in a process of its own, as at the start of a worker."""
        program = "from stream_scorer.telemetry.tracing.factory import scoring_trace; scoring_trace(None)"
        environ = {**COLLECTOR, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc"}
        done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
        assert "SettingsError: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: abc" in done.stderr.splitlines()[-1]


class TestExemplars:
    @pytest.mark.parametrize("value", ["trace_based", "always_on", "some"])
    def test_a_filter_is_refused_since_there_are_no_exemplars(
        self, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", value)
        with pytest.raises(SettingsError, match=rf"OTEL_METRICS_EXEMPLAR_FILTER: {value} is not .* always_off"):
            ServiceMetrics("callbacks")

    @pytest.mark.parametrize("value", ["", "always_off"])
    def test_an_empty_variable_or_no_exemplars_is_fine(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", value)
        ServiceMetrics("callbacks").close()
