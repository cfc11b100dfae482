"""Alerts and dashboard as files: whole, consistent, and tested by promtool where there is one.

``e2e/test_tracing.py`` checks with running services that every metric and label in them is exported.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import pairwise
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from reference_pages import PROMETHEUS_RULE, prometheus_rule
from support_dashboards import (
    DASHBOARD,
    DEPLOY,
    FROM_THE_FIRST_EVENT,
    LABELS_OF_PROMETHEUS,
    RULES,
    Expression,
    duplicate_series,
    expressions,
    missing_series,
    panels,
    rules,
)
from test_docs import REPOSITORY, anchors, rows

from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.core.records import Partition
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.runtime import metric_definitions
from stream_scorer.runtime.clock import Clock
from stream_scorer.scoring.circuit_breaker import BreakerState, OpenReason
from stream_scorer.scoring.observer import Observer
from stream_scorer.scoring.wait_reasons import WaitReason
from stream_scorer.telemetry.meter_provider import ServiceMetrics

ALERTS = [rule for rule in rules() if "alert" in rule]
TESTS = DEPLOY / "prometheus" / "tests"
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
PROMTOOL = shutil.which("promtool")


# --- reading expressions


def test_every_metric_of_an_expression_is_found() -> None:
    read = Expression(
        'sum by (job, le) (rate(a_bucket{x=~"p|q",y!="r",z=""}[5m])) / on (job) max by (job) (b:c offset 10m) > 0.5'
        " and d == 1"
    )
    first, second, third = read.selectors
    assert (first.metric, first.kept, dict(first.values)) == (
        "a_bucket",
        {"job", "le"},
        {"x": {"p", "q"}, "y": set(), "z": set()},
    )
    assert (second.metric, second.labels) == ("b:c", {"job"})
    assert third.metric == "d"
    with pytest.raises(AssertionError, match="no PromQL of ours"):
        Expression("a @ 5")
    with pytest.raises(AssertionError, match="parenthesis"):
        Expression("sum(a))")


def test_a_metric_that_is_not_exported_is_found() -> None:
    """Without any service, all but Prometheus' own metrics is missing; with one, what it does not export."""
    missing = "\n".join(missing_series([]))
    assert "rule StreamScorerCircuitOpen: stream_scorer_circuit_breaker_open_time_seconds" in missing
    assert "up" not in re.findall(r": (\w+)$", missing, re.MULTILINE)
    metric = "stream_scorer_circuit_breaker_open_time_seconds"
    missing = missing_series([f'# TYPE {metric} gauge\n{metric}{{reason="api"}} 0\n'])
    assert f"rule StreamScorerCircuitOpen: {metric} has no reason=kafka" in missing
    missing = missing_series([f"# TYPE {metric} gauge\n{metric} 0\n"])
    assert f"rule StreamScorerCircuitOpen: {metric} has no label reason" in missing


def exported_reasons(metrics: ServiceMetrics, family_name: str) -> dict[str, float]:
    exposition = metrics.exposition()[1].decode()
    assert duplicate_series(exposition) == []
    [family] = [one for one in text_string_to_metric_families(exposition) if one.name == family_name]
    return {sample.labels["reason"]: sample.value for sample in family.samples}


def test_every_reason_is_exported_once_before_its_first_count() -> None:
    """Else an alert is blind to the first time: no rate of what was absent; and to all, where a 0 stands before it."""
    metrics = ServiceMetrics("run")
    assert exported_reasons(metrics, "stream_scorer_circuit_breaker_open") == dict.fromkeys(OpenReason, 0)
    assert exported_reasons(metrics, "stream_scorer_requests_wait_time_seconds") == dict.fromkeys(WaitReason, 0)
    for cause in OpenReason:
        metrics.set(metric_definitions.CIRCUIT_BREAKER_OPEN, 1, {"reason": cause})
        metrics.set(metric_definitions.CIRCUIT_BREAKER_OPEN_TIME, 7.0, {"reason": cause})
    for wait in WaitReason:
        metrics.add(metric_definitions.REQUEST_WAIT_TIME, 2.0, {"reason": wait})
    assert exported_reasons(metrics, "stream_scorer_circuit_breaker_open") == dict.fromkeys(OpenReason, 1)
    assert exported_reasons(metrics, "stream_scorer_circuit_breaker_open_time_seconds") == dict.fromkeys(OpenReason, 7)
    assert exported_reasons(metrics, "stream_scorer_requests_wait_time_seconds") == dict.fromkeys(WaitReason, 2)
    metrics.close()


