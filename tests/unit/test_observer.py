"""Log events, /readyz and metrics of the circuit breaker, of throttles and of waits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support_core import answered, contact, no_connection, record, server_error
from test_telemetry import samples

from stream_scorer.core.exactly_once.stall_detector import CommitPosition
from stream_scorer.core.records import Partition
from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.refusal_limit import Cause
from stream_scorer.core.scoring.request import Request
from stream_scorer.core.scoring.types import Deferred, Rejected
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.runtime.clock import Clock
from stream_scorer.scoring.circuit_breaker import CircuitBreaker, OpenReason
from stream_scorer.scoring.observer import Observer
from stream_scorer.scoring.wait_reasons import WaitReason
from stream_scorer.telemetry.meter_provider import ServiceMetrics

BEGAN_MS = 1_893_456_000_400  # 2030-01-01T00:00:00.4Z
DOWN = "the API answered with status 503"


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    def debug(self, event: str, **fields: Any) -> None:
        self.lines.append(("debug", event, fields))

    def about_breaker(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [line for line in self.lines if line[1].startswith("circuit ")]


class Harness:
    """The real breaker, observer and metrics with a simulated clock."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.log = Log()
        self.metrics = ServiceMetrics("run")
        self.clock = Clock(
            lambda: self.now, lambda: BEGAN_MS + round((self.now - 1_000.0) * 1000), lambda: 0.5, lambda: "id"
        )
        self.observe = Observer(self.log, self.metrics, self.clock, retry_topics=["retry-1"])
        self.breaker = CircuitBreaker(10.0, on_change=self.observe.breaker_changed, on_probe=self.observe.probed)
        self.quota = Quota(300)
        self.observe.partition_assigned(Partition("contact-features", 0), 0)

    def pass_s(self, seconds: float) -> None:
        self.now += seconds
        self.observe.state(in_flight=0, uncommitted=0, quota=self.quota, breaker=self.breaker.reported)

    def sample(self, name: str) -> float | None:
        return samples(self.metrics).get(name)

    def failed(self, answer: Any) -> None:
        request = Request("batch", BatchKey(None, version_from_event=False), (contact("a"),), attempts=1)
        self.observe.response_received(request, answer)


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_readyz_has_start_reason_and_next_probe(harness: Harness) -> None:
    assert harness.observe.readiness_failure() is None
    harness.breaker.trip(DOWN, harness.now)
    assert (
        harness.observe.readiness_failure()
        == f"circuit open: {DOWN}; since 2030-01-01T00:00:00Z (0 s); next probe in 10 s"
    )
    harness.pass_s(10.5)
    assert (
        harness.observe.readiness_failure()
        == f"circuit open: {DOWN}; since 2030-01-01T00:00:00Z (10 s); next probe in 0 s"
    )
    harness.breaker.probe_failed("no connection to api", harness.now, until=harness.now + 75.0)
    harness.pass_s(60.0)
    assert harness.observe.readiness_failure() == (
        "circuit open: no connection to api; since 2030-01-01T00:00:00Z (70 s); next probe in 15 s"
    )
    harness.breaker.reset()
    assert harness.observe.readiness_failure() is None


def test_an_ignored_retry_after_is_one_warning_in_the_life_of_the_process(harness: Harness) -> None:
    for value in ("", "soon", "-1", "soon"):
        harness.failed(replace(server_error(), ignored_retry_after=value))
    said = [line for line in harness.log.lines if line[1] == "retry-after ignored"]
    assert said == [
        ("warning", "retry-after ignored", {"detail": "the header is unreadable, not positive or over a day: soon"})
    ]


