"""Check of a row against its expectations: every contact, every header, the audit, the bill."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from output_verifier import PREFIX
from scoring_harness import FEATURES

from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.scoring import Model

if TYPE_CHECKING:
    from output_verifier import Output
    from support_behaviour import Amount
    from support_behaviour_play import Case

_IMPUTED: dict[str, Any] = {
    "previous_calls": 0,
    "avg_handle_time": 180.0,
    "last_contact_days": 30,
    "segment_id": "default",
}


def check(case: Case) -> None:
    """Check all expectations of a row that has been played."""
    row, stats = case.row, case.stats
    _check_outcomes(case)
    _check_states(case)
    found = _cost(case)
    expected = {"requests": row.cost.requests, "sent": row.cost.sent, "paid": row.cost.paid, "twice": row.cost.twice}
    wrong = [name for name, amount in expected.items() if not fits(found[name], amount)]
    assert not wrong, f"{', '.join(wrong)}: found {found}, expected {expected}; {stats}\n{case.journal[-10:]}"
    if row.at_least_s:
        began_at_ms = min(event["started_at"] for _, event in case.verdict.entries.values())
        assert stats.last_request_at_ms is not None
        assert stats.last_request_at_ms - began_at_ms >= row.at_least_s * 1000
    row.check(case)


def cells(case: Case) -> dict[str, str]:
    """Return the results of a row in the columns of docs/api-behaviour.md."""
    cost = _cost(case)
    amounts = {name: f"{cost[name]:,}" for name in ("sent", "paid", "twice")}
    return {"did": _did(case), "requests": _requests(case.score_requests()), **amounts}


def fits(found: int, amount: Amount) -> bool:
    """Return whether an amount is within the cost of a row."""
    return found in amount if isinstance(amount, range) else found == amount


def _cost(case: Case) -> dict[str, int]:
    stats = case.stats
    return {
        "requests": case.score_requests().total(),
        "sent": stats.contacts_asked,
        "paid": stats.contacts_scored,
        "twice": stats.contacts_scored - stats.contacts_distinct,
    }


def _check_outcomes(case: Case) -> None:
    row, verdict = case.row, case.verdict
    committed = row.committed if row.committed is not None else 0 if row.stops else len(case.fed)
    assert len(verdict.outputs) == committed - len(row.waits)
    seen = set()
    model = Model(SimulatorConfig(narrow_share=0.0, inconsistent_share=0.0))
    for source, output in verdict.outputs.items():
        key = (verdict.inputs[source].key() or b"").decode()
        seen.add(key)
        entry, _ = verdict.entries[source]
        rounds = row.rounds.get(key)
        assert (key, output.header("deferred")) == (key, None if rounds is None else str(rounds))
        if key in row.rejected:
            assert (key, output.kind) == (key, "rejected")
            assert (key, tuple(entry["reasons"])) == (key, row.rejected[key])
            status = row.status.get(key) if isinstance(row.status, Mapping) else row.status
            assert (key, output.header("error-status")) == (key, status)
        elif key in row.review:
            assert (key, output.kind) == (key, "review")
            assert (key, tuple(entry["reasons"])) == (key, row.review[key])
        else:
            assert (key, output.kind) == (key, "scores"), output.headers
            if row.tutorial_model:
                _check_score(model, output, FEATURES.decode(verdict.inputs[source].value()))
    assert (row.rejected.keys() | row.review.keys()) <= seen
    waits = {(message.key() or b"").decode(): message.headers() or [] for message in verdict.waiting.values()}
    assert {key: int(dict(headers)[PREFIX + "deferred"] or b"") for key, headers in waits.items()} == row.waits


def _check_score(model: Model, output: Output, event: dict[str, Any]) -> None:
    """The score must be the one the simulated model has for this very contact."""
    assert output.score is not None
    given = {name: value for name, value in event["features"].items() if value is not None}
    features = {name: given.get(name, impute) for name, impute in _IMPUTED.items()}
    request: dict[str, Any] = {"contacts": [{"contactId": event["contact_id"], "features": features}]}
    if output.score["model_version"] is not None:
        request["modelVersion"] = output.score["model_version"]
    _, [result] = model.score(request)
    assert abs(output.score["score"] - result["score"]) < 2e-6, event["contact_id"]  # features in another order


def _check_states(case: Case) -> None:
    row = case.row
    holds = case.holds
    assert bool(holds) == bool(row.holds) or row.may_hold, holds
    assert all(row.holds in reason for reason in holds), holds
    ended = sum(line["event"] == "circuit closed" for line in case.journal)
    assert ended == len(holds)
    if row.stops:
        assert row.stops in case.exit_line
        assert case.exit_line.startswith("stream-scorer: ")


# --- in words


def _did(case: Case) -> str:
    row, verdict = case.row, case.verdict
    parts = []
    delays = [line["reason"] for line in case.journal if line["event"] == "start delayed"]
    if delays:
        parts.append(f"waited outside its group (`{_plain(delays[0])}`), started when that was over")
    if case.holds:
        parts.append(f"circuit breaker open (`{_plain(case.holds[0])}`) until that was over")
    if case.exit_line:
        parts.append(f"ended with exit code 1 (`{_plain(case.exit_line)}`)")
    counts = Counter[str]()
    for output in verdict.outputs.values():
        counts[_outcome(output)] += 1
    parts += [f"{number:,} {outcome}" for outcome, number in sorted(counts.items(), key=_by_kind)]
    if verdict.waiting:
        parts.append(f"{len(verdict.waiting):,} left in the retry topics")
    if row.stops and not counts:
        parts.append("nothing committed")
    tokens = case.stats.tokens_issued
    if tokens > 1:
        parts.append(f"{tokens} tokens")
    return "; ".join(parts)


def _by_kind(item: tuple[str, int]) -> tuple[bool, str]:
    return not item[0].startswith("scored"), item[0]


def _outcome(output: Output) -> str:
    rounds = output.header("deferred")
    if output.score is None:
        status = output.header("error-status")
        said = f"rejected: `{output.header('error-reason')}`{f' ({status})' if status else ''}"
        return said if rounds is None else f"{said} after {rounds} retry rounds"
    reasons = ", ".join(f"`{reason}`" for reason in output.score["review_reasons"])
    said = f"to review: {reasons}" if reasons else "scored"
    return said if rounds is None else f"{said} in a retry round"


def _requests(outcomes: Counter[str]) -> str:
    total = outcomes.total()
    parts = ", ".join(f"{outcome}: {number:,}" for outcome, number in sorted(outcomes.items()))
    return f"{total:,} ({parts})" if len(outcomes) > 1 or (outcomes and "200" not in outcomes) else f"{total:,}"


def _plain(line: str) -> str:
    """Return a line of the worker for a table, without the parts that differ between runs."""
    line = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:…", line)
    return line.replace("`", "'").replace("|", "\\|")