def test_what_is_exported_from_the_first_event_on_has_the_labels_that_the_rules_read() -> None:
    run, callbacks = ServiceMetrics("run"), ServiceMetrics("callbacks")
    for outcome in ("held", "rejected"):
        labels = {"reason": "refused_by_api", "status": "400", "model_version": "", "outcome": outcome}
        run.add(metric_definitions.REFUSALS_OVER_LIMIT, 1, labels)
    for status in ("open", "switched_off"):
        callbacks.set(
            metric_definitions.CAMPAIGN_BLOCKED,
            1,
            {
                "campaign_id": "spring",
                "target": "webhook https://x",
                "status": status,
                "http.response.status_code": 404,
                "remedy": "check the path",
            },
        )
    found: dict[str, dict[str, set[str]]] = {}
    for metrics in (run, callbacks):
        for family in text_string_to_metric_families(metrics.exposition()[1].decode()):
            for sample in family.samples:
                if sample.name in FROM_THE_FIRST_EVENT:
                    for label, value in sample.labels.items():
                        found.setdefault(sample.name, {}).setdefault(label, set()).add(value)
        metrics.close()
    assert {name: {label: of[label] for label in FROM_THE_FIRST_EVENT[name]} for name, of in found.items()} == (
        FROM_THE_FIRST_EVENT
    )


# --- rules


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_has_severity_summary_and_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    said = rule["annotations"]
    assert said["summary"]
    assert said["description"].endswith(".")
    page, _, anchor = said["runbook"].removeprefix("stream-scorer docs ").partition("#")
    file = REPOSITORY / "docs" / f"{page}.md"
    assert not anchor or anchor in anchors(file), said["runbook"]
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(said.values())))
    # A label that is shown is one that is left after summing up.
    assert named <= Expression(rule["expr"]).grouped | LABELS_OF_PROMETHEUS | {"loop"}


def test_every_alert_is_tested_to_fire_and_to_be_quiet() -> None:
    fires: set[str] = set()
    quiet = False
    for file in TESTS.glob("*.yml"):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for moment in test["promql_expr_test"]:
                # All that fire are compared, so an empty list is about every alert.
                assert moment["expr"].endswith('(ALERTS{alertstate="firing"})')
                quiet |= not moment["exp_samples"]
                fires |= set(re.findall(r'alertname="(\w+)"', json.dumps(moment["exp_samples"]).replace("\\", "")))
    assert quiet
    assert fires == {rule["alert"] for rule in ALERTS}
    assert len(fires) == len(ALERTS), "two alerts of one name"


