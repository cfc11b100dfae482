"""Rules of the verifier for the decisions of operators."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from scoring_harness import SCORE, Avro

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expected_state import ExpectedState, Row

DECISION = Avro("decision.avsc")
# What each action publishes, by the kind of topic.
PUBLISHES = {"REPLAYED": "features", "ACCEPTED": "scores", "REDELIVERED": "callbacks"}


def is_decided(row: Row) -> bool:
    """Return whether a decision published it: such a score is no outcome, such a callback no plan."""
    return row.own_header("decision") is not None


def decisions_of(state: ExpectedState) -> list[dict[str, Any]]:
    """The decisions about records."""
    decisions: list[dict[str, Any]] = [DECISION.decode(row.value) for row in state.rows.get("decisions", [])]
    return [one for one in decisions if one["action"] != "JOB"]


def broken_decisions(state: ExpectedState) -> Iterator[tuple[str, str, str]]:
    """Yield kind, location and text of every violation."""
    decisions = decisions_of(state)
    for place, times in Counter(one["place"] for one in decisions).items():
        if times > 1:
            yield "decided twice", place, f"has {times} decisions"
    topics = set(PUBLISHES.values())
    published = {row.place: row for kind in topics for row in state.rows.get(kind, []) if _is_marked(row)}
    results = {one["result_place"]: one for one in decisions if one["action"] in PUBLISHES}
    for place in published.keys() - results.keys():
        yield "undecided", place, "was published by a decision that is not there"
    for place in results.keys() - published.keys():
        yield "unpublished", results[place]["place"], f"was decided, and {place} is not what it published"
    for place in published.keys() & results.keys():
        decision, row = results[place], published[place]
        if row.own_header("replay-of") not in (None, decision["place"]) or row.own_header("decision") not in (
            None,
            decision["decision_id"],
        ):
            yield "undecided", place, f"names another decision than {decision['decision_id']}"
        elif decision["action"] == "REPLAYED":
            yield from _broken_replay(state, decision, row)
    yield from _broken_acceptances(state)


def _is_marked(row: Row) -> bool:
    """Return whether it is a replayed contact, an accepted score, or a redelivered callback."""
    return is_decided(row) or (row.own_header("replay-of") is not None and row.own_header("source") is None)


def _broken_replay(state: ExpectedState, decision: dict[str, Any], row: Row) -> Iterator[tuple[str, str, str]]:
    """A contact is replayed byte for byte unless the decision has changes; a truncated one from its source."""
    for rejected in state.rows["rejected"]:
        if rejected.place != decision["place"] or rejected.own_header("error-truncated") is not None:
            continue
        if row.key != rejected.key or (row.value != rejected.value and not decision["changes"]):
            yield "mismatch", row.place, f"is not, byte for byte, {rejected.place}, which was replayed"


def _broken_acceptances(state: ExpectedState) -> Iterator[tuple[str, str, str]]:
    in_review = {row.own_header("source"): row for row in state.rows["review"]}
    seen: set[str | None] = set()
    for row in filter(is_decided, state.rows["scores"]):
        source = row.own_header("source")
        if source in seen:
            yield "accepted twice", row.place, f"{source} was accepted before"
        seen.add(source)
        if source not in in_review:
            yield "undecided", row.place, f"{source} is not in review"
            continue
        if SCORE.decode(row.value) != {**SCORE.decode(in_review[source].value), "review_reasons": []}:
            yield "mismatch", row.place, f"is not the score of {source} in review"
