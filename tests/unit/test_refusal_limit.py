"""Limit of rejections: 20 and the share of those finished, for one cause, in ten minutes."""

from __future__ import annotations

import pytest

from stream_scorer.core.scoring.refusal_limit import Cause, RefusalLimit, Verdict

CAUSE = Cause("refused_by_api", 400, "v1")
OTHER = CAUSE._replace(status=422)


def verdicts(limit: RefusalLimit, amount: int, now: float = 0.0, cause: Cause = CAUSE) -> list[Verdict]:
    return [limit.refused(cause, now) for _ in range(amount)]


def test_contacts_above_twenty_and_the_share_are_quarantined() -> None:
    limit = RefusalLimit(0.01)
    limit.record_finished(100, 0.0)
    assert verdicts(limit, 22) == [Verdict.REJECT] * 20 + [Verdict.HOLD] * 2
    assert limit.count(CAUSE) == 22


def test_above_twenty_within_the_share_is_only_a_warning() -> None:
    limit = RefusalLimit(0.01)
    limit.record_finished(2_200, 0.0)
    assert verdicts(limit, 23) == [Verdict.REJECT] * 20 + [Verdict.WARN] * 2 + [Verdict.HOLD]


def test_each_cause_has_its_own_count() -> None:
    limit = RefusalLimit(0.01)
    for cause in (CAUSE, OTHER, CAUSE._replace(model_version=None), CAUSE._replace(reason="no_result")):
        assert set(verdicts(limit, 20, cause=cause)) == {Verdict.REJECT}


@pytest.mark.parametrize(("later", "first"), [(599.0, Verdict.HOLD), (601.0, Verdict.REJECT)])
def test_the_window_is_ten_minutes(later: float, first: Verdict) -> None:
    limit = RefusalLimit(0.01)
    verdicts(limit, 20)
    assert verdicts(limit, 1, later) == [first]


def test_contacts_finished_over_ten_minutes_ago_do_not_count() -> None:
    limit = RefusalLimit(0.01)
    limit.record_finished(1_000_000, 0.0)
    assert verdicts(limit, 21, 599.0)[-1] is Verdict.WARN
    assert verdicts(limit, 1, 602.0) == [Verdict.HOLD]


def test_finished_contacts_of_one_second_are_one_entry() -> None:
    limit = RefusalLimit(0.01)
    for tenth in range(6_000):
        limit.record_finished(1, tenth / 10)
    assert len(limit._finished) <= 601
    assert verdicts(limit, 60, 599.0)[-1] is Verdict.WARN
    assert verdicts(limit, 2, 599.0)[-1] is Verdict.HOLD


def test_a_share_of_one_rejects_all() -> None:
    limit = RefusalLimit(1.0)
    assert not limit.is_on
    assert verdicts(limit, 100)[20:] == [Verdict.WARN] * 80


def test_a_cause_names_reason_status_and_version() -> None:
    assert str(CAUSE) == "refused_by_api/400/v1"
    assert str(Cause("no_result", None, None)) == "no_result/-/"
