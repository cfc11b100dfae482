"""The campaign worker's metrics are those of the table in docs/operations.md."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from stream_scorer.campaign_telemetry import CampaignMetrics, PrometheusCampaignMetrics

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def table() -> list[list[str]]:
    section = OPERATIONS.read_text().split("### Campaign metrics\n", 1)[1].lstrip().split("\n\n", 1)[0]
    return [line.strip("|").split("|") for line in section.splitlines()[2:]]


def test_the_table_is_the_instruments() -> None:
    metrics = PrometheusCampaignMetrics()
    metrics.consumed(1, loop="planner")
    metrics.transaction(loop="planner", outcome="committed")
    metrics.planned(1, 2)
    metrics.finished(1, outcome="delivered")
    metrics.unusable(1, reason="undecodable")
    metrics.postponed(1, tier=1, reason="retry")
    metrics.attempt(0.1, status=200, result="delivered")
    metrics.in_flight(1)
    metrics.waiting({"slot": 1})
    metrics.uncommitted(1)
    metrics.holding(True)
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        if family.name != "target":
            found[family.name + ("_total" if family.type == "counter" else "")] = family.type
    metrics.close()
    listed = {row[1].strip(" `"): row[2].strip() for row in table()}
    assert listed == {name: kind for name, kind in found.items() if name != "target_info"}
    plain = CampaignMetrics()
    instruments = {one.name for one in vars(plain).values() if hasattr(one, "name") and hasattr(one, "unit")}
    plain.close()
    assert {row[0].strip(" `") for row in table()} == instruments