def test_the_page_lists_every_alert() -> None:
    listed = [
        (name.strip("`"), severity) for name, _, severity in rows(REPOSITORY / "docs" / "operations.md", "### Alerts")
    ]
    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian, Ubuntu: apt install prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "deploy/prometheus/prometheus.yml"],
        ["test", "rules", *sorted(str(file.relative_to(REPOSITORY)) for file in TESTS.glob("*.yml"))],
    ],
    ids=["config", "rules"],
)
def test_promtool_agrees(arguments: list[str]) -> None:
    command = [str(PROMTOOL), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_asks_the_ports_of_the_services_it_names() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    [file] = config["rule_files"]
    assert (DEPLOY / "prometheus" / file).exists()
    jobs = {job["job_name"]: job.get("dns_sd_configs") for job in config["scrape_configs"]}
    for name, job, port in (("scorer", "stream-scorer", 9464), ("callbacks", "stream-scorer-callbacks", 9465)):
        [found] = jobs[job]
        assert (found["names"], found["type"], found["port"]) == ([name], "A", port)
        assert name in COMPOSE
    in_rules = {
        value for read in expressions().values() for one in read.selectors for value in one.values.get("job", ())
    }
    assert in_rules == jobs.keys() - {"prometheus"}


def test_kubernetes_has_the_same_rules_and_job_names() -> None:
    assert PROMETHEUS_RULE.read_text() == prometheus_rule(), "make reference writes it"
    assert yaml.safe_load(prometheus_rule())["spec"] == yaml.safe_load(RULES.read_text())
    monitor = yaml.safe_load((PROMETHEUS_RULE.parent / "podmonitor.yaml").read_text())["spec"]
    base = DEPLOY / "kubernetes" / "base"
    workers = [yaml.safe_load_all((base / f"{name}.yaml").read_text()) for name in ("scorer", "callbacks")]
    pods = [one["spec"]["template"] for of in workers for one in of if one["kind"] == "StatefulSet"]
    jobs = {pod["metadata"]["labels"][monitor["jobLabel"]] for pod in pods}
    assert jobs == {one for read in expressions().values() for of in read.selectors for one in of.values.get("job", ())}
    [selected] = monitor["selector"]["matchExpressions"]
    assert (selected["key"], selected["operator"], set(selected["values"])) == (monitor["jobLabel"], "In", jobs)
    [endpoint] = monitor["podMetricsEndpoints"]
    for pod in pods:
        [container] = pod["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}


def test_the_quick_alerts_are_tested_in_the_rhythm_of_prometheus() -> None:
    """A critical alert within 3 minutes of most requests failing depends on how often is scraped and evaluated."""
    rhythm = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]
    quick = yaml.safe_load((TESTS / "stream-scorer-requests.test.yml").read_text())
    assert quick["evaluation_interval"] == rhythm["evaluation_interval"]
    assert {test["interval"] for test in quick["tests"]} == {rhythm["scrape_interval"]}


# --- dashboard


class Quiet:
    """A logger that discards its events."""

    def info(self, *_: Any, **__: Any) -> None: ...

    warning = debug = info


# What /readyz begins with, and the light that is not green, for each reason of the circuit breaker.
SHOWN = {
    OpenReason.API: ("circuit open: ", "API"),
    OpenReason.QUOTA: ("throttled: ", None),
    OpenReason.SPEND_LIMIT: ("throttled: ", None),
    OpenReason.KAFKA: ("kafka: ", "Kafka"),
    OpenReason.REGISTRY: ("registry: ", "Kafka"),
}


@pytest.mark.parametrize("reason", OpenReason)
def test_readyz_breaker_and_light_agree(reason: OpenReason) -> None:
    clock = Clock(lambda: 1_000.0, lambda: 1_893_456_000_000, lambda: 0.5, lambda: "id")
    metrics = ServiceMetrics("run")
    observe = Observer(Quiet(), metrics, clock)
    observe.partition_assigned(Partition("contact-features", 0), 0)
    state = None
    if reason is OpenReason.KAFKA:
        observe.commit_blocked("no answer")
    elif reason is OpenReason.REGISTRY:
        observe.schemas_pending("no answer")
    else:
        state = BreakerState(reason, "why", 900.0, 1_010.0)
        observe.breaker_changed(None, state)
    observe.state(in_flight=0, uncommitted=0, quota=Quota(300), breaker=state)
    begins, light = SHOWN[reason]
    assert (observe.readiness_failure() or "").startswith(begins)
    reasons = exported_reasons(metrics, "stream_scorer_circuit_breaker_open")
    assert {one for one, value in reasons.items() if value} == {reason}
    lights = {
        panel["title"]
        for panel in panels()
        if panel["type"] == "stat"
        for selector in Expression(panel["targets"][0]["expr"]).selectors
        if selector.metric == "stream_scorer_circuit_breaker_open" and reason in selector.values["reason"]
    }
    assert lights == ({light} if light else set())
    for panel in panels():
        if panel["title"] in lights and panel["type"] == "stat":
            assert panel["fieldConfig"]["defaults"]["mappings"][0]["options"]["1"]["text"] == "circuit open"
    metrics.close()


def test_the_status_panels_are_green_while_the_service_is_ready() -> None:
    clock = Clock(lambda: 1_000.0, lambda: 1_893_456_000_000, lambda: 0.5, lambda: "id")
    metrics = ServiceMetrics("run")
    observe = Observer(Quiet(), metrics, clock)
    observe.partition_assigned(Partition("contact-features", 0), 0)
    assert observe.readiness_failure() is None
    assert not any(exported_reasons(metrics, "stream_scorer_circuit_breaker_open").values())
    metrics.close()


def test_the_dashboard_has_a_row_and_a_status_panel_for_each_dependency() -> None:
    content = json.loads(DASHBOARD.read_text())
    titles = [panel["title"] for panel in content["panels"] if panel["type"] == "row"]
    assert titles[1:] == ["Input", "Quota", "API", "Kafka", "Campaign", "Processes"]
    assert titles[1:-1] == [panel["title"] for panel in content["panels"][1:6]], "and a light for each in the first row"
    ids = [panel["id"] for panel in content["panels"]]
    assert len(set(ids)) == len(ids)
    tops = [panel["gridPos"]["y"] for panel in content["panels"]]
    assert all(above <= below for above, below in pairwise(tops))
    taken: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies over another one"
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_panel_asks_the_chosen_datasource_and_jobs_and_names_what_it_shows() -> None:
    content = json.loads(DASHBOARD.read_text())
    chosen = {one["name"]: one for one in content["templating"]["list"]}
    assert set(chosen) == {"datasource", "job"}
    uid = "${datasource}"
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    [port] = COMPOSE["prometheus"]["ports"]
    assert source["url"] == f"http://prometheus:{port.rsplit(':', 1)[1]}"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "stream-scorer.yaml").read_text())["providers"]
    mounts = dict(mount.split(":")[:2] for mount in COMPOSE["grafana"]["volumes"])
    assert mounts["./" + str(DASHBOARD.parent.relative_to(REPOSITORY))] == provider["options"]["path"]
    assert (chosen["datasource"]["type"], chosen["datasource"]["query"]) == ("datasource", source["type"])
    assert chosen["job"]["datasource"] == {"type": source["type"], "uid": uid}
    for panel in panels():
        assert panel["description"].endswith(".")
        for target in panel["targets"]:
            assert panel["datasource"] == target["datasource"] == {"type": source["type"], "uid": uid}
            read = Expression(target["expr"])
            assert target["expr"].count('job=~"$job"') == len(read.selectors), target["expr"]
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= (read.grouped or LABELS_OF_PROMETHEUS), target["expr"]


def test_the_campaign_light_is_red_when_most_attempts_fail_whatever_the_breaker() -> None:
    [light] = [panel for panel in panels() if panel["type"] == "stat" and panel["title"] == "Campaign"]
    left_out = [set(one.split("|")) for one in re.findall(r'result!~"([^"]*)"', light["targets"][0]["expr"])]
    # The first is empty: it leaves out the requests of the scoring service, which have no such label.
    no_attempts = {"", DeliveryKind.HELD.value, DeliveryKind.NOT_SENT.value}
    assert left_out == [no_attempts | {DeliveryKind.DELIVERED.value}, no_attempts]
    assert light["fieldConfig"]["defaults"]["thresholds"]["steps"][1] == {"color": "red", "value": 0.5}
