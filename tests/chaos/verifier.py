"""Verifier of a run: find each record that breaks the contract, with its location.

It does not stop at the first violation: a run of half an hour is not repeated for the second one. `test_verifier.py`
plants each kind of violation and sees it found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import sha256
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from callback_rules import broken_callbacks
from decision_rules import broken_decisions, is_decided
from scoring_harness import AUDIT, SCORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expected_state import ExpectedState, Row

OUTCOMES = {"scores": "SCORED", "review": "REVIEW", "rejected": "REJECTED"}
# Memory settles in the first third of a run; growth beyond this afterwards counts as a leak.
GROWTH_SHARE, GROWTH_MIB = 1.2, 24.0
_FEWEST_SAMPLES = 12


class Violation(NamedTuple):
    """A violation of the contract: kind, location, and description."""

    kind: str
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.place}: {self.text}"


def violations(state: ExpectedState) -> list[Violation]:
    """Return all violations; an empty list if the contract was kept."""
    committed = _committed(state)
    outputs, found = _by_source(state)
    entries: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    found += [*_broken_chains(state, entries)]
    waiting, twice = _waiting(state)
    found += twice
    found += [*_broken_waits(committed, outputs, entries, waiting)]
    found += [*_broken_invariant(committed, outputs, entries, waiting, state)]
    found += [*_wrongly_rejected(state)]
    found += [*_out_of_order(outputs)]
    for source in committed.keys() & outputs.keys() & entries.keys():
        found += [*_mismatches(source, committed[source], outputs[source], entries[source])]
    found += [*_overpaid(state, entries)]
    found += [Violation(*one) for one in broken_decisions(state)]
    if state.campaign:
        found += [Violation(*one) for one in broken_callbacks(state)]
    if state.needless_failures:
        found.append(Violation("failed", "transactions", f"{state.needless_failures} failed with healthy brokers"))
    for recovery in state.recoveries:
        if recovery.seconds > recovery.limit_s:
            text = f"went on after {recovery.seconds:.1f} s, {recovery.limit_s:g} s are allowed"
            found.append(Violation("slow", recovery.fault, text))
    return [*found, *_grown(state)]


def verdict(state: ExpectedState, most: int = 20) -> str:
    """Return the violations as lines, the first of each kind before the rest; empty without any."""
    found = violations(state)
    counts = Counter(violation.kind for violation in found)
    seen: Counter[str] = Counter()
    ranked = []
    for violation in found:
        seen[violation.kind] += 1
        ranked.append((seen[violation.kind], violation))
    lines = [str(violation) for _, violation in sorted(ranked, key=lambda pair: pair[0])[:most]]
    return "\n".join([", ".join(f"{number} x {kind}" for kind, number in counts.items()), *lines]) if found else ""


def _committed(state: ExpectedState) -> dict[str, Row]:
    """Return the inputs between the group's start and its committed offset, by location."""
    below = {}
    for row in state.rows["features"]:
        commit = state.commits.get(row.partition)
        if (
            commit is not None
            and int(commit.metadata.partition(";")[0].removeprefix("start=")) <= row.offset < commit.offset
        ):
            below[row.place] = row
    return below


def _by_source(state: ExpectedState) -> tuple[dict[str, tuple[str, Row]], list[Violation]]:
    outputs: dict[str, tuple[str, Row]] = {}
    found = []
    for kind in OUTCOMES:
        for row in state.rows[kind]:
            if is_decided(row):
                continue
            source = row.own_header("source")
            if source is None:
                found.append(Violation("unreadable", row.place, "an output names no source"))
            elif source in outputs:
                found.append(Violation("doubled", row.place, f"{source} is visible at {outputs[source][1].place} too"))
            else:
                outputs[source] = (kind, row)
    return outputs, found


def _waiting(state: ExpectedState) -> tuple[dict[str, Row], list[Violation]]:
    """Return the uncommitted contacts of this group in the retry topics, by source."""
    waiting: dict[str, Row] = {}
    found = []
    for kind in filter(lambda kind: kind.startswith("retry-"), state.rows):
        for row in state.rows[kind]:
            is_taken = row.offset < state.retry_commits.get((row.topic, row.partition), 0)
            if is_taken or row.own_header("group") != state.group_id:
                continue
            source = row.own_header("source") or ""
            if source in waiting:
                found.append(Violation("waits twice", row.place, f"{source} waits at {waiting[source].place} too"))
            waiting[source] = row
    return waiting, found


def _broken_waits(
    committed: dict[str, Row], outputs: dict[str, Any], entries: dict[str, Any], waiting: dict[str, Row]
) -> Iterator[Violation]:
    for source, row in waiting.items():
        if source in outputs or source in entries:
            yield Violation("waits finished", row.place, f"{source} has an outcome and waits")
        if source not in committed:
            yield Violation("early", source, f"waits at {row.place} and is not committed")
        elif (row.key, row.value) != (committed[source].key, committed[source].value):
            yield Violation("mismatch", row.place, f"is not, byte for byte, {source}")


def _broken_invariant(
    committed: dict[str, Row],
    outputs: dict[str, Any],
    entries: dict[str, Any],
    waiting: dict[str, Row],
    state: ExpectedState,
) -> Iterator[Violation]:
    for source in committed.keys() - outputs.keys() - waiting.keys():
        yield Violation("lost", source, "is committed, has no output and waits in no retry topic")
    for source in committed.keys() - entries.keys() - waiting.keys():
        yield Violation("unaudited", source, "is committed and has no audit entry")
    for source in outputs.keys() - committed.keys():
        yield Violation("early", source, f"has an output at {outputs[source][1].place} and is not committed")
    for source in entries.keys() - committed.keys():
        yield Violation("early", source, "has an audit entry and is not committed")
    ends: dict[int, int] = {}
    for row in state.rows["features"]:
        ends[row.partition] = row.offset
    for partition, last in ends.items():
        commit = state.commits.get(partition)
        if commit is None or commit.offset <= last:
            text = f"the group stands at {commit.offset if commit else 'no commit'}, the last record at {last}"
            yield Violation("stuck", f"partition {partition}", text)


