"""Check of the demo: outcomes of contacts against the expected ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.errors import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.reconciliation.score_report import Report
    from stream_scorer.core.scoring.types import Reason


def check_outcomes(report: Report, rejected: Mapping[str, int], generated: Mapping[Reason | None, int]) -> None:
    """Compare the reconciliation with what was generated.

    Args:
        report: the reconciliation.
        rejected: the records on the rejected topic, by reason.
        generated: the produced contacts, by expected reason for rejection; None: a score is expected.

    Raises:
        CheckFailed: the invariant does not hold, or a count differs; the message names it.
    """
    if not report.is_balanced:
        raise CheckFailed(report.verdict)
    totals = report.totals
    wanted = {reason.value: amount for reason, amount in generated.items() if reason is not None}
    counts = [
        ("contacts", totals.inputs, sum(generated.values())),
        ("contacts with a score", totals.scored + totals.review, generated.get(None, 0)),
        ("rejected contacts", totals.rejected, sum(wanted.values())),
        *((f"rejected as {reason}", rejected.get(reason, 0), amount) for reason, amount in sorted(wanted.items())),
        ("rejected for other reasons", sum(amount for reason, amount in rejected.items() if reason not in wanted), 0),
    ]
    wrong = [f"{found:,} {what} instead of {expected:,}" for what, found, expected in counts if found != expected]
    if wrong:
        raise CheckFailed(f"the outcomes are not those of the generated contacts: {'; '.join(wrong)}")
