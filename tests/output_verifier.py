"""Verifier of the live topics against the invariant of the contract (docs/contract.md, section 1).

It shares no code with the product: plain confluent_kafka and plain fastavro, hashes computed again. It is called when
no worker runs; it waits until no transaction is open, reads the commits, everything, and the commits again.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from scoring_harness import AUDIT, FEATURES, OUTPUTS, PATIENCE_S, SCORE, wait_until

if TYPE_CHECKING:
    from confluent_kafka import Message
    from scoring_harness import ScoringHarness

PREFIX = "stream-scorer-"
TUTORIAL_FEATURES = ("previous_calls", "avg_handle_time", "last_contact_days", "segment_id")
OUTCOMES = {"scores": "SCORED", "review": "REVIEW", "rejected": "REJECTED"}


@dataclass(frozen=True, slots=True)
class Output:
    """One record on scores, review or rejected, read with read_committed.

    ``score`` is None on rejected; ``written_ms`` is the record's time.
    """

    kind: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    score: dict[str, Any] | None
    written_ms: int

    def header(self, name: str) -> str | None:
        """Return the only value of a header of the worker; None if it is absent."""
        found = [value for given, value in self.headers if given == PREFIX + name]
        assert len(found) <= 1, f"header {name} stands {len(found)} times on {self.kind}/{self.partition}/{self.offset}"
        return None if not found or found[0] is None else found[0].decode()


@dataclass(slots=True)
class Verdict:
    """Result of the verification; ``outputs``, ``entries`` (audit) and ``waiting`` (retry topics) are by source."""

    inputs: dict[str, Message] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)
    entries: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    waiting: dict[str, Message] = field(default_factory=dict)
    chains: int = 0
    events: int = 0

    def count(self, kind: str) -> int:
        """Return the number of outputs on one topic."""
        return sum(output.kind == kind for output in self.outputs.values())

    def reasons(self) -> Counter[str | None]:
        """Return the number of rejected contacts by reason."""
        return Counter(o.header("error-reason") for o in self.outputs.values() if o.kind == "rejected")

    def by_contact(self, contact_id: str) -> list[Output]:
        """Return the outputs whose input had this key, in the order of the inputs of a partition."""
        return [self.outputs[s] for s, message in self.inputs.items() if message.key() == contact_id.encode()]

    def paid_twice(self, account: dict[str, int]) -> int:
        """Return the number of contacts that the API billed without need, from its account (id -> times scored).

        A contact that was scored and then rejected (``unpublishable``) was needed once as well.
        """
        needed: Counter[str] = Counter()
        for entry, _ in self.entries.values():
            if entry["outcome"] != "REJECTED" or entry["reasons"] == ["unpublishable"]:
                needed[entry["contact_id"]] += 1
        unpaid = {contact_id for contact_id, times in needed.items() if account.get(contact_id, 0) < times}
        assert not unpaid, f"scored without a request: {sorted(unpaid)[:5]}"
        return sum(account.values()) - sum(needed.values())


def verify_outputs(
    harness: ScoringHarness,
    *,
    everything: bool = True,
    tutorial_features: bool = True,
    widest: float = 1.0,
    may_wait: bool = False,
) -> Verdict:
    """Check the invariant, and that audit, headers, values and order follow the contract.

    Args:
        harness: the topics and the group.
        everything: whether the group must have committed the end of the features topic.
        tutorial_features: whether the model is the tutorial's, whose missing features are all imputed and listed.
        widest: the widest confidence interval without a review.
        may_wait: whether contacts may be pending in the retry topics.
    """
    _await_stable(harness)
    commits, taken = harness.commits(), harness.retry_commits()
    starts = {number: _start(commit.metadata) for number, commit in commits.items()}
    outputs = _read(harness)
    inputs = outputs.pop("features")
    retries = outputs.pop("retries")
    assert harness.commits() == commits, "the group committed during the verification"
    assert harness.retry_commits() == taken, "the group committed during the verification"
    below: dict[str, Message] = {}
    for message in inputs:
        partition, offset = _place(message)
        commit = commits.get(partition)
        if commit is not None and starts[partition] <= offset < commit.offset:
            below[_name(message)] = message
    if everything:
        left = [_name(m) for m in inputs if _name(m) not in below and _place(m)[1] >= starts.get(_place(m)[0], 0)]
        assert not left, f"{len(left)} inputs are not committed, the first one is {left[0]}"
    verdict = Verdict(inputs=below)
    for kind in OUTCOMES:
        for message in outputs[kind]:
            _take_output(verdict, kind, message)
    _take_audit(verdict, outputs["audit"])
    _take_waiting(verdict, retries, harness.group_id, taken)
    assert may_wait or not verdict.waiting, f"{len(verdict.waiting)} contacts wait in retry topics"
    _check_sets(verdict)
    _check_order(verdict)
    for source in below.keys() - verdict.waiting.keys():
        _check_record(verdict, source, widest)
        if tutorial_features:
            _check_imputed(verdict, source)
    return verdict


def _start(metadata: str) -> int:
    word, _, offset = metadata.partition(";")[0].partition("=")
    assert word == "start", f"a commit has the metadata {metadata!r}"
    return int(offset)


def _place(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset


def _name(message: Message) -> str:
    return f"{message.topic()}/{message.partition()}/{message.offset()}"


def _await_stable(harness: ScoringHarness) -> None:
    """Wait until no transaction is open on any output: that of a killed worker ends with its time-out."""
    with harness.reader() as committed, harness.reader(isolation="read_uncommitted") as written:

        def stable() -> bool:
            try:
                return all(
                    committed.get_watermark_offsets(place, 10, cached=False)
                    == written.get_watermark_offsets(place, 10, cached=False)
                    for kind in OUTPUTS
                    for place in (TopicPartition(harness.topics[kind], number) for number in range(harness.partitions))
                )
            except KafkaException:
                return False  # a new client may not have the metadata of the topics yet

        wait_until(stable, "the end of all open transactions")


def _read(harness: ScoringHarness) -> dict[str, list[Message]]:
    """Return all committed records of each topic, each partition's in order."""
    found: dict[str, list[Message]] = {kind: [] for kind in ("features", *OUTPUTS, "retries")}
    kinds = {topic: kind for kind, topic in harness.topics.items()} | dict.fromkeys(harness.retries, "retries")
    with harness.reader() as reader:
        deadline = time.monotonic() + PATIENCE_S
        waiting = {(topic, number) for topic in harness.topics.values() for number in range(harness.partitions)}
        waiting |= {(topic, number) for topic in harness.retries for number in range(harness.retry_partitions)}
        reader.assign([TopicPartition(topic, number, 0) for topic, number in waiting])
        while waiting:
            assert time.monotonic() < deadline, f"reading stands still before the end of {waiting}"
            # Short, since the client waits for so many records even after the last one.
            for message in reader.consume(10_000, 0.1):
                deadline = time.monotonic() + PATIENCE_S
                error, topic = message.error(), message.topic() or ""
                if error is None:
                    found[kinds[topic]].append(message)
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    waiting.discard((topic, message.partition()))
    return found