def _wrongly_rejected(state: ExpectedState) -> Iterator[Violation]:
    for row in state.rows["rejected"]:
        if row.key in state.good:
            reason = row.own_header("error-reason")
            yield Violation("good contact rejected", row.place, f"{row.own_header('source')} for {reason}")


def _out_of_order(outputs: dict[str, tuple[str, Row]]) -> Iterator[Violation]:
    rows: dict[tuple[str, int, str], list[tuple[int, int, str]]] = defaultdict(list)
    for source, (_, row) in outputs.items():
        if row.own_header("deferred") is not None:
            continue
        input_partition, _, offset = source.rpartition("/")
        rows[row.topic, row.partition, input_partition].append((row.offset, int(offset), row.place))
    for (_, _, input_partition), triples in rows.items():
        highest = -1
        for _, input_offset, place in sorted(triples):
            if input_offset < highest:
                yield Violation("reordered", place, f"{input_partition}/{input_offset} stands behind {highest}")
            highest = max(highest, input_offset)


def _broken_chains(
    state: ExpectedState, entries: dict[str, tuple[dict[str, Any], dict[str, Any]]]
) -> Iterator[Violation]:
    """Verify every chain, and collect the entries by their source."""
    tips: dict[str, tuple[int, bytes]] = {}
    for row, event in state.audit_events():
        chain = event["chain_id"]
        sequence, tip = tips.get(chain, (0, b""))
        if row.key != chain.encode():
            yield Violation("chain", row.place, "the key is not the chain id")
        if (event["sequence"], event["previous_hash"]) != (sequence, tip):
            yield Violation("chain", row.place, f"sequence {event['sequence']} is not linked to {sequence - 1}")
        if event["hash"] != sha256(AUDIT.body({**event, "hash": b""})).digest():
            yield Violation("chain", row.place, "the hash is not that of its content")
        tips[chain] = (event["sequence"] + 1, event["hash"])
        counted = Counter(entry["outcome"] for entry in event["contacts"])
        counts = {name: counted[outcome] for name, outcome in zip(("scored", "review", "rejected"), OUTCOMES.values())}  # noqa: B905
        if event["counts"] != {"received": len(event["contacts"]), **counts}:
            yield Violation("mismatch", row.place, f"counts {event['counts']} are not those of its entries")
        for entry in event["contacts"]:
            if entry["source"] in entries:
                yield Violation("audited twice", row.place, f"{entry['source']} stands in another event too")
            entries[entry["source"]] = (entry, event)


def _mismatches(source: str, row: Row, output: tuple[str, Row], audit: Any) -> Iterator[Violation]:
    (kind, out), (entry, event) = output, audit
    if entry["outcome"] != OUTCOMES[kind]:
        yield Violation("mismatch", out.place, f"{source} is audited as {entry['outcome']}")
    if out.own_header("batch") != event["batch_id"]:
        yield Violation("mismatch", out.place, f"{source} is audited under another batch")
    if kind == "rejected":
        truncated = out.own_header("error-truncated")
        if out.value != (None if truncated else row.value) or (out.key != row.key and not truncated):
            yield Violation("mismatch", out.place, f"is not, byte for byte, {source}")
        return
    score = SCORE.decode(out.value)
    if not out.key == row.key == score["contact_id"].encode():
        yield Violation("mismatch", out.place, f"is about {score['contact_id']}, {source} about {row.key!r}")
    for name in ("contact_id", "score", "confidence_lower", "confidence_upper"):
        both_nan = score[name] != score[name] and entry[name] != entry[name]
        if score[name] != entry[name] and not both_nan:
            yield Violation("mismatch", out.place, f"{name} is not that of its audit entry")


def _overpaid(state: ExpectedState, entries: dict[str, Any]) -> Iterator[Violation]:
    if state.account is None:
        return
    needed: Counter[str] = Counter()
    for entry, _ in entries.values():
        # A score that the broker rejected was needed once as well.
        if entry["outcome"] != "REJECTED" or tuple(entry["reasons"]) == ("unpublishable",):
            needed[entry["contact_id"]] += 1
    for contact_id, times in needed.items():
        if state.account.get(contact_id, 0) < times:
            yield Violation(
                "unpaid", contact_id, f"has {times} scores, the API gave {state.account.get(contact_id, 0)}"
            )
    again = sum(state.account.values()) - sum(needed.values())
    if again > state.may_be_paid_again:
        worst = max(state.account, key=lambda contact_id: state.account[contact_id] - needed[contact_id])  # type: ignore[index]
        text = f"{again} contacts were paid once more, {state.may_be_paid_again} are allowed"
        yield Violation("overpaid", f"the API's account (worst: {worst})", text)


def _grown(state: ExpectedState) -> Iterator[Violation]:
    for memory in state.memory:
        third = len(memory.mib) // 3
        if len(memory.mib) < _FEWEST_SAMPLES:
            continue
        settled, last = median(memory.mib[third : 2 * third]), median(memory.mib[-third:])
        if last > settled * GROWTH_SHARE + GROWTH_MIB:
            yield Violation("grew", memory.process, f"from {settled:.0f} to {last:.0f} MiB")
