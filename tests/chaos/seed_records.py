"""A valid state, and functions that plant one violation each, for `test_verifier.py`."""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha256
from typing import Any, Final

from callback_rules import CALLBACK, RECEIPT
from callbacks_harness import score
from decision_rules import DECISION
from expected_state import PREFIX, ExpectedState, Memory, Recovery, Row
from scoring_harness import AUDIT, SCORE, Commit, contact

CONTACTS: Final = 8
_PARTITIONS: Final = 2


def row(kind: str, offset: int, key: str, value: bytes | None, partition: int = 0, **headers: str) -> Row:
    given = tuple((PREFIX + name.replace("_", "-"), text.encode()) for name, text in headers.items())
    return Row(kind, partition, offset, key.encode(), value, given)


def audit_event(sequence: int, previous: bytes, contacts: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    said = [entry["outcome"] for entry in contacts]
    event = {
        "batch_id": f"batch-{sequence}",
        "chain_id": "chain",
        "sequence": sequence,
        "previous_hash": previous,
        "hash": b"",
        "model_id": "m",
        "model_version": None,
        "request_contacts": len(contacts),
        "started_at": 1,
        "finished_at": 2,
        "latency_ms": 1.0,
        "attempts": 1,
        "api_status": 200,
        "correlation_id": None,
        "counts": {
            "received": len(said),
            "scored": said.count("SCORED"),
            "review": said.count("REVIEW"),
            "rejected": said.count("REJECTED"),
        },
        "contacts": contacts,
        **changes,
    }
    return {**event, "hash": sha256(AUDIT.body(event)).digest()}


def entry(source: str, contact_id: str, outcome: str) -> dict[str, Any]:
    numbers: dict[str, Any] = {"score": 0.9, "confidence_lower": 0.4, "confidence_upper": 0.95}
    if outcome == "REJECTED":
        numbers = dict.fromkeys(numbers)
    reasons = ["undecodable"] if outcome == "REJECTED" else []
    return {
        **numbers,
        "source": source,
        "contact_id": contact_id,
        "outcome": outcome,
        "imputed_features": [],
        "reasons": reasons,
        "event_id": "e",
        "features_hash": None,
        "reused_from": None,
        "billed": True,
    }


def valid_state() -> ExpectedState:
    """Eight good contacts on two partitions, the last one rejected; two audit events; one callback for all seven."""
    rows: dict[str, list[Row]] = defaultdict(list)
    rows |= {kind: [] for kind in ("review", "callbacks", "receipts")}
    events: list[list[dict[str, Any]]] = [[], []]
    for number in range(CONTACTS):
        name, partition, offset = f"C{number}", number % _PARTITIONS, number // _PARTITIONS
        given = contact(name)
        rows["features"].append(row("features", offset, name, given.value, partition))
        source, batch, last = rows["features"][-1].place, number // 4, number == CONTACTS - 1
        kind, value = ("rejected", given.value) if last else ("scores", SCORE.encode(score(name)))
        rows[kind].append(row(kind, len(rows[kind]), name, value, source=source, batch=f"batch-{batch}"))
        events[batch].append(entry(source, name, "REJECTED" if last else "SCORED"))
    previous = b""
    for sequence, entries in enumerate(events):
        event = audit_event(sequence, previous, entries)
        previous = event["hash"]
        rows["audit"].append(row("audit", sequence, "chain", AUDIT.encode(event)))
    due = [one.place for one in rows["scores"]]
    rows["callbacks"].append(row("callbacks", 0, "call", callback("call", due)))
    rows["receipts"].append(row("receipts", 0, "call", receipt("call", due)))
    account = {f"C{number}": 1 for number in range(CONTACTS - 1)}
    commits = {number: Commit(CONTACTS // _PARTITIONS, "start=0") for number in range(_PARTITIONS)}
    good = {name.encode() for name in account}
    return ExpectedState(dict(rows), commits, account, group_id="group", campaign=True, good=good)


def callback(callback_id: str, sources: list[str], body: bytes = b"") -> bytes:
    lists = {"sources": sources, "event_ids": [], "contact_ids": []}
    times = {"planned_at": 1, "attempts": 0, "not_before": 1}
    return CALLBACK.encode(
        {"callback_id": callback_id, "campaign_id": None, "target": "t", "body": body, **lists, **times}
    )


def receipt(callback_id: str, sources: list[str]) -> bytes:
    lists = {"sources": sources, "event_ids": [], "contact_ids": []}
    end = {
        "outcome": "DELIVERED",
        "attempts": 1,
        "http_status": 200,
        "finished_at": 1,
        "latency_ms": 1.0,
        "threshold": 0.5,
    }
    return RECEIPT.encode({"callback_id": callback_id, "campaign_id": None, "target": "t", **lists, **end})


def rewrite_audit(state: ExpectedState, index: int, **changes: Any) -> None:
    """Change the content and keep the old hash, or set the given ``hash``."""
    kept = state.rows["audit"][index]
    event = {**AUDIT.decode(kept.value), **changes}
    state.rows["audit"][index] = kept._replace(value=AUDIT.encode(event))


def rewrite_outcome(state: ExpectedState, index: int, outcome: str) -> None:
    """Change the outcome of the first contact of an audit event and keep the chain valid."""
    events = [AUDIT.decode(one.value) for one in state.rows["audit"]]
    events[index]["contacts"][0]["outcome"] = outcome
    state.rows["audit"].clear()
    previous = b""
    for sequence, event in enumerate(events):
        made = audit_event(sequence, previous, event["contacts"])
        previous = made["hash"]
        state.rows["audit"].append(row("audit", sequence, "chain", AUDIT.encode(made)))


def lose(state: ExpectedState) -> None:
    del state.rows["scores"][2]


def double(state: ExpectedState) -> None:
    state.rows["scores"].append(state.rows["scores"][2]._replace(offset=99))


def show_on_two_topics(state: ExpectedState) -> None:
    state.rows["review"].append(state.rows["scores"][2]._replace(topic="review"))


def swap(state: ExpectedState) -> None:
    rows = state.rows["scores"]
    rows[0], rows[2] = rows[0]._replace(offset=2), rows[2]._replace(offset=0)


def show_early(state: ExpectedState) -> None:
    state.commits[0] = Commit(3, "start=0")


def leave_work(state: ExpectedState) -> None:
    extra = contact("C-late")
    state.rows["features"].append(row("features", CONTACTS // _PARTITIONS, "C-late", extra.value))


def drop_audit(state: ExpectedState) -> None:
    del state.rows["audit"][1]


def drop_first_audit(state: ExpectedState) -> None:
    del state.rows["audit"][0]


def double_audit(state: ExpectedState) -> None:
    first = AUDIT.decode(state.rows["audit"][1].value)
    again = audit_event(2, first["hash"], first["contacts"])
    state.rows["audit"].append(row("audit", 2, "chain", AUDIT.encode(again)))


def forge_audit(state: ExpectedState) -> None:
    rewrite_audit(state, 0, attempts=7)


def take_other_key(state: ExpectedState) -> None:
    state.rows["audit"][0] = state.rows["audit"][0]._replace(key=b"other")


def cut_link(state: ExpectedState) -> None:
    event = AUDIT.decode(state.rows["audit"][1].value)
    forged = audit_event(1, b"elsewhere", event["contacts"])
    state.rows["audit"][1] = state.rows["audit"][1]._replace(value=AUDIT.encode(forged))


def change_score(state: ExpectedState) -> None:
    state.rows["scores"][2] = state.rows["scores"][2]._replace(value=SCORE.encode(score("C2", 0.8)))


def answer_about_another(state: ExpectedState) -> None:
    state.rows["scores"][2] = state.rows["scores"][2]._replace(value=SCORE.encode(score("C5")))


def change_rejected(state: ExpectedState) -> None:
    state.rows["rejected"][0] = state.rows["rejected"][0]._replace(value=b"other")


def take_other_batch(state: ExpectedState) -> None:
    kept = state.rows["scores"][2]
    state.rows["scores"][2] = row("scores", kept.offset, "C2", kept.value, source="features/0/1", batch="batch-9")


def hide_source(state: ExpectedState) -> None:
    state.rows["scores"][2] = state.rows["scores"][2]._replace(headers=())


def pay_twice(state: ExpectedState) -> None:
    state.account = {**(state.account or {}), "C1": 3, "stranger": 1}


def pay_nothing(state: ExpectedState) -> None:
    state.account = {name: times for name, times in (state.account or {}).items() if name != "C1"}


def plan_twice(state: ExpectedState) -> None:
    state.rows["callbacks"].append(row("callbacks", 1, "again", callback("again", ["scores/0/2"])))


def receive_twice(state: ExpectedState) -> None:
    state.rows["receipts"].append(state.rows["receipts"][0]._replace(offset=1))


def lose_receipt(state: ExpectedState) -> None:
    state.rows["receipts"].clear()


def receive_undue(state: ExpectedState) -> None:
    state.rows["receipts"].append(row("receipts", 1, "other", receipt("other", ["scores/1/7"])))


def recover_late(state: ExpectedState) -> None:
    state.recoveries.append(Recovery("broker killed", 31.0, 30.0))


def fail_needlessly(state: ExpectedState) -> None:
    state.needless_failures = 1


def grow(state: ExpectedState) -> None:
    state.memory.append(Memory("worker one", tuple(100.0 + 10 * n for n in range(30))))


def reject_a_good_one(state: ExpectedState) -> None:
    """Reject a valid contact, with consistent records."""
    state.good = {*state.good, f"C{CONTACTS - 1}".encode()}


def wait(state: ExpectedState, offset: int = CONTACTS // _PARTITIONS, *, group: str = "group", at: int = 0) -> None:
    """Put a contact of partition 0 into a retry topic; a later one is committed first."""
    known = {one.place for one in state.rows["features"]}
    if f"features/0/{offset}" not in known:
        state.rows["features"].append(row("features", offset, "C-wait", contact("C-wait").value))
        state.commits[0] = Commit(offset + 1, "start=0")
    [of] = [one for one in state.rows["features"] if one.place == f"features/0/{offset}"]
    given = {"source": of.place, "deferred": "1", "not_before": "1", "group": group}
    assert of.key is not None
    state.rows.setdefault("retry-1", []).append(row("retry-1", at, of.key.decode(), of.value, **given))


def wait_twice(state: ExpectedState) -> None:
    wait(state)
    wait(state, at=1)


def wait_finished(state: ExpectedState) -> None:
    wait(state, 1)


def wait_for_another_group(state: ExpectedState) -> None:
    wait(state, group="another")


def lose_a_retry(state: ExpectedState) -> None:
    wait(state)
    state.retry_commits["retry-1", 0] = 1


def wait_early(state: ExpectedState) -> None:
    wait(state)
    state.commits[0] = Commit(CONTACTS // _PARTITIONS, "start=0")


def change_what_waits(state: ExpectedState) -> None:
    wait(state)
    state.rows["retry-1"][0] = state.rows["retry-1"][0]._replace(value=b"other")


def decide(state: ExpectedState, action: str, place: str, result: str, number: int = 0, **changes: str) -> None:
    """Add a decision whose id has this number."""
    fields = {"decision_id": f"d-{number}", "place": place, "topic_id": None, "action": action, "job": "j"}
    others = {"operator": "ada", "note": "", "decided_at": 1, "result_place": result, "changes": changes}
    at = len(state.rows.setdefault("decisions", []))
    state.rows["decisions"].append(row("decisions", at, place, DECISION.encode({**fields, **others})))


def replay(
    state: ExpectedState,
    *,
    times: int = 1,
    decided: bool = True,
    value: bytes | None = None,
    key: str | None = None,
    changes: dict[str, str] | None = None,
) -> None:
    """Replay the rejected contact, which is then pending: valid if it is decided and occurs once."""
    of = state.rows["rejected"][0]
    assert of.key is not None
    key, value = key or of.key.decode(), value or of.value
    for number in range(times):
        offset = CONTACTS // _PARTITIONS + number
        state.rows["features"].append(row("features", offset, key, value, replay_of=of.place))
        state.commits[0] = Commit(offset + 1, "start=0")
        given = {"source": f"features/0/{offset}", "deferred": "1", "not_before": "1", "group": "group"}
        state.rows.setdefault("retry-1", []).append(row("retry-1", number, key, value, **given))
        if decided:
            decide(state, "REPLAYED", of.place, f"features/0/{offset}", number, **(changes or {}))


def replay_twice(state: ExpectedState) -> None:
    replay(state, times=2)


def replay_another_value(state: ExpectedState) -> None:
    replay(state, value=b"other")


def replay_another_key(state: ExpectedState) -> None:
    replay(state, key="other", changes={"age": "40"})


def replay_undecided(state: ExpectedState) -> None:
    replay(state, decided=False)


def decide_without_a_record(state: ExpectedState) -> None:
    decide(state, "REPLAYED", "rejected/0/0", "features/0/1")


def accept(state: ExpectedState, *, times: int = 1, points: float = 0.9) -> None:
    """Move the first score to review and accept it."""
    kept = state.rows["scores"].pop(0)
    scored = SCORE.decode(kept.value)
    value = SCORE.encode({**scored, "review_reasons": ["wide_interval"]})
    state.rows["review"].append(kept._replace(topic="review", value=value))
    rewrite_outcome(state, 0, "REVIEW")
    for number in range(times):
        headers = (*kept.headers, (f"{PREFIX}decision", f"d-{number}".encode()), (f"{PREFIX}decided-at", b"1"))
        state.rows["scores"].append(
            kept._replace(offset=90 + number, value=SCORE.encode({**scored, "score": points}), headers=headers)
        )
        decide(state, "ACCEPTED", f"review/0/{number}", f"scores/0/{90 + number}", number)


def accept_twice(state: ExpectedState) -> None:
    accept(state, times=2)


def accept_another_score(state: ExpectedState) -> None:
    accept(state, points=0.8)


def redeliver(
    state: ExpectedState,
    number: int = 0,
    *,
    place: str = "callbacks-rejected/0/0",
    callback_id: str = "call",
    body: bytes = b"",
    retargeted: str | None = None,
) -> None:
    """Deliver the callback again: valid if it occurs once with the planned content."""
    due, at, decision = [one.place for one in state.rows["scores"]], 10 + number, f"d-{number}"
    for kind, value in (("callbacks", callback(callback_id, due, body)), ("receipts", receipt(callback_id, due))):
        state.rows[kind].append(row(kind, at, callback_id, value, decision=decision, decided_at="1"))
    changes = {} if retargeted is None else {"retargeted": retargeted}
    decide(state, "REDELIVERED", place, f"callbacks/0/{at}", number, **changes)


def redeliver_twice(state: ExpectedState) -> None:
    for number in (0, 1):
        redeliver(state, number)


def redeliver_undecided(state: ExpectedState) -> None:
    redeliver(state)
    state.rows["decisions"].clear()


def decide_without_a_callback(state: ExpectedState) -> None:
    decide(state, "REDELIVERED", "callbacks-rejected/0/0", "callbacks/0/10")


def redeliver_once_more(state: ExpectedState) -> None:
    redeliver(state)
    state.rows["callbacks"].append(state.rows["callbacks"][-1]._replace(offset=11))


def redeliver_under_another_id(state: ExpectedState) -> None:
    redeliver(state, callback_id="other")


def redeliver_another_body(state: ExpectedState) -> None:
    redeliver(state, body=b"other")


def retarget_another_callback(state: ExpectedState) -> None:
    redeliver(state, callback_id="new", retargeted="elsewhere")


def receive_redelivery_twice(state: ExpectedState) -> None:
    redeliver(state)
    state.rows["receipts"].append(state.rows["receipts"][-1]._replace(offset=11))


def lose_receipt_of_redelivery(state: ExpectedState) -> None:
    redeliver(state)
    del state.rows["receipts"][-1]


def receive_redelivery_under_another_id(state: ExpectedState) -> None:
    redeliver(state)
    kept = state.rows["receipts"][-1]
    sources = [one.place for one in state.rows["scores"]]
    state.rows["receipts"][-1] = kept._replace(value=receipt("other", sources))


def receive_redelivery_of_a_part(state: ExpectedState) -> None:
    redeliver(state)
    state.rows["receipts"][-1] = state.rows["receipts"][-1]._replace(value=receipt("call", ["scores/0/0"]))


def receive_undecided(state: ExpectedState) -> None:
    redeliver(state)
    del state.rows["callbacks"][-1]


PLANTED: Final = (
    (redeliver_twice, "decided twice", "callbacks-rejected/0/0"),
    (redeliver_undecided, "undecided", "callbacks/0/10"),
    (decide_without_a_callback, "unpublished", "callbacks-rejected/0/0"),
    (redeliver_once_more, "redelivered twice", "callbacks/0/11"),
    (redeliver_once_more, "undecided", "callbacks/0/11"),
    (redeliver_under_another_id, "mismatch", "callbacks/0/10"),
    (redeliver_another_body, "mismatch", "callbacks/0/10"),
    (retarget_another_callback, "mismatch", "callbacks/0/10"),
    (receive_redelivery_twice, "receipt twice", "receipts/0/11"),
    (lose_receipt_of_redelivery, "no receipt", "callbacks/0/10"),
    (receive_redelivery_under_another_id, "mismatch", "receipts/0/10"),
    (receive_redelivery_of_a_part, "mismatch", "receipts/0/10"),
    (receive_undecided, "receipt undue", "receipts/0/10"),
    (replay_twice, "decided twice", "rejected/0/0"),
    (replay_another_value, "mismatch", "features/0/4"),
    (replay_another_key, "mismatch", "features/0/4"),
    (replay_undecided, "undecided", "features/0/4"),
    (decide_without_a_record, "unpublished", "rejected/0/0"),
    (accept_twice, "accepted twice", "scores/0/91"),
    (accept_another_score, "mismatch", "scores/0/90"),
    (lose, "lost", "features/0/1"),
    (double, "doubled", "scores/0/99"),
    (show_on_two_topics, "doubled", "review/0/2"),
    (swap, "reordered", "scores/0/2"),
    (show_early, "early", "features/0/3"),
    (leave_work, "stuck", "partition 0"),
    (drop_audit, "unaudited", "features/0/2"),
    (drop_first_audit, "chain", "audit/0/1"),
    (double_audit, "audited twice", "audit/0/2"),
    (forge_audit, "chain", "audit/0/0"),
    (take_other_key, "chain", "audit/0/0"),
    (cut_link, "chain", "audit/0/1"),
    (change_score, "mismatch", "scores/0/2"),
    (answer_about_another, "mismatch", "scores/0/2"),
    (change_rejected, "mismatch", "rejected/0/0"),
    (take_other_batch, "mismatch", "scores/0/2"),
    (hide_source, "unreadable", "scores/0/2"),
    (pay_twice, "overpaid", "the API's account (worst: C1)"),
    (pay_nothing, "unpaid", "C1"),
    (plan_twice, "planned twice", "callbacks/0/1"),
    (receive_twice, "receipt twice", "receipts/0/1"),
    (lose_receipt, "no receipt", "scores/0/2"),
    (receive_undue, "receipt undue", "scores/1/7"),
    (recover_late, "slow", "broker killed"),
    (fail_needlessly, "failed", "transactions"),
    (grow, "grew", "worker one"),
    (reject_a_good_one, "good contact rejected", "rejected/0/0"),
    (wait_twice, "waits twice", "retry-1/0/1"),
    (wait_finished, "waits finished", "retry-1/0/0"),
    (wait_for_another_group, "lost", "features/0/4"),
    (lose_a_retry, "lost", "features/0/4"),
    (wait_early, "early", "features/0/4"),
    (change_what_waits, "mismatch", "retry-1/0/0"),
)