def test_one_line_for_each_change_and_none_for_a_probe(harness: Harness) -> None:
    harness.breaker.trip(DOWN, harness.now)
    for _ in range(6):
        harness.pass_s(10.0)
        harness.breaker.probe_failed(DOWN, harness.now)
    harness.pass_s(10.0)
    harness.breaker.probe_failed("no connection to api", harness.now)
    harness.pass_s(10.0)
    harness.breaker.reset()
    since = {"reason": "api", "since": "2030-01-01T00:00:00Z"}
    assert harness.log.about_breaker() == [
        ("warning", "circuit opened", {**since, "detail": DOWN, "next_probe_in_s": 10.0, "for_s": 0.0}),
        (
            "warning",
            "circuit reason changed",
            {**since, "detail": "no connection to api", "next_probe_in_s": 10.0, "for_s": 70.0},
        ),
        ("info", "circuit closed", {**since, "detail": "no connection to api", "after_s": 80.0, "probes": 7}),
    ]


def test_a_failure_reported_by_the_open_breaker_is_not_logged_for_its_probes(harness: Harness) -> None:
    harness.failed(server_error(503))
    harness.breaker.trip(DOWN, harness.now)
    harness.failed(server_error(503))
    harness.failed(no_connection())
    harness.failed(answered(["a"]))
    details = [fields["detail"] for _, event, fields in harness.log.lines if event == "scoring request failed"]
    assert details == [server_error(503).message, no_connection().message]  # type: ignore[union-attr]


def test_metrics_of_a_hold(harness: Harness) -> None:
    label = '{reason="api"}'
    harness.breaker.trip(DOWN, harness.now)
    assert harness.sample(f"stream_scorer_circuit_breaker_open{label}") == 1
    harness.pass_s(4.0)
    assert harness.sample(f"stream_scorer_circuit_breaker_open_time_seconds{label}") == 4.0
    assert harness.sample(f"stream_scorer_circuit_breaker_next_probe_seconds{label}") == 6.0
    harness.breaker.probe_failed(DOWN, harness.now)
    harness.breaker.probe_failed(DOWN, harness.now)
    harness.breaker.reset()
    assert harness.sample(f"stream_scorer_circuit_breaker_open{label}") == 0
    assert harness.sample(f"stream_scorer_circuit_breaker_open_time_seconds{label}") == 0
    assert harness.sample(f"stream_scorer_circuit_breaker_next_probe_seconds{label}") == 0
    assert harness.sample('stream_scorer_circuit_breaker_probes_total{outcome="failed"}') == 2
    assert harness.sample('stream_scorer_circuit_breaker_probes_total{outcome="recovered"}') == 1


def test_the_breaker_of_a_version_alone_is_logged_and_counted_and_the_worker_stays_ready(harness: Harness) -> None:
    harness.observe.version_breaker_changed("v1", DOWN, opened=1)
    assert harness.sample("stream_scorer_circuit_breaker_versions") == 1
    assert harness.observe.readiness_failure() is None
    harness.observe.version_breaker_changed("v1", None, opened=0)
    assert harness.sample("stream_scorer_circuit_breaker_versions") == 0
    assert harness.log.lines[-2:] == [
        ("warning", "version circuit opened", {"model_version": "v1", "detail": DOWN}),
        ("info", "version circuit half-open", {"model_version": "v1"}),
    ]


def test_the_limit_of_rejections_counts_each_contact_and_logs_each_cause_once_a_minute(harness: Harness) -> None:
    cause = Cause("refused_by_api", 400, None)
    for count in range(21, 24):
        harness.observe.refusal_limit_reached(cause, count, is_held=False)
    harness.observe.refusal_limit_reached(cause._replace(status=None), 21, is_held=True)
    harness.now += 60.0
    harness.observe.refusal_limit_reached(cause, 24, is_held=True)
    lines = [(level, event, fields["contacts"]) for level, event, fields in harness.log.lines if "limit" in event]
    assert lines == [
        ("warning", "contacts rejected over the limit", 21),
        ("error", "contacts held over the limit", 21),
        ("error", "contacts held over the limit", 24),
    ]
    of = 'stream_scorer_refusals_over_limit_total{model_version="",outcome="%s",reason="refused_by_api",status="%s"}'
    assert [harness.sample(of % one) for one in (("rejected", "400"), ("held", "400"), ("held", ""))] == [3, 1, 1]


