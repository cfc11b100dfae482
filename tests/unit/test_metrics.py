"""docs/metrics.md and the instruments of both services are the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_docs import rows

from stream_scorer.core.exactly_once.stall_detector import ConsumerLag
from stream_scorer.telemetry.metrics.callbacks import PrometheusCallbackMetrics
from stream_scorer.telemetry.metrics.scoring import PrometheusMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
STATE = ConsumerLag(oldest_age_s=2.0, stalled_s=1.0, unexplained_s=0.0, lags={("topic", 0): 5})


def messaging(metrics: PrometheusMetrics | PrometheusCallbackMetrics, loop: str) -> None:
    metrics.consumed(1, poll_s=0.1, loop=loop)
    metrics.sent(1, loop=loop)
    metrics.transaction(outcome="committed", send_s=0.1, commit_s=0.1, loop=loop)
    metrics.processed(0.1, loop=loop)
    metrics.partitions(1, loop=loop)
    metrics.input(STATE, loop=loop)


def scoring() -> PrometheusMetrics:
    metrics = PrometheusMetrics(api_url="https://api.mypurecloud.com")
    messaging(metrics, "")
    metrics.http_request(0.1, status=503, error="server_error")
    metrics.contacts(1, outcome="scored")
    metrics.batch(1)
    metrics.chain(1)
    metrics.refused_over_limit(reason="no_result", status="200", model_version="v1", outcome="held")
    metrics.waited(1.0, reason="own_quota")
    metrics.refused_over_limit(reason="refused_by_api", status="400", model_version="", outcome="held")
    metrics.quota(remaining=1, allowed=1, wait_s=0.0, exhausted_in_s=1.0)
    return metrics


def campaign() -> PrometheusCallbackMetrics:
    metrics = PrometheusCallbackMetrics()
    messaging(metrics, "planner")
    metrics.attempt(0.1, status=200, result="delivered")
    metrics.waiting({"slot": 1})
    return metrics


SERVICES: dict[str, Callable[[], Any]] = {"run": scoring, "callbacks": campaign}


def listed(service: str) -> Iterator[list[str]]:
    for of, *cells in rows(PAGE, "## All metrics"):
        if of in {service, "both"}:
            yield [cell.strip("`") for cell in cells]


def labels(family: Any) -> set[str]:
    found = {label for sample in family.samples for label in sample.labels}
    return {label for label in found if label != "le" and not label.startswith("otel_scope_")}


@pytest.mark.parametrize("service", SERVICES)
def test_the_table_is_what_comes_out(service: str) -> None:
    metrics = SERVICES[service]()
    families = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, labels(family))
        for family in text_string_to_metric_families(metrics.exposition().decode())
        if not family.name.startswith("target")
    }
    instruments = {
        one.name: one.unit for one in vars(metrics).values() if hasattr(one, "name") and hasattr(one, "unit")
    }
    metrics.close()
    table = list(listed(service))
    assert {name: unit for name, _, _, unit, *_ in table} == instruments
    assert {prometheus: kind for _, prometheus, kind, *_ in table} == {
        name: kind for name, (kind, _) in families.items()
    }
    for name, prometheus, _, _, attributes, meaning in table:
        assert prometheus.startswith(name.replace(".", "_"))
        said = {one.strip(" `").replace(".", "_") for one in attributes.split(",") if one.strip()}
        assert said - ({"loop"} if service == "run" else set()) == families[prometheus][1], name
        assert meaning
