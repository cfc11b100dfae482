"""The table of instruments against the page, the exposition of Prometheus, and the enums of the services."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from memory_metrics import MemoryMetrics
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from test_docs import rows

import stream_scorer
from stream_scorer.runtime import metric_definitions
from stream_scorer.runtime.metric_definitions import (
    CAMPAIGN_BLOCKED,
    LOOP,
    Counter,
    Gauge,
    Histogram,
    Instrument,
    Service,
    instruments_of,
)
from stream_scorer.telemetry.meter_provider import ServiceMetrics, server_attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
PACKAGE = Path(stream_scorer.__file__).parent
SERVICES: tuple[Service, ...] = ("run", "callbacks")


def record_all(metrics: ServiceMetrics, service: Service) -> None:
    """Record one value of every instrument with all of its attributes."""
    for one in instruments_of(service):
        named = [attribute for attribute in one.attributes if attribute is not LOOP or service == "callbacks"]
        given = {attribute.name: attribute.values[0] if attribute.values else "x" for attribute in named}
        match one:
            case Counter():
                metrics.add(one, 1, given)
            case Gauge():
                metrics.set(one, 1, given)
            case Histogram():
                metrics.record(one, 1, given)


def listed(service: str) -> Iterator[list[str]]:
    for of, *cells in rows(PAGE, "## All metrics"):
        if of in {service, "both"}:
            yield [cell.strip("`") for cell in cells]


def labels(family: Any) -> set[str]:
    found = {label for sample in family.samples for label in sample.labels}
    return {label for label in found if label != "le" and not label.startswith("otel_scope_")}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("accept", ["*/*, application/OpenMetrics-Text; version=none", "application/openmetrics-text"])
def test_openmetrics_has_the_same_series_for_clients_that_accept_it(service: Service, accept: str) -> None:
    def samples(families: Iterable[Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        found = (one for family in families for one in family.samples if not one.name.startswith("process_"))
        return {(one.name, frozenset(one.labels.items())): one.value for one in found}

    metrics = ServiceMetrics(service)
    record_all(metrics, service)
    kind, text = metrics.exposition("application/json, text/plain;version=0.0.4;q=0.5, */*;q=0.1")
    assert kind.startswith("text/plain; version=")
    open_kind, open_text = metrics.exposition(accept)
    metrics.close()
    assert open_kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert samples(openmetrics.text_string_to_metric_families(open_text.decode())) == samples(
        text_string_to_metric_families(text.decode())
    )


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_the_metrics_of_the_process_are_those_of_the_page() -> None:
    metrics = ServiceMetrics("run")
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition()[1].decode())}
    metrics.close()
    found = {sample.name for name, of in families.items() if name.startswith("process_") for sample in of.samples}
    assert found == set(re.findall(r"`(process_\w+)`", PAGE.read_text()))
    [memory] = families["process_resident_memory_bytes"].samples
    assert (memory.labels, memory.value > 2**20) == ({}, True)


@pytest.mark.parametrize("service", SERVICES)
def test_the_page_is_what_comes_out(service: Service) -> None:
    metrics = ServiceMetrics(service)
    record_all(metrics, service)
    families = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, labels(family))
        for family in text_string_to_metric_families(metrics.exposition()[1].decode())
        if not family.name.startswith(("target", "process_"))
    }
    metrics.close()
    table = list(listed(service))
    assert [name for name, *_ in table] == [one.name for one in instruments_of(service)]
    assert {prometheus: kind for _, prometheus, kind, *_ in table} == {
        name: kind for name, (kind, _) in families.items()
    }
    for name, prometheus, _, _, attributes, meaning in table:
        assert prometheus.startswith(name.replace(".", "_"))
        said = {one.replace(".", "_") for one in re.findall(r"`([\w.]+)`", re.sub(r"\(.*?\)", "", f"`{attributes}`"))}
        assert said - ({"loop"} if service == "run" else set()) == families[prometheus][1], name
        assert meaning


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_two_instruments_of_a_name(service: Service) -> None:
    names = [one.name for one in instruments_of(service)]
    assert len(names) == len(set(names))


def test_every_entry_is_used_outside_of_the_table() -> None:
    files = [file for room in ("scoring", "callbacks", "runtime") for file in (PACKAGE / room).glob("*.py")]
    used = {name for file in files for name in re.findall(r"\bmetric_definitions\.([A-Z_]+)", file.read_text())}
    assert used == {name for name, one in vars(metric_definitions).items() if isinstance(one, Instrument)}


def test_the_server_is_an_attribute_of_requests_alone() -> None:
    metrics = ServiceMetrics("run", constants=server_attributes("https://api.mypurecloud.com"))
    metrics.record(
        metric_definitions.REQUEST_DURATION, 0.1, {"http.response.status_code": 503, "error.type": "server_error"}
    )
    metrics.add(metric_definitions.CONTROLS)
    lines = metrics.exposition()[1].decode().splitlines()
    metrics.close()
    with_server = {line.partition("{")[0] for line in lines if 'server_address="api.mypurecloud.com"' in line}
    assert {name.rpartition("_")[0] for name in with_server} == {"http_client_request_duration_seconds"}
    assert any('server_port="443"' in line for line in lines)
    assert server_attributes("") == {}


@pytest.mark.parametrize(
    ("instrument", "attributes", "words"),
    [
        (metric_definitions.TRANSACTIONS, {"outcome": "lost"}, "'lost' is not a known outcome"),
        (metric_definitions.TRANSACTIONS, {}, "lacks"),
        (metric_definitions.CONTROLS, {"reason": "x"}, "has no attribute"),
        (metric_definitions.CALLBACKS_PLANNED, {}, "is not one of run"),
    ],
)
def test_the_metrics_in_memory_refuse_what_is_not_in_the_table(
    instrument: Instrument, attributes: dict[str, str], words: str
) -> None:
    with pytest.raises(AssertionError, match=words):
        MemoryMetrics("run").add(instrument, 1, attributes)


def test_a_series_of_a_gauge_that_is_removed_is_exported_no_more() -> None:
    """Otherwise the series of all campaigns that were ever blocked would stay."""
    metrics = ServiceMetrics("callbacks")
    series = {
        "campaign_id": "spring",
        "target": "webhook https://x",
        "status": "open",
        "http.response.status_code": 404,
        "remedy": "check the path",
    }
    for status in (404, 403):
        metrics.set(CAMPAIGN_BLOCKED, 1, {**series, "http.response.status_code": status})
    assert metrics.exposition()[1].count(b"stream_scorer_callbacks_campaign_blocked{") == 2
    metrics.remove(CAMPAIGN_BLOCKED, series)
    metrics.remove(CAMPAIGN_BLOCKED, series)
    assert metrics.exposition()[1].count(b"stream_scorer_callbacks_campaign_blocked{") == 1
    assert metrics.exposition()[1].count(b'http_response_status_code="403"') == 1
    metrics.close()