def _take_output(verdict: Verdict, kind: str, message: Message) -> None:
    value = message.value()
    score = None if kind == "rejected" else SCORE.decode(value)
    headers: Any = message.headers() or []
    output = Output(kind, *_place(message), message.key(), value, headers, score, message.timestamp()[1])
    source = output.header("source")
    assert source is not None, f"{_name(message)} names no source"
    assert source not in verdict.outputs, f"{source} is visible twice: on {verdict.outputs[source].kind} and {kind}"
    verdict.outputs[source] = output


def _take_audit(verdict: Verdict, messages: list[Message]) -> None:
    chains: dict[str, tuple[int, bytes]] = {}
    for message in messages:
        event = AUDIT.decode(message.value())
        place = f"audit chain {event['chain_id']}, sequence {event['sequence']}"
        assert message.key() == event["chain_id"].encode(), f"{place}: the key is not the chain id"
        sequence, tip = chains.get(event["chain_id"], (0, b""))
        assert event["sequence"] == sequence, f"{place}: {sequence} was expected"
        assert event["previous_hash"] == tip, f"{place}: it is not linked to the event before"
        assert event["hash"] == sha256(AUDIT.body({**event, "hash": b""})).digest(), f"{place}: its hash is wrong"
        chains[event["chain_id"]] = (sequence + 1, event["hash"])
        counted = Counter(entry["outcome"] for entry in event["contacts"])
        said = event["counts"]
        assert said["received"] == len(event["contacts"]) > 0, place
        assert [said["scored"], said["review"], said["rejected"]] == [counted[o] for o in OUTCOMES.values()], place
        assert event["api_status"] is None or event["request_contacts"] >= len(event["contacts"]), place
        for entry in event["contacts"]:
            assert entry["source"] not in verdict.entries, f"{entry['source']} stands in two audit entries"
            verdict.entries[entry["source"]] = (entry, event)
    verdict.chains, verdict.events = len(chains), len(messages)