def test_controls_and_deferred_contacts_are_counted(harness: Harness) -> None:
    harness.observe.control_sent()
    deferred = [Deferred(record(offset), "a", rounds=1, level=1, not_before_ms=0) for offset in range(3)]
    harness.observe.published(deferred, records=3)
    assert harness.sample("stream_scorer_controls_total") == 1
    assert harness.sample('stream_scorer_contacts_total{outcome="deferred",reason="1"}') == 3


def test_a_throttle_has_the_time_of_the_next_request(harness: Harness) -> None:
    harness.breaker.throttle(OpenReason.SPEND_LIMIT, "spend_limit", harness.now, harness.now + 40.0)
    harness.pass_s(4.0)
    assert harness.observe.readiness_failure() is None
    assert harness.sample('stream_scorer_circuit_breaker_open{reason="spend_limit"}') == 0
    harness.now += 1.0
    harness.breaker.throttle(OpenReason.SPEND_LIMIT, "spend_limit", harness.now, 1_040.0)
    harness.pass_s(5.0)
    assert (
        harness.observe.readiness_failure()
        == "throttled: spend_limit; since 2030-01-01T00:00:00Z (10 s); next request in 30 s"
    )
    assert harness.sample('stream_scorer_circuit_breaker_open{reason="spend_limit"}') == 1
    assert harness.sample('stream_scorer_circuit_breaker_next_probe_seconds{reason="spend_limit"}') == 30.0
    harness.breaker.clear_throttle()
    assert harness.sample('stream_scorer_circuit_breaker_open{reason="spend_limit"}') == 0
    assert [(level, event) for level, event, _ in harness.log.about_breaker()] == [
        ("info", "circuit throttled"),
        ("info", "circuit closed"),
    ]
    assert harness.log.about_breaker()[0][2]["next_request_in_s"] == 35.0


def test_a_hold_that_follows_a_pause_takes_its_place_in_one_line(harness: Harness) -> None:
    harness.breaker.throttle(OpenReason.QUOTA, "quota: own_quota", harness.now, harness.now + 60.0)
    harness.now += 6.0
    harness.breaker.throttle(OpenReason.QUOTA, "quota: own_quota", harness.now, harness.now + 54.0)
    harness.breaker.trip(DOWN, harness.now)
    assert [(event, fields["reason"]) for _, event, fields in harness.log.about_breaker()] == [
        ("circuit throttled", "quota"),
        ("circuit opened", "api"),
    ]
    assert harness.sample('stream_scorer_circuit_breaker_open{reason="quota"}') == 0
    assert harness.sample('stream_scorer_circuit_breaker_open{reason="api"}') == 1


def test_kafka_is_a_cause_too(harness: Harness) -> None:
    harness.observe.commit_blocked("the coordinator is away")
    harness.pass_s(3.0)
    harness.observe.commit_blocked("the coordinator is away")
    assert harness.observe.readiness_failure() == "kafka: the coordinator is away; since 2030-01-01T00:00:00Z (3 s)"
    assert harness.sample('stream_scorer_circuit_breaker_open{reason="kafka"}') == 1
    assert harness.sample('stream_scorer_circuit_breaker_open_time_seconds{reason="kafka"}') == 3.0
    harness.breaker.trip(DOWN, harness.now)
    assert (harness.observe.readiness_failure() or "").startswith("circuit open: ")
    assert harness.sample('stream_scorer_circuit_breaker_open{reason="kafka"}') == 1, "two causes may hold at once"
    harness.observe.commit_blocked(None)
    assert harness.sample('stream_scorer_circuit_breaker_open{reason="kafka"}') == 0
    assert [event for _, event, _ in harness.log.lines if "transaction" in event] == [
        "transaction failed",
        "transactions recovered",
    ]


