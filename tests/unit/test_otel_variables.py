"""The ``OTEL_*`` variables: what they ask for, and what is refused before the SDK takes its default for it."""

from __future__ import annotations

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

from stream_scorer.core.otel_values import (
    SAMPLERS,
    MetricValues,
    Sampling,
    exemplar_filter,
    metric_values,
    trace_values,
)
from stream_scorer.core.otlp_variables import METRICS, TRACES, chosen_exporters
from stream_scorer.errors import SettingsError
from stream_scorer.telemetry.campaign import CampaignMetrics
from stream_scorer.tracing.sampling import make_sampler

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
LARGEST = "2147483647"


class TestWhereTo:
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
    def test_says_whether_there_are_traces(self, environ: dict[str, str], exporters: set[str]) -> None:
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

    def test_an_endpoint_without_a_scheme_is_none(self) -> None:
        with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
            chosen_exporters({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, TRACES)

    @pytest.mark.parametrize(
        ("name", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
    )
    def test_names_what_is_not_known(self, name: str, value: str) -> None:
        with pytest.raises(SettingsError, match=f"{name}: {value}"):
            chosen_exporters({**COLLECTOR, name: value}, TRACES)


class TestWhatIsSampled:
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
            # Each sampler says what its argument is; to this one it is nothing.
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
        assert str(refused.value) == f"OTEL_TRACES_SAMPLER_ARG: {ratio} is no ratio; take a number from 0 to 1"

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
            assert str(refused.value).endswith(f"take a whole number from {least} to {LARGEST}")

    def test_nobody_reads_those_of_what_nobody_wants(self) -> None:
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
        """Not even when it is loaded: in a process of its own, as at the start of a worker."""
        program = "from stream_scorer.tracing.building import scoring_trace; scoring_trace(None)"
        environ = {**COLLECTOR, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "abc"}
        done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
        assert "SettingsError: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT: abc" in done.stderr.splitlines()[-1]


class TestExemplars:
    def test_a_filter_that_is_none_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "some")
        with pytest.raises(SettingsError, match=r"OTEL_METRICS_EXEMPLAR_FILTER: some .* always_on"):
            CampaignMetrics()

    def test_an_empty_variable_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "")
        CampaignMetrics().close()
        assert exemplar_filter({}) == exemplar_filter({"OTEL_METRICS_EXEMPLAR_FILTER": ""}) == "trace_based"