def _take_waiting(verdict: Verdict, messages: list[Message], group_id: str, taken: dict[tuple[str, int], int]) -> None:
    """Collect the records of this group in the retry topics that it has not committed."""
    for message in messages:
        partition, offset = _place(message)
        headers: dict[str, Any] = dict(message.headers() or [])
        is_taken = offset < taken.get((message.topic() or "", partition), 0)
        if is_taken or headers.get(PREFIX + "group") != group_id.encode():
            continue
        source, at = headers[PREFIX + "source"].decode(), _name(message)
        assert source not in verdict.waiting, f"{source} waits twice: {at}, {_name(verdict.waiting[source])}"
        assert source in verdict.inputs, f"{source} waits at {at} and is not committed"
        assert message.value() == verdict.inputs[source].value(), f"{at}: not the original value"
        verdict.waiting[source] = message


def _check_sets(verdict: Verdict) -> None:
    for what, found in (("output", verdict.outputs), ("audit entry", verdict.entries)):
        both = verdict.waiting.keys() & found.keys()
        assert not both, f"{len(both)} contacts wait in retry topics and have an {what}, e.g. {sorted(both)[:3]}"
        missing = verdict.inputs.keys() - found.keys() - verdict.waiting.keys()
        assert not missing, f"{len(missing)} committed inputs have no {what}, e.g. {sorted(missing)[:3]}"
        extra = found.keys() - verdict.inputs.keys()
        assert not extra, f"{len(extra)} inputs have an {what} above the committed offset, e.g. {sorted(extra)[:3]}"


def _check_order(verdict: Verdict) -> None:
    rows: dict[tuple[str, int, str], list[tuple[int, int]]] = defaultdict(list)
    for source, output in verdict.outputs.items():
        if output.header("deferred") is not None:
            continue
        input_partition, _, offset = source.rpartition("/")
        rows[output.kind, output.partition, input_partition].append((output.offset, int(offset)))
    for place, pairs in rows.items():
        offsets = [offset for _, offset in sorted(pairs)]
        assert offsets == sorted(offsets), f"{place}: the outputs do not stand in the order of their inputs"


def _check_record(verdict: Verdict, source: str, widest: float) -> None:
    message, output = verdict.inputs[source], verdict.outputs[source]
    entry, event = verdict.entries[source]
    assert entry["outcome"] == OUTCOMES[output.kind], f"{source}: audited as {entry['outcome']}, found on {output.kind}"
    assert output.header("batch") == event["batch_id"], f"{source}: its batch is not that of its audit"
    given: Any = message.headers() or []
    passed = [header for header in given if not header[0].startswith(PREFIX)]
    own = [header for header in output.headers if not header[0].startswith(PREFIX)]
    truncated = output.header("error-truncated")
    assert own == passed or truncated, f"{source}: the input's headers were not passed on"
    if output.score is not None:
        _check_score(source, message, output.score, entry, event)
        _check_topic(source, output.score, widest)
        assert output.key == output.score["contact_id"].encode()
        assert not [name for name, _ in output.headers if name.startswith(PREFIX + "error")], source
        return
    assert output.key == message.key(), f"{source}: not the original key"
    assert output.value == (None if truncated else message.value()), f"{source}: not the original value"
    assert output.header("error-reason") == entry["reasons"][0], source
    for name in ("error-detail", "error-timestamp"):
        assert output.header(name), f"{source}: no header {name}"


def _check_score(source: str, message: Message, score: dict[str, Any], entry: dict[str, Any], event: Any) -> None:
    asked = FEATURES.decode(message.value())
    for name in ("event_id", "contact_id", "campaign_id", "occurred_at"):
        assert score[name] == asked[name], f"{source}: {name} is not the input's"
    for name in ("batch_id", "model_id", "model_version"):
        assert score[name] == event[name], f"{source}: {name} is not the audit's"
    for name in ("contact_id", "score", "confidence_lower", "confidence_upper", "imputed_features"):
        both_nan = score[name] != score[name] and entry[name] != entry[name]
        assert score[name] == entry[name] or both_nan, f"{source}: {name} is not the audit's"
    assert score["review_reasons"] == entry["reasons"], source
    assert asked["model_version"] in (None, score["model_version"]), f"{source}: scored with another model version"


def _check_topic(source: str, score: dict[str, Any], widest: float) -> None:
    low, high = score["confidence_lower"], score["confidence_upper"]
    clean = 0 <= low <= score["score"] <= high <= 1 and 0.15 - 1e-9 <= high - low <= widest + 1e-9
    assert clean == (not score["review_reasons"]), f"{source}: on the wrong topic: {score}"


def _check_imputed(verdict: Verdict, source: str) -> None:
    score = verdict.outputs[source].score
    if score is not None:
        features = FEATURES.decode(verdict.inputs[source].value())["features"]
        gaps = [name for name in TUTORIAL_FEATURES if features.get(name) is None]
        assert score["imputed_features"] == gaps, f"{source}: imputed {score['imputed_features']}, absent {gaps}"