def test_waits_are_summed_up_by_reason(harness: Harness) -> None:
    for reason in (WaitReason.OWN_QUOTA, WaitReason.OWN_QUOTA, WaitReason.BACKOFF, None, WaitReason.OWN_QUOTA):
        harness.observe.wait_observed(reason)
        harness.pass_s(0.25)
    harness.observe.wait_observed(None)
    harness.pass_s(0.25)
    assert harness.sample('stream_scorer_requests_wait_time_seconds_total{reason="own_quota"}') == 0.75
    assert harness.sample('stream_scorer_requests_wait_time_seconds_total{reason="backoff"}') == 0.25


def test_the_quota_is_measured(harness: Harness) -> None:
    for _ in range(50):
        harness.quota.sent(harness.now)
        harness.quota.answered()
    harness.pass_s(5.0)
    found = samples(harness.metrics)
    assert found["stream_scorer_quota_remaining"] == 250
    assert found["stream_scorer_quota_allowed"] == 300
    assert found["stream_scorer_quota_wait_seconds"] == 0
    assert found["stream_scorer_quota_time_to_exhaustion_seconds"] == pytest.approx(50.0)


HERE = Partition("contact-features", 0)


def test_an_unexplained_stall_of_a_contact_fails_livez(harness: Harness) -> None:
    def look(seconds: int, *, wait: WaitReason | None = None, offset: int = 7) -> str | None:
        for _ in range(seconds):
            harness.now += 1.0
            harness.observe.heartbeat()
            harness.observe.wait_observed(wait)
            front = CommitPosition(HERE, offset, BEGAN_MS - 60_000)
            harness.observe.lag_observed(
                [front],
                {HERE: offset + 3},
            )
        return harness.observe.liveness_failure(120.0, 300.0)

    assert look(300) is None
    assert look(3, wait=WaitReason.CONCURRENCY_LIMIT) == "the oldest event has waited for 302 s, and no reason is known"
    assert look(1, wait=WaitReason.OWN_QUOTA) is None, "a reason explains what was before it, too"
    assert look(300) is None
    assert look(2, offset=8) is None, "it was the oldest, and another is now"
    found = samples(harness.metrics)
    assert found['stream_scorer_consumer_lag{partition="0",topic="contact-features"}'] == 3
    assert found["stream_scorer_commit_stall_time_seconds"] == 1
    assert found["stream_scorer_oldest_uncommitted_age_seconds"] == pytest.approx(60 + 606)
    harness.breaker.trip(DOWN, harness.now)
    assert look(1_000, offset=8) is None, "an open breaker explains the wait"
    harness.breaker.reset()
    harness.now += 1_000.0
    harness.observe.heartbeat()
    assert look(1, offset=8) is None, "the process stood still, not the event"
    harness.now += 121.0
    assert harness.observe.liveness_failure(120.0, 300.0) == "the loop has stood still for 121 s"


def test_a_reason_between_two_looks_is_one(harness: Harness) -> None:
    """A retry waits briefly between the batches of a steady stream; the input is checked once a second."""
    for _ in range(400):
        for wait in (WaitReason.PARTIAL_BATCH, WaitReason.BACKOFF, WaitReason.PARTIAL_BATCH, None):
            harness.observe.wait_observed(wait)
            harness.now += 0.25
        harness.observe.heartbeat()
        harness.observe.lag_observed([CommitPosition(HERE, 7, BEGAN_MS)], {})
    assert harness.observe.liveness_failure(120.0, 300.0) is None
    assert samples(harness.metrics)["stream_scorer_commit_stall_time_seconds"] == 399


