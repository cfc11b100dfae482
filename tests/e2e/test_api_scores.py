"""Contract section 5, first table: imputed features, and scores that are sent to review."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from scoring_harness import contact
from support_behaviour import Cost, Row, cases, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from support_behaviour_play import Case

pytestmark = pytest.mark.kafka

ASKED_ONCE: Final = Cost(requests=1, sent=20, paid=20)
ODD: Final = "C-000007"


def odd(score: Any, lower: Any, upper: Any) -> list[dict[str, Any]]:
    """Return the script with this score for one contact of the batch; a text is sent unchanged."""
    values: dict[str, Any] = {"score": score, "lower": lower, "upper": upper}
    edits = [
        {"do": "set", "of": {"ids": [ODD]}, "field": name, "literal" if isinstance(value, str) else "value": value}
        for name, value in values.items()
    ]
    return [fault(results=edits)]


def reviewed(row_id: str, injected: str, script: list[dict[str, Any]], *reasons: str, **more: Any) -> Row:
    return Row(id=row_id, injected=injected, faults=script, review={ODD: reasons}, cost=ASKED_ONCE, **more)


def imputed_is_said(case: Case) -> None:
    """The imputed features are listed; `support_behaviour_check` compares the score with the sent values."""
    said = {o.score["contact_id"]: o.score["imputed_features"] for o in case.verdict.outputs.values() if o.score}
    everything = ["previous_calls", "avg_handle_time", "last_contact_days", "segment_id"]
    assert said == {"none": everything, "null": ["avg_handle_time"], "all": []}


ROWS: Final = (
    Row(
        id="imputed",
        injected="a contact without any feature, one with a null, one that is complete",
        feed=(
            contact("none", features={}),
            contact(
                "null",
                features={"previous_calls": 1, "avg_handle_time": None, "last_contact_days": 2, "segment_id": "a"},
            ),
            contact("all"),
        ),
        check=imputed_is_said,
        cost=Cost(requests=1, sent=3, paid=3),
    ),
    Row(
        id="numbers",
        injected="3.0 for an integer, 200 for a number",
        feed=(
            contact(
                "numbers",
                features={"previous_calls": 3.0, "avg_handle_time": 200, "last_contact_days": 1.0, "segment_id": "a"},
            ),
        ),
        cost=Cost(requests=1, sent=1, paid=1),
    ),
    reviewed("narrow-interval", "0.5 in [0.45, 0.55] for one of 20", odd(0.5, 0.45, 0.55), "narrow_interval"),
    reviewed(
        "wide-interval",
        "0.5 in [0.1, 0.9] for one of 20, `verification.max_interval_width` 0.6",
        odd(0.5, 0.1, 0.9),
        "wide_interval",
        settings={"verification__max_interval_width": "0.6"},
    ),
    reviewed("score-out-of-range", "1.2 in [1.1, 1.3] for one of 20", odd(1.2, 1.1, 1.3), "score_out_of_range"),
    reviewed("bounds-swapped", "0.5 in [0.7, 0.3] for one of 20", odd(0.5, 0.7, 0.3), "interval_inconsistent"),
    reviewed("score-outside", "0.5 in [0.6, 0.8] for one of 20", odd(0.5, 0.6, 0.8), "interval_inconsistent"),
    reviewed(
        "bounds-not-finite",
        "0.5 in [0.3, 1e999] for one of 20: JSON, but no finite number",
        odd(0.5, 0.3, "1e999"),
        "interval_inconsistent",
    ),
    reviewed(
        "score-not-a-number",
        "`NaN` in [0.3, 0.7] for one of 20, which is no JSON; the other 19 are not bought again for it",
        odd("NaN", 0.3, 0.7),
        "score_out_of_range",
        "interval_inconsistent",
    ),
    reviewed(
        "several-review-reasons",
        "1.2 in [0.5, 0.55] for one of 20",
        odd(1.2, 0.5, 0.55),
        "narrow_interval",
        "score_out_of_range",
        "interval_inconsistent",
    ),
)


@pytest.mark.parametrize("row", cases(ROWS))
def test_row(row: Row, act_out: Callable[[Row], None]) -> None:
    act_out(row)
