"""Progress of a worker: when it is reported, and the line for a terminal."""

from __future__ import annotations

import pytest

from stream_scorer.core.desk.progress import Progress, Report, ReportKind, progress_line, rate_text


def make() -> Progress:
    return Progress(("scored", "review"), ("deferred",), 0.0)


def test_a_minute_of_work_is_one_report_and_the_rate_is_that_of_the_minute() -> None:
    progress = make()
    found = []
    for second in range(1, 181):
        progress.add({"scored": 100, "deferred": 1}, float(second))
        found.append(progress.observe(5_000, float(second)))
    reports = [one for one in found if one is not None]
    assert [one.kind for one in reports] == [ReportKind.PROGRESS] * 3
    assert reports[-1] == Report(ReportKind.PROGRESS, 100.0, {"scored": 18_000, "review": 0, "deferred": 180}, 5_000)


def test_an_idle_minute_is_not_reported() -> None:
    progress = make()
    assert [progress.observe(lag, second) for second in range(0, 600, 7) for lag in (None, 0, 9)] == [None] * 258
    progress.add({"scored": 0}, 600.0)
    assert progress.observe(0, 700.0) is None


def test_the_end_of_a_backlog_is_reported_once() -> None:
    progress = make()
    progress.add({"scored": 20_000}, 4.0)
    assert progress.observe(7, 4.0) is None
    assert progress.observe(None, 4.5) is None
    assert progress.observe(0, 5.0) == Report(
        ReportKind.CAUGHT_UP, 4_000.0, {"scored": 20_000, "review": 0, "deferred": 0}, 0
    )
    progress.add({"review": 1}, 6.0)
    assert progress.observe(0, 7.0) is None


def test_a_quiet_stream_without_a_backlog_is_reported_once_a_minute() -> None:
    progress = make()
    kinds = []
    for second in range(1, 301):
        progress.add({"scored": 5}, float(second))
        if (report := progress.observe(second % 3, float(second))) is not None:
            kinds.append(report.kind)
    assert kinds == [ReportKind.CAUGHT_UP, *[ReportKind.PROGRESS] * 4]


def test_work_after_an_idle_minute_is_a_backlog_again_with_its_own_rate() -> None:
    progress = make()
    progress.add({"scored": 10}, 1.0)
    assert progress.observe(0, 1.0) is not None
    progress.add({"scored": 600}, 1_000.0)
    report = progress.observe(0, 1_002.0)
    assert report is not None
    assert (report.kind, report.rate_per_s) == (ReportKind.CAUGHT_UP, 300.0)


def test_a_minute_that_leaves_much_work_is_followed_by_caught_up() -> None:
    progress = make()
    progress.add({"scored": 1}, 1.0)
    assert progress.observe(0, 1.0) is not None
    progress.add({"scored": 500}, 30.0)
    assert progress.observe(600, 30.0) is None
    progress.add({"scored": 100}, 61.0)
    assert progress.observe(101, 61.0) == Report(
        ReportKind.PROGRESS, 10.0, {"scored": 601, "review": 0, "deferred": 0}, 101
    )
    progress.add({"scored": 101}, 62.0)
    report = progress.observe(0, 62.0)
    assert report is not None
    assert report.kind is ReportKind.CAUGHT_UP


def test_an_outage_of_ten_seconds_is_followed_by_caught_up() -> None:
    progress = make()
    progress.add({"scored": 10}, 1.0)
    assert progress.observe(0, 1.0) is not None
    for second in range(20, 31):
        assert progress.observe(4, float(second)) is None
    progress.add({"scored": 4}, 31.0)
    report = progress.observe(0, 31.0)
    assert report is not None
    assert report.kind is ReportKind.CAUGHT_UP


def test_a_wait_below_ten_seconds_is_no_backlog() -> None:
    progress = make()
    progress.add({"scored": 10}, 1.0)
    assert progress.observe(0, 1.0) is not None
    for arrival in (10, 20, 30):
        assert progress.observe(1, float(arrival)) is None
        assert progress.observe(1, arrival + 9.0) is None
        progress.add({"scored": 1}, arrival + 9.5)
        assert progress.observe(0, arrival + 9.5) is None


def test_the_totals_have_the_mean_rate() -> None:
    progress = make()
    progress.add({"scored": 90, "review": 10, "deferred": 3}, 5.0)
    assert progress.totals(None, 10.0) == Report(
        ReportKind.TOTALS, 10.0, {"scored": 90, "review": 10, "deferred": 3}, None
    )


SCORING = {
    "rate_per_s": 5009.6,
    "scored": 19_329,
    "review": 671,
    "rejected": 0,
    "deferred": 2,
    "lag": 0,
    "quota_used": 20,
    "quota_allowed": 300,
    "timestamp": "2030-01-01T00:00:00Z",
}
LINE = "5,010/s  scored 19,329  review 671  rejected 0  deferred 2  lag 0  quota 20/300"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"event": "progress reported", **SCORING}, LINE),
        ({"event": "caught up", **SCORING}, f"caught up  {LINE}"),
        ({"event": "totals reported", **SCORING, "quota_used": None, "quota_allowed": None}, None),
        (
            {"loop": "deliverer", "event": "totals reported", "rate_per_s": 0.25, "gave_up": 1, "lag": None},
            "deliverer  totals  0.2/s  gave up 1",
        ),
        ({"event": "started", "scored": 1}, None),
        ({}, None),
    ],
)
def test_the_line_of_a_terminal(event: dict[str, object], line: str | None) -> None:
    if event.get("event") == "totals reported" and "scored" in event:
        line = f"totals  {LINE.removesuffix('  quota 20/300')}"
    assert progress_line(event) == line


@pytest.mark.parametrize(
    ("rate", "text"), [(0, "0/s"), (0.3, "0.3/s"), (2.0, "2/s"), (9.96, "10.0/s"), (12.4, "12/s"), (5010, "5,010/s")]
)
def test_only_a_low_rate_has_a_fraction(rate: float, text: str) -> None:
    assert rate_text(rate) == text