def test_a_member_without_partitions_is_ready_once_the_rebalance_is_complete(harness: Harness) -> None:
    fresh = Observer(harness.log, harness.metrics, harness.clock, 11.0)
    assert fresh.readiness_failure() == "starting: no partition assigned yet"
    fresh.rebalance_completed()
    fresh.rebalance_completed()
    assert fresh.readiness_failure() is None
    for seconds in (0.0, 10.0, 1.0, 99.0):
        harness.now += seconds
        fresh.lag_observed([], {})
        assert [event for _, event, _ in harness.log.lines].count("no partitions assigned") == (harness.now >= 1_011.0)
    harness.observe.partitions_revoked([HERE])
    assert str(harness.observe.readiness_failure()).startswith("rebalancing: ")
    assert harness.sample("stream_scorer_partitions_owned") == 0
    harness.observe.disconnected("Connect to broker failed")
    assert harness.observe.readiness_failure() == "kafka: Connect to broker failed"
    harness.observe.rebalance_completed()
    assert harness.observe.readiness_failure() is None
    harness.observe.partitions_revoked([HERE])
    assert str(harness.observe.readiness_failure()).startswith("rebalancing: ")


def test_a_member_that_gets_partitions_in_a_second_rebalance_is_not_reported_as_spare(harness: Harness) -> None:
    """Under the cooperative protocol the first assignment is often empty: the other members have to revoke first."""
    fresh = Observer(harness.log, harness.metrics, harness.clock, 11.0)
    fresh.rebalance_completed()
    harness.now += 8.0
    fresh.lag_observed([], {})
    fresh.partition_assigned(HERE, 7)
    fresh.rebalance_completed()
    harness.now += 60.0
    fresh.lag_observed([CommitPosition(HERE, 7, None)], {})
    assert "no partitions assigned" not in [event for _, event, _ in harness.log.lines]


def test_retry_partitions_are_not_counted_beside_those_that_they_go_with(harness: Harness) -> None:
    harness.observe.partition_assigned(Partition("retry-1", 0), 0)
    assert harness.sample("stream_scorer_partitions_owned") == 1
    harness.observe.partitions_revoked([Partition("retry-1", 0)])
    assert harness.sample("stream_scorer_partitions_owned") == 1


def test_deferred_contacts_are_counted_by_their_level(harness: Harness) -> None:
    harness.observe.published([Deferred(record(1), "c", 1, 2, 0), Deferred(record(2), "c", 0, 1, 0)], records=2)
    for level in ("1", "2"):
        assert harness.sample(f'stream_scorer_contacts_total{{outcome="deferred",reason="{level}"}}') == 1


def test_a_contact_is_named_at_debug_only(harness: Harness) -> None:
    one = contact("a")
    rejected = Rejected(one.record, ("unpublishable",), "too large", "a", BEGAN_MS)
    harness.observe.records_rejected([(rejected, "a")])
    [warning, debug] = harness.log.lines[-2:]
    assert warning == ("warning", "contacts rejected by broker", {"contacts": 1, "batches": 0, "batch_id": None})
    assert debug == ("debug", "contact rejected by broker", {"contact_id": "a", "source": one.record.source})


def test_progress_counts_what_is_committed_and_the_lag_of_the_features_topic_alone(harness: Harness) -> None:
    features, retry = Partition("contact-features", 0), Partition("retry-1", 0)
    harness.observe.partition_assigned(retry, 0)
    harness.observe.rebalance_completed()
    harness.observe.rebalance_completed()
    harness.pass_s(1.0)
    one = contact("a")
    rejected = Rejected(one.record, ("missing_feature",), "no age", "a", BEGAN_MS)
    harness.observe.published([rejected, Deferred(record(2), "c", 0, 1, 0)], records=2)
    positions = [CommitPosition(features, 2, None), CommitPosition(retry, 0, None)]
    for end in (None, 5, 2):
        harness.pass_s(1.0)
        ends = {retry: 1} if end is None else {retry: 1, features: end}
        harness.observe.lag_observed(positions, ends)
    harness.observe.ended()
    numbers = {"scored": 0, "review": 0, "rejected": 1, "deferred": 1, "lag": 0, "quota_used": 0, "quota_allowed": 300}
    assert harness.log.lines[-3:] == [
        ("info", "rebalance completed", {"assigned": 1, "revoked": 0, "partitions": 1}),
        ("info", "caught up", {"rate_per_s": 0.2, **numbers}),
        ("info", "totals reported", {"rate_per_s": 0.2, **numbers}),
    ]
